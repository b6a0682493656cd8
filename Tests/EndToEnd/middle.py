"""A network between clients and a relay that can go away: a UDP port that passes everything on, and does not while it is cut."""

import selectors
import socket
import threading


class Middle:
    """Use it in a `with`. `port` is where clients send; `to` says where the relay is, once it is known."""

    def __enter__(self):
        self.outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outside.bind(("127.0.0.1", 0))
        self.port = self.outside.getsockname()[1]
        self.relay = None
        self.is_cut = False
        self.inside = {}      # client → the socket that stands for it at the relay
        self.is_running = True
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.outside, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.is_running = False
        self.thread.join(5)
        self.outside.close()
        for upstream in self.inside.values():
            upstream.close()
        self.selector.close()

    def to(self, relay):
        self.relay = relay

    def _run(self):
        while self.is_running:
            for key, _ in self.selector.select(0.1):
                try:
                    if key.fileobj is self.outside:
                        self._up()
                    else:
                        self._down(key.fileobj, key.data)
                except OSError:
                    continue  # a relay that is not there

    def _up(self):
        datagram, client = self.outside.recvfrom(65536)
        if self.is_cut or self.relay is None:
            return
        if client not in self.inside:
            upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            upstream.bind(("127.0.0.1", 0))
            self.inside[client] = upstream
            self.selector.register(upstream, selectors.EVENT_READ, client)
        self.inside[client].sendto(datagram, self.relay)

    def _down(self, upstream, client):
        datagram = upstream.recv(65536)
        if not self.is_cut:
            self.outside.sendto(datagram, client)
