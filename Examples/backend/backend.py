"""A backend for swiftlet over gRPC that needs no model: it says back what it heard, or answers with a tone.

    python backend.py [--port 50051] [--tone]

Your own starts at `Call.answer`: the caller's turn is in `self.turn`, and what you `say` is heard.
"""

import argparse
import array
import asyncio
import logging
import math
import pathlib
import sys
import tempfile

import grpc

RATE = 16_000          # Samples a second, both ways: swiftlet turns the caller's audio into ours.
FRAME = RATE // 10     # An answer is said in pieces of 100 ms, faster than real time: swiftlet paces it.
TURN_MAX = 60 * RATE


def stubs():
    """The modules of swiftlet.proto, made anew at every start: nothing generated needs to be kept."""
    from grpc_tools import protoc

    folder = tempfile.mkdtemp(prefix="swiftlet-")
    source = pathlib.Path(__file__).resolve().parent
    if protoc.main(["protoc", f"-I{source}", f"--python_out={folder}", f"--grpc_python_out={folder}", "swiftlet.proto"]) != 0:
        raise SystemExit("swiftlet.proto cannot be compiled")
    sys.path.insert(0, folder)
    import swiftlet_pb2
    import swiftlet_pb2_grpc

    return swiftlet_pb2, swiftlet_pb2_grpc


pb, pb_grpc = stubs()
log = logging.getLogger("backend")


class Call:
    """One call: what was heard, and what is being said."""

    def __init__(self, tone):
        self.tone = tone
        self.outgoing = asyncio.Queue(maxsize=4)
        self.heard = bytearray()      # since the last turn ended
        self.turn = b""               # the turn that ended last
        self.text = ""                # what the client wrote last
        self.answering = None

    async def listen(self, messages):
        try:
            async for message in messages:
                kind = message.WhichOneof("message")
                handle = getattr(self, f"on_{kind}", None) if kind else None
                if handle:
                    await handle(getattr(message, kind))
        except Exception:
            log.exception("a call has failed")
        finally:
            if self.answering:
                self.answering.cancel()
        await self.outgoing.put(None)

    async def send(self, **message):
        # Waits while swiftlet has enough of us: HTTP/2's flow control reaches back to here.
        await self.outgoing.put(pb.ServerMessage(**message))

    # What the caller does.

    async def on_session_start(self, start):
        log.info("%s: begins, for model %s%s", start.call_id, start.session.model, " again" if start.resumed else "")
        await self.send(session_ready=pb.SessionReady(input_rate=RATE, output_rate=RATE))

    async def on_audio(self, audio):
        # `audio.concealed` tells guesses from what was said; a recogniser may want to know.
        self.heard += audio.pcm
        del self.heard[:-2 * TURN_MAX]

    async def on_audio_lost(self, lost):
        self.heard += bytes(2 * min(lost.samples, TURN_MAX))

    async def on_turn_started(self, turn):
        # Swiftlet has stopped playing if we were speaking, and will cancel. What was heard before the turn is not part of it, but for a moment.
        del self.heard[:-RATE]

    async def on_turn_committed(self, turn):
        self.turn, self.heard = bytes(self.heard), bytearray()

    async def on_input_cleared(self, _):
        self.heard.clear()

    async def on_item_created(self, item):
        self.text = item.text or self.text

    # What it wants from us.

    async def on_response_create(self, request):
        await self.stop()
        # At once: the answer itself may take longer, but not knowing whether we are there makes people nervous.
        await self.send(response_started=pb.ResponseStarted(response_id=request.response_id))
        self.answering = asyncio.create_task(self.answer(request.response_id))

    async def on_response_cancel(self, request):
        await self.stop()

    async def on_truncated(self, truncated):
        log.info("the caller heard %.2f s of %s", truncated.samples / RATE, truncated.response_id)

    async def stop(self):
        answering, self.answering = self.answering, None
        if answering:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def answer(self, response):
        error = ""
        try:
            words, audio = self.think()
            if audio:
                await self.send(transcript_delta=pb.TranscriptDelta(response_id=response, text=words))
                await self.say(response, audio)
            else:
                await self.send(text_delta=pb.TextDelta(response_id=response, text=words))
        except Exception as failure:
            log.exception("no answer")
            error = str(failure) or type(failure).__name__
        await self.send(response_done=pb.ResponseDone(response_id=response, error=error))

    async def say(self, response, audio):
        for start in range(0, len(audio), 2 * FRAME):
            await self.send(response_audio=pb.ResponseAudio(response_id=response, pcm=audio[start:start + 2 * FRAME]))

    def think(self):
        """What to answer: words, and 16-bit samples that say them."""
        if self.tone:
            return "Beep.", tone(440, 1.5)
        turn, self.turn = self.turn, b""
        text, self.text = self.text, ""
        if turn:
            return f"You said {len(turn) / 2 / RATE:.1f} seconds of something; here it is again.", turn
        return (f"You wrote: {text}" if text else "I heard nothing to say back."), b""


def tone(hertz, seconds):
    samples = (int(8_000 * math.sin(2 * math.pi * hertz * n / RATE)) for n in range(int(seconds * RATE)))
    pcm = array.array("h", samples)
    if sys.byteorder == "big":
        pcm.byteswap()
    return pcm.tobytes()


class Backend(pb_grpc.VoiceBackendServicer):
    def __init__(self, tone=False, make_call=Call):
        self.tone = tone
        self.make_call = make_call

    async def Converse(self, messages, context):
        call = self.make_call(self.tone)
        listening = asyncio.create_task(call.listen(messages))
        try:
            while (message := await call.outgoing.get()) is not None:
                yield message
        finally:
            # The end of a call comes as the cancellation of its stream.
            listening.cancel()
            log.info("a call has ended")


async def serve(address, backend, credentials=None):
    """Starts a server; its port."""
    server = grpc.aio.server()
    pb_grpc.add_VoiceBackendServicer_to_server(backend, server)
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    return server, port


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="other machines reach 0.0.0.0, but then use TLS")
    parser.add_argument("--port", type=int, default=50051)
    parser.add_argument("--tone", action="store_true", help="answer with a tone")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server, port = await serve(f"{options.host}:{options.port}", Backend(options.tone))
    log.info("listening; start swiftlet with --backend grpc://%s:%d", options.host, port)
    try:
        await server.wait_for_termination()
    finally:
        # Calls go on for a moment; swiftlet leaves by itself between two answers.
        await server.stop(grace=5)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
