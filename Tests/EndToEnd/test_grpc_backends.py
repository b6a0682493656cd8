"""Backends over gRPC: the example of `Examples/backend`, well and unwell."""

import base64
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import av
import numpy as np
from websockets.sync.client import connect

from aiortc_client import AiortcCall
from grpc_backend import GRPCBackend
from harness import EXECUTABLE, REPOSITORY, Swiftlet, wait_until
from realtime_backend import RealtimeBackend
from speech import SpeakingCall
from test_conversation import ANSWERED_TURN, in_order
from test_sockets import append, events_until, pcm
from tones import dominant_frequency


def completed(call):
    return [event for event in call.of_type("response.done") if event["response"]["status"] == "completed"]


@contextlib.contextmanager
def example(port=0):
    """The example as its README starts it: the process, and its port. Leaving it is a kill."""
    program = REPOSITORY / "Examples" / "backend" / "backend.py"
    process = subprocess.Popen([sys.executable, str(program), "--port", str(port)], stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        port = re.search(r"grpc://127\.0\.0\.1:(\d+)", line)
        if not port:
            raise AssertionError(f"the example does not start: {line}{process.stderr.read()}")
        yield process, int(port[1])
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


class Conversing(unittest.TestCase):
    def test_a_spoken_turn(self):
        with GRPCBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            seconds = call.say("The quick brown fox jumps over the lazy dog.")
            call.wait_for("output_audio_buffer.stopped")
            self.assertIsNone(in_order(ANSWERED_TURN, call.types), call.account())
            self.assertIn("here it is again", str(call.of_type("response.output_audio_transcript.done")))
            self.assertGreater(len(call.packets) * 0.02, seconds)
            self.assertGreater(call.loudness_of_answer(), 500)
            self.assertTrue(backend.starts[0].call_id.startswith("rtc_"), backend.starts)
            self.assertIsNone(in_order(["session_start", "turn_started", "turn_committed", "response_create"], backend.kinds), backend.kinds)
            call.hangup()
            wait_until(lambda: not backend.calls, "the end of the backend's call")

    def test_a_backend_may_have_the_callers_opus_as_it_came(self):
        with GRPCBackend(opus=True) as backend, Swiftlet(backend=backend.url) as server, AiortcCall(server, frequency=523) as call:
            call.connect()
            wait_until(lambda: len(backend.opus) > 150, "three seconds of Opus", 30)
            call.hangup()
            heard = list(backend.opus)
            for (_, before, samples), (_, position, _) in zip(heard, heard[1:]):
                self.assertEqual(position, before + samples)
            decoder = av.CodecContext.create("libopus", "r")
            decoder.sample_rate, decoder.layout = 48_000, "mono"
            frames = [frame for packet, *_ in heard if packet for frame in decoder.decode(av.Packet(packet))]
            sound = np.concatenate([frame.to_ndarray().astype(float).reshape(-1) for frame in frames])[-48_000:]
            self.assertLess(abs(dominant_frequency(sound) - 523), 12)
            # Hardly anything is decoded here for it: only what came before the backend had answered.
            self.assertLess(backend.audio, 2 * 24_000)

    def test_an_interruption_reaches_the_backend(self):
        with GRPCBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            seconds = call.say("This is a rather long sentence, so that there is time enough to interrupt the answer in the middle of it.")
            call.wait_for("output_audio_buffer.started")
            call.say("Wait, wait, stop it please.")
            cleared = call.wait_for("conversation.item.truncated")
            wait_until(lambda: backend.truncated, lambda: f"Truncated among {backend.kinds}")
            # At the backend's 16 kHz.
            self.assertEqual(backend.truncated[0].samples, cleared["audio_end_ms"] * 16)
            self.assertLess(backend.truncated[0].samples / 16_000, seconds)

    def test_a_text_is_answered_with_a_tone(self):
        with GRPCBackend(tone=True) as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Beep, please."}]}
            call.send({"type": "conversation.item.create", "item": item})
            call.send({"type": "response.create"})
            call.wait_for("output_audio_buffer.stopped")
            self.assertGreater(call.loudness_of_answer(), 500)
            self.assertIn("item_created", backend.kinds)

    def test_over_tls_with_a_key(self):
        with tempfile.TemporaryDirectory() as folder, GRPCBackend(secure=True, key="sk-secret") as backend:
            key = pathlib.Path(folder, "key")
            key.write_text("sk-secret\n")
            flags = ["--backend-key", str(key), "--backend-ca", backend.authority]
            with Swiftlet(*flags, backend=backend.url) as server, SpeakingCall(server) as call:
                call.connect()
                call.say("Is anybody there?")
                call.wait_for("response.done")
                self.assertTrue(completed(call), call.account())

    def test_without_webrtc(self):
        with GRPCBackend() as backend, Swiftlet(backend=backend.url) as server:
            with connect(f"{server.url.replace('http', 'ws')}/v1/realtime?model=m") as socket:
                events_until(socket, "session.created")
                socket.send(append(pcm("The quick brown fox jumps over the lazy dog.")))
                events = events_until(socket, "response.done")
                answer = b"".join(base64.b64decode(event["delta"]) for event in events if event["type"] == "response.output_audio.delta")
                self.assertGreater(len(answer), 48_000)
            wait_until(lambda: not backend.calls, "the end of the backend's call")
            self.assertTrue(backend.starts[0].call_id.startswith("sess_"), backend.starts)


class Failing(unittest.TestCase):
    def test_a_backend_that_hangs_is_told_to_the_client_and_the_call_goes_on(self):
        with GRPCBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            backend.mode = "hang"
            call.connect()
            call.say("Is anybody there?")
            call.wait_for("response.created")
            error = call.wait_for("error")
            self.assertEqual(error["error"]["code"], "backend_slow")
            self.assertLess(call.times("error")[0] - call.times("response.created")[0], 5)
            call.wait_for("response.done", timeout=30)
            backend.mode = "answer"
            call.say("Are you back?")
            wait_until(lambda: completed(call), lambda: f"an answer\n{call.account()}", 30)

    def test_a_backend_that_falls_silent_fails_its_response_only(self):
        with GRPCBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            backend.mode = "mute"
            call.connect()
            call.say("Is anybody there?")
            self.assertIn("said nothing for 10 s", call.wait_for("error", timeout=30)["error"]["message"])
            backend.mode = "answer"
            call.say("Are you back?")
            wait_until(lambda: completed(call), lambda: f"an answer\n{call.account()}", 30)
            self.assertEqual(len(backend.starts), 1)

    def test_a_backend_that_dies_comes_back_and_so_does_the_conversation(self):
        with contextlib.ExitStack() as stack:
            process, port = stack.enter_context(example())
            server = stack.enter_context(Swiftlet(backend=f"grpc://127.0.0.1:{port}"))
            call = stack.enter_context(SpeakingCall(server))
            call.connect()
            call.say("Is anybody there?")
            wait_until(lambda: completed(call), lambda: f"an answer\n{call.account()}", 30)
            process.kill()
            self.assertIn("The backend is not there", call.wait_for("error")["error"]["message"])
            stack.enter_context(example(port))
            call.say("Are you back?")
            call.wait_for("input_audio_buffer.committed", count=2)
            # The first attempt may have come too early.
            wait_until(lambda: self._asks(call) > 1, lambda: f"another answer\n{call.account()}", 40, interval=1)

    def _asks(self, call):
        """Asks again, unless an answer is on its way; how many have come."""
        if len(call.of_type("response.created")) == len(call.of_type("response.done")) and len(completed(call)) < 2:
            call.send({"type": "response.create"})
        return len(completed(call))

    def test_a_backend_that_leaves_politely_is_left_without_an_error(self):
        with GRPCBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            wait_until(lambda: backend.starts, "the backend's call")
            # GOAWAY, and then as long as calls need.
            backend.restart(grace=10)
            wait_until(lambda: len(backend.starts) > 1, "another stream", 20)
            self.assertTrue(backend.starts[-1].resumed)
            self.assertEqual(call.of_type("error"), [])
            call.say("Are you back?")
            wait_until(lambda: completed(call), lambda: f"an answer\n{call.account()}", 30)

    def test_a_wrong_key_is_told(self):
        with GRPCBackend(key="sk-right") as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            self.assertIn("refuses our key", call.wait_for("error")["error"]["message"])

    def test_a_key_does_not_travel_in_the_open(self):
        with tempfile.NamedTemporaryFile("w") as key:
            key.write("sk-secret")
            key.flush()
            ended = subprocess.run(
                [EXECUTABLE, "up", "--signaling", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--backend",
                 "grpc://192.0.2.1", "--backend-key", key.name],
                capture_output=True, text=True, timeout=60)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("a key is not sent without TLS", ended.stdout + ended.stderr)

    def test_a_certificate_of_nobody_we_know_is_refused(self):
        with GRPCBackend(secure=True) as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            self.assertIn("certificate is not good", call.wait_for("error")["error"]["message"])
            self.assertEqual(backend.starts, [])

    def test_a_port_where_nobody_listens_hinders_no_call(self):
        with Swiftlet(backend="grpc://127.0.0.1:9") as server, SpeakingCall(server) as call:
            call.connect()
            call.send({"type": "response.create"})
            self.assertIn("The backend is not there", call.wait_for("error")["error"]["message"])

    def test_a_port_where_somebody_else_listens_is_told(self):
        with RealtimeBackend() as other:
            url = "grpc://" + other.url.split("://")[1].split("/")[0]
            with Swiftlet(backend=url) as server, SpeakingCall(server) as call:
                call.connect()
                self.assertIn("The backend is not there", call.wait_for("error")["error"]["message"])
