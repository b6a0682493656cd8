"""A backend that speaks the Realtime WebSocket, as a product's own server would: it says back what it heard, faster than real time."""

import asyncio
import base64
import json
import ssl
import subprocess
import tempfile

import websockets

from loops import BackgroundLoop


class RealtimeBackend:
    """Use it in a `with`. `mode` may be changed at any time: "answer", "hang" (reads, says nothing) or "refuse" (HTTP 401)."""

    def __init__(self, secure=False, key=None):
        self.secure = secure
        self.key = key
        self.mode = "answer"
        self.sessions = []      # the `session` of every session.update
        self.events = []        # every other event's type
        self.connections = set()
        self.authorizations = []
        self.spoken = 0         # bytes of audio that were sent

    def __enter__(self):
        self.loop = BackgroundLoop()
        self.folder = tempfile.TemporaryDirectory()
        self.server = self.loop.run(self._serve())
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"realtime:wss://localhost:{port}/v1/realtime?model=m" if self.secure else f"realtime:ws://127.0.0.1:{port}/v1/realtime?model=m"
        return self

    def __exit__(self, *failure):
        self.loop.run(self._stop())
        self.loop.close()
        self.folder.cleanup()

    @property
    def authority(self):
        return f"{self.folder.name}/certificate.pem"

    def drop_connections(self):
        self.loop.run(self._drop())

    async def _drop(self):
        for connection in list(self.connections):
            connection.transport.abort()

    async def _stop(self):
        self.server.close()
        await self._drop()
        await self.server.wait_closed()

    async def _serve(self):
        context = None
        if self.secure:
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                 "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{self.folder.name}/key.pem", "-out", self.authority],
                check=True, capture_output=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.authority, f"{self.folder.name}/key.pem")

        def judge(connection, request):
            self.authorizations.append(request.headers.get("Authorization"))
            if self.mode == "refuse" or (self.key and request.headers.get("Authorization") != f"Bearer {self.key}"):
                return connection.respond(401, "no\n")

        return await websockets.serve(
            self._converse, "localhost" if self.secure else "127.0.0.1", 0, ssl=context, process_request=judge, max_size=None)

    async def _converse(self, connection):
        self.connections.add(connection)
        heard = bytearray()
        turn = b""
        answering = None
        say = lambda kind, **fields: connection.send(json.dumps({"type": kind, "event_id": f"b{len(self.events)}", **fields}))
        try:
            await say("session.created", session={"type": "realtime"})
            async for text in connection:
                event = json.loads(text)
                kind = event["type"]
                if kind == "input_audio_buffer.append":
                    heard += base64.b64decode(event["audio"])
                    continue
                self.events.append(kind)
                if kind == "session.update":
                    self.sessions.append(event["session"])
                    await say("session.updated", session=event["session"])
                elif kind == "input_audio_buffer.commit":
                    turn, heard = bytes(heard[-6 * 48000:]), bytearray()
                elif kind == "response.create" and self.mode == "answer":
                    answering = asyncio.ensure_future(self._answer(say, turn))
                elif kind == "response.cancel" and answering:
                    answering.cancel()
        except websockets.ConnectionClosed:
            pass
        finally:
            self.connections.discard(connection)

    async def _answer(self, say, audio):
        number = len(self.events)
        response = {"id": f"resp_b{number}", "object": "realtime.response", "status": "in_progress", "output": []}
        item = {"id": f"item_b{number}", "type": "message", "role": "assistant", "content": []}
        place = {"response_id": response["id"], "item_id": item["id"], "output_index": 0, "content_index": 0}
        await say("response.created", response=response)
        await say("response.output_item.added", response_id=response["id"], output_index=0, item=item)
        await say("response.content_part.added", part={"type": "audio", "transcript": ""}, **place)
        await say("response.output_audio_transcript.delta", delta="I heard you.", **place)
        for start in range(0, len(audio), 9600):
            await say("response.output_audio.delta", delta=base64.b64encode(audio[start:start + 9600]).decode(), **place)
            self.spoken += 9600
        await say("response.output_audio.done", **place)
        await say("response.output_audio_transcript.done", transcript="I heard you.", **place)
        await say("response.done", response={**response, "status": "completed"})
