"""What stands in front of signaling in production, as small as it can be: a proxy that tells where its clients are, as a CDN does.

    edge.py ADDRESS PORT=HOST:PORT… CLIENT=LATITUDE,LONGITUDE,COUNTRY…

Geo headers that a client sends itself are thrown away. `Lab-Place: none` leaves them out, so that the default is answered.
"""

import http.client
import http.server
import socketserver
import sys
import threading

GEO = ("cf-iplatitude", "cf-iplongitude", "cf-ipcountry")
HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "host", "content-length", "lab-place")
address = sys.argv[1]
ports, places = {}, {}
for word in sys.argv[2:]:
    name, value = word.split("=", 1)
    if name.isdigit():
        ports[int(name)] = value
    else:
        places[name] = value.split(",")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP + GEO}
        client = self.client_address[0]
        headers["X-Forwarded-For"] = client
        if client in places and self.headers.get("Lab-Place") != "none":
            headers["CF-IPLatitude"], headers["CF-IPLongitude"], headers["CF-IPCountry"] = places[client]
        try:
            origin = http.client.HTTPConnection(ports[self.server.server_port], timeout=20, source_address=(address, 0))
            origin.request(self.command, self.path, body or None, headers)
            response = origin.getresponse()
            content = response.read()
        except OSError as error:
            return self.send_error(502, str(error))
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = forward

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        # HTTPServer's own asks for the address's name, and nobody is there to answer.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address


servers = [Server((address, port), Handler) for port in ports]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("edge ready", flush=True)
threading.Event().wait()
