"""A stand-in for the servers, made of aiortc: it serves the page and answers calls with an echo.

It proves the harness itself, so that a failing test of the real servers can be believed. It is no reference: it knows one
way to do things, and answers wrong requests just well enough for the harness.
"""

import asyncio
import json
import mimetypes
import secrets

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay

import aiortc_client   # makes aiortc use loopback addresses too
from harness import REPOSITORY, Server
from loops import BackgroundLoop

PAGE = REPOSITORY / "Sources" / "swiftlet-transceiver" / "Page"
# The page must live with this: everything it needs comes from its own server,
# but for its icon.
CONTENT_POLICY = "default-src 'self'; img-src 'self' data:; media-src 'self' blob: mediastream:; frame-ancestors 'none'"
assert aiortc_client


class StandIn(Server):
    def __init__(self, host="127.0.0.1"):
        self.host = host
        self.calls = {}
        self.requests = []      # (method, path) of each
        self.key = None         # that calls must bring
        self.refusal = None     # (status, message) for every offer

    def __enter__(self):
        self.loop = BackgroundLoop()
        self.server = self.loop.run(asyncio.start_server(self._serve, self.host, 0))
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://[{self.host}]:{port}" if ":" in self.host else f"http://{self.host}:{port}"
        return self

    def __exit__(self, *failure):
        self.close_door()
        for name in list(self.calls):
            self.loop.run(self._hang_up(name))
        self.loop.close()

    def close_door(self):
        """Listens no longer. Calls go on."""
        self.loop.call(self.server.close)

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            headers = dict((line.split(":", 1)[0].lower(), line.split(":", 1)[1].strip()) for line in head[1:] if line)
            self.requests.append((method, target))
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            status, extra, content = await self._answer(method, target.split("?")[0], headers, body)
            lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(content)}", "Connection: close"]
            writer.write("\r\n".join(lines + [f"{k}: {v}" for k, v in extra.items()] + ["", ""]).encode() + content)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, method, path, headers, body):
        match method, path.strip("/").split("/"):
            case "POST", ["v1", "realtime", "calls"] | ["whip"]:
                if self.refusal:
                    return self._refusal(*self.refusal)
                if self.key and headers.get("authorization") != f"Bearer {self.key}":
                    return self._refusal(401, "Incorrect API key provided.")
                if headers.get("content-type") != "application/sdp":
                    return self._refusal(415, "Send the offer as application/sdp.")
                name = f"rtc_{secrets.token_hex(8)}"
                answer = await self._call(name, body.decode())
                location = {"Location": f"{path}/{name}", "Content-Type": "application/sdp"}
                return 201, location, answer.encode()
            case "POST", ["v1", "realtime", "calls", name, "hangup"]:
                return await self._hang_up(name)
            case "DELETE", ["whip", name]:
                return await self._hang_up(name)
            case "GET", ["metrics"]:
                text = f"# TYPE standin_calls gauge\nstandin_calls {len(self.calls)}\n"
                return 200, {"Content-Type": "text/plain"}, text.encode()
            case "GET", [name] if (PAGE / (name or "index.html")).is_file():
                file = PAGE / (name or "index.html")
                headers = {"Content-Type": mimetypes.guess_type(file.name)[0], "Content-Security-Policy": CONTENT_POLICY}
                return 200, headers, file.read_bytes()
        return self._refusal(404, f"There is nothing at {path}.")

    def _refusal(self, status, message):
        error = {"message": message, "type": "invalid_request_error", "code": None, "param": None}
        return status, {"Content-Type": "application/json"}, json.dumps({"error": error}).encode()

    async def _call(self, name, offer):
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.calls[name] = peer
        relay = MediaRelay()
        peer.on("track", lambda track: peer.addTrack(relay.subscribe(track)))

        @peer.on("connectionstatechange")
        async def changed():
            if peer.connectionState in ("failed", "closed"):
                await self._hang_up(name)

        # The stand-in is the DTLS server: as a client aiortc knows ECDSA only, and GStreamer's certificate is RSA.
        offer = offer.replace("a=setup:actpass", "a=setup:active")
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _hang_up(self, name):
        peer = self.calls.pop(name, None)
        if peer is None:
            return self._refusal(404, "There is no such call.")
        await peer.close()
        return 200, {}, b""
