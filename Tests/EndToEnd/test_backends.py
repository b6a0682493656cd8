"""Backends elsewhere: `realtime:ws://…` and `realtime:wss://…`, well and unwell."""

import base64
import json
import os
import pathlib
import tempfile
import unittest

from websockets.sync.client import connect

from harness import Swiftlet, wait_until
from realtime_backend import RealtimeBackend
from speech import SpeakingCall
from test_conversation import ANSWERED_TURN, in_order
from test_sockets import append, events_until, pcm


class Realtime(unittest.TestCase):
    def test_a_spoken_turn(self):
        with RealtimeBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            seconds = call.say("The quick brown fox jumps over the lazy dog.")
            call.wait_for("output_audio_buffer.stopped")
            self.assertIsNone(in_order(ANSWERED_TURN, call.types), call.account())
            self.assertIn("I heard you.", str(call.of_type("response.output_audio_transcript.done")))
            self.assertGreater(len(call.packets) * 0.02, seconds)
            self.assertGreater(call.loudness_of_answer(), 500)
            # Turns are found here, and the backend is told when one ends.
            self.assertIsNone(backend.sessions[-1]["audio"]["input"]["turn_detection"])
            self.assertEqual(backend.events.count("input_audio_buffer.commit"), 1)
            call.hangup()
            wait_until(lambda: not backend.connections, "the end of the backend's connection")

    def test_an_interruption_reaches_the_backend(self):
        with RealtimeBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            call.say("This is a rather long sentence, so that there is time enough to interrupt the answer in the middle of it.")
            call.wait_for("output_audio_buffer.started")
            call.say("Wait, wait, stop it please.")
            cleared = call.wait_for("conversation.item.truncated")
            self.assertLess(cleared["audio_end_ms"], backend.spoken / 48)
            wait_until(lambda: "conversation.item.truncate" in backend.events, lambda: f"conversation.item.truncate in {backend.events}")

    def test_over_tls_with_a_key(self):
        with tempfile.TemporaryDirectory() as folder, RealtimeBackend(secure=True, key="sk-secret") as backend:
            key = pathlib.Path(folder, "key")
            key.write_text("sk-secret\n")
            flags = ["--backend-key", str(key), "--backend-ca", backend.authority]
            with Swiftlet(*flags, backend=backend.url) as server, SpeakingCall(server) as call:
                call.connect()
                call.say("Is anybody there?")
                call.wait_for("response.done")
                self.assertEqual(call.of_type("response.done")[0]["response"]["status"], "completed")

    def test_a_certificate_of_nobody_we_know_is_refused(self):
        with RealtimeBackend(secure=True) as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            call.send({"type": "response.create"})
            error = call.wait_for("error")["error"]
            self.assertEqual(error["code"], "backend_failed")
            self.assertEqual(backend.authorizations, [])

    def test_a_wrong_key_is_told(self):
        with RealtimeBackend(key="sk-right") as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            call.wait_for("error")
            self.assertIn("refuses our key", str(call.of_type("error")))

    def test_a_backend_that_hangs_is_told_to_the_client_and_the_call_goes_on(self):
        with RealtimeBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            backend.mode = "hang"
            call.connect()
            call.say("Is anybody there?")
            call.wait_for("response.created")
            call.wait_for("error")
            self.assertLess(call.times("error")[0] - call.times("response.created")[0], 5)
            call.wait_for("response.done", timeout=30)
            backend.mode = "answer"
            call.say("Are you back?")
            wait_until(
                lambda: any(event["response"]["status"] == "completed" for event in call.of_type("response.done")),
                lambda: f"an answer\n{call.account()}", 30)

    def test_a_backend_that_dies_comes_back_and_so_does_the_conversation(self):
        with RealtimeBackend() as backend, Swiftlet(backend=backend.url) as server, SpeakingCall(server) as call:
            call.connect()
            wait_until(lambda: backend.connections, "the backend's connection")
            backend.drop_connections()
            call.wait_for("error")
            wait_until(lambda: backend.connections, "another connection", 20)
            call.say("Are you back?")
            wait_until(
                lambda: any(event["response"]["status"] == "completed" for event in call.of_type("response.done")),
                lambda: f"an answer\n{call.account()}", 30)

    def test_without_webrtc(self):
        with RealtimeBackend() as backend, Swiftlet(backend=backend.url) as server:
            with connect(f"{server.url.replace('http', 'ws')}/v1/realtime?model=m") as socket:
                events_until(socket, "session.created")
                socket.send(append(pcm("The quick brown fox jumps over the lazy dog.")))
                events = events_until(socket, "response.done")
                answer = b"".join(base64.b64decode(event["delta"]) for event in events if event["type"] == "response.output_audio.delta")
                self.assertGreater(len(answer), 48_000)
            wait_until(lambda: not backend.connections, "the end of the backend's connection")


class Starting(unittest.TestCase):
    def test_a_backend_that_is_not_there_hinders_no_call(self):
        with Swiftlet(backend="realtime:ws://127.0.0.1:9/") as server, SpeakingCall(server) as call:
            call.connect()
            call.send({"type": "response.create"})
            self.assertIn("The backend is not there", call.wait_for("error")["error"]["message"])
