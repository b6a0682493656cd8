"""The example backend of `Examples/backend`, in this process, and made to misbehave."""

import asyncio
import contextlib
import pathlib
import subprocess
import sys
import tempfile

import grpc

from loops import BackgroundLoop

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "Examples" / "backend"))
import backend as example


class GRPCBackend:
    """Use it in a `with`. `mode` may be changed at any time: "answer", "hang" (hears, says nothing), "mute" (acknowledges, then nothing)
    or "refuse" (no call gets in)."""

    def __init__(self, secure=False, key=None, tone=False, opus=False):
        self.secure = secure
        self.key = key
        self.tone = tone
        self.wants_opus = opus
        self.opus = []          # (packet, position, samples), from then on
        self.mode = "answer"
        self.starts = []        # every SessionStart
        self.kinds = []         # of every message but audio
        self.truncated = []     # every Truncated
        self.concealed = 0      # frames that were made up
        self.audio = 0          # bytes heard
        self.calls = set()
        self.port = 0

    def __enter__(self):
        self.loop = BackgroundLoop()
        self.folder = tempfile.TemporaryDirectory()
        self.loop.run(self._serve())
        return self

    def __exit__(self, *failure):
        self.loop.run(self.server.stop(None))
        self.loop.close()
        self.folder.cleanup()

    @property
    def url(self):
        return f"grpcs://localhost:{self.port}" if self.secure else f"grpc://127.0.0.1:{self.port}"

    @property
    def authority(self):
        return f"{self.folder.name}/certificate.pem"

    def restart(self, grace):
        """The server leaves, calls have `grace` seconds for it, and another one comes to the same place."""
        self.loop.run(self._restart(grace))

    async def _restart(self, grace):
        await self.server.stop(grace)
        await self._serve()

    async def _serve(self):
        outer = self

        class Watched(example.Call):
            async def listen(self, messages):
                outer.calls.add(self)
                try:
                    await super().listen(outer.noted(messages))
                finally:
                    outer.calls.discard(self)

            async def on_session_start(self, start):
                if not outer.wants_opus:
                    return await super().on_session_start(start)
                ready = example.pb.SessionReady(input_rate=48_000, output_rate=example.RATE, input_opus=True)
                await self.send(session_ready=ready)

            async def on_response_create(self, request):
                if outer.mode == "answer":
                    await super().on_response_create(request)
                elif outer.mode == "mute":
                    await self.send(response_started=example.pb.ResponseStarted(response_id=request.response_id))

        class Guarded(example.Backend):
            async def Converse(self, messages, context):
                given = dict(context.invocation_metadata()).get("authorization")
                if outer.mode == "refuse" or (outer.key and given != f"Bearer {outer.key}"):
                    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not you")
                async with contextlib.aclosing(super().Converse(messages, context)) as answers:
                    async for answer in answers:
                        yield answer

        host = "localhost" if self.secure else "127.0.0.1"
        self.server, self.port = await example.serve(
            f"{host}:{self.port}", Guarded(tone=self.tone, make_call=Watched), self._credentials() if self.secure else None)

    async def noted(self, messages):
        async for message in messages:
            kind = message.WhichOneof("message")
            if kind == "audio":
                self.audio += len(message.audio.pcm)
                if message.audio.samples:
                    self.opus.append((message.audio.opus, message.audio.position, message.audio.samples))
                self.concealed += message.audio.concealed
            else:
                self.kinds.append(kind)
            if kind == "session_start":
                self.starts.append(message.session_start)
            if kind == "truncated":
                self.truncated.append(message.truncated)
            yield message

    def _credentials(self):
        key = pathlib.Path(self.folder.name, "key.pem")
        if not key.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                 "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", self.authority],
                check=True, capture_output=True)
        return grpc.ssl_server_credentials([(key.read_bytes(), pathlib.Path(self.authority).read_bytes())])
