"""WebSockets of the Realtime API: sessions without WebRTC, and whoever listens in to a call."""

import audioop
import base64
import json
import unittest

import numpy as np
import websockets
from openai import OpenAI
from websockets.sync.client import connect

from harness import Swiftlet, wait_until
from speech import SpeakingCall, speech
from test_conversation import in_order
from tones import SAMPLE_RATE

API_RATE = 24_000


def pcm(text):
    """Speech and the silence that ends the turn, as the API takes it."""
    samples = speech(text)[:: SAMPLE_RATE // API_RATE]
    return np.concatenate([samples, np.zeros(API_RATE, np.int16)]).astype("<i2").tobytes()


def mu_law(samples):
    """G.711 µ-law of 16-bit samples (ITU-T G.191)."""
    magnitude = np.minimum(np.abs(samples.astype(int)), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(int) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return (~(np.where(samples < 0, 0x80, 0) | exponent << 4 | mantissa) & 0xFF).astype(np.uint8).tobytes()


def append(audio):
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})


def events_until(socket, kind):
    events = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(socket.recv(timeout=20)))
    return events


class OpenAIClient(unittest.TestCase):
    """The official client; only its base URL was changed."""

    def client(self, server):
        return OpenAI(api_key="sk-anything", base_url=f"{server.url}/v1", websocket_base_url=f"{server.url}/v1".replace("http", "ws"))

    def test_a_spoken_turn(self):
        with Swiftlet(backend="embedded:parrot") as server:
            with self.client(server).realtime.connect(model="gpt-realtime") as connection:
                created = connection.recv()
                self.assertEqual((created.type, created.session.model), ("session.created", "gpt-realtime"))
                self.assertEqual(connection.recv().type, "conversation.created")
                connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
                self.assertEqual(connection.recv().session.instructions, "Be brief.")
                sound = pcm("The quick brown fox jumps over the lazy dog.")
                for start in range(0, len(sound), 9600):
                    connection.input_audio_buffer.append(audio=base64.b64encode(sound[start:start + 9600]).decode())
                events = []
                for event in connection:
                    events.append(event)
                    if event.type == "response.done":
                        break
                types = [event.type for event in events]
                order = [
                    "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed",
                    "conversation.item.added", "response.created", "response.output_item.added", "response.content_part.added",
                    "response.output_audio.delta", "response.output_audio.done", "response.output_item.done", "response.done",
                ]
                self.assertIsNone(in_order(order, types), types)
                self.assertFalse([kind for kind in types if kind.startswith("output_audio_buffer")])
                answer = b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta")
                self.assertAlmostEqual(len(answer), len(sound), delta=API_RATE * 2)
                self.assertGreater(np.abs(np.frombuffer(answer, "<i2")).max(), 3000)
            server.wait_for_no_calls()

    def test_a_text_turn(self):
        with Swiftlet(backend="embedded:parrot") as server:
            with self.client(server).realtime.connect(model="gpt-realtime") as connection:
                connection.conversation.item.create(
                    item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Good morning."}]})
                connection.response.create(response={"output_modalities": ["text"]})
                for event in connection:
                    if event.type == "response.output_text.done":
                        self.assertIn("Good morning.", event.text)
                    if event.type == "response.done":
                        break


class Sessions(unittest.TestCase):
    def url(self, server, query="model=m"):
        return f"{server.url.replace('http', 'ws')}/v1/realtime?{query}"

    def test_g711_both_ways(self):
        narrow = speech("One two three four five six.")[::6]
        sound = np.concatenate([narrow, np.zeros(8_000, np.int16)])
        laws = {
            "audio/pcmu": (mu_law, lambda sound: audioop.ulaw2lin(sound, 2)),
            "audio/pcma": (lambda samples: audioop.lin2alaw(samples.tobytes(), 2), lambda sound: audioop.alaw2lin(sound, 2)),
        }
        for name, (encode, decode) in laws.items():
            with self.subTest(name), Swiftlet(backend="embedded:parrot") as server, connect(self.url(server)) as socket:
                formats = {"input": {"format": {"type": name}}, "output": {"format": {"type": name}}}
                socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": formats}}))
                events_until(socket, "session.updated")
                socket.send(append(encode(sound)))
                events = events_until(socket, "response.done")
                answer = b"".join(base64.b64decode(event["delta"]) for event in events if event["type"] == "response.output_audio.delta")
                self.assertAlmostEqual(len(answer), len(sound), delta=8_000)
                heard = np.frombuffer(decode(answer), np.int16)
                # As loud as it was said, and not a hiss of the wrong law.
                self.assertAlmostEqual(np.abs(heard).max() / np.abs(narrow).max(), 1, delta=0.2)
                self.assertLess(np.median(np.abs(heard)), 1_000)

    def test_speech_during_an_answer_cancels_it_or_follows_it(self):
        with Swiftlet(backend="embedded:parrot") as server, connect(self.url(server)) as socket:
            socket.send(append(pcm("A first sentence.")))
            socket.send(append(pcm("And a second one.")))
            first = events_until(socket, "response.done")
            second = events_until(socket, "response.done")
            self.assertIn(first[-1]["response"]["status"], ("completed", "cancelled"))
            self.assertEqual(second[-1]["response"]["status"], "completed")

    def test_more_than_a_minute_at_once_is_refused_and_the_session_goes_on(self):
        with Swiftlet(backend="embedded:parrot") as server, connect(self.url(server)) as socket:
            formats = {"input": {"format": {"type": "audio/pcma"}}}
            socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": formats}}))
            socket.send(append(bytes(61 * 8_000)))
            error = events_until(socket, "error")[-1]["error"]
            self.assertEqual(error["code"], "input_audio_buffer_full")
            socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": "still here"}}))
            events_until(socket, "session.updated")

    def test_what_is_no_event_is_answered_with_an_error(self):
        with Swiftlet(backend="embedded:parrot") as server, connect(self.url(server)) as socket:
            events_until(socket, "conversation.created")
            for text in ["", "{", "[]", '{"type":"input_audio_buffer.append","audio":"%%%"}', '{"type":"input_audio_buffer.append"}']:
                socket.send(text)
                self.assertTrue(json.loads(socket.recv(timeout=10))["error"]["message"])
            socket.send(b"\x00\x01")
            with self.assertRaises(websockets.ConnectionClosed) as closed:
                socket.recv(timeout=10)
            self.assertEqual(closed.exception.rcvd.code, 1003)
            server.wait_for_no_calls()

    def test_what_is_no_websocket_request_is_told_so(self):
        with Swiftlet() as server:
            self.assertEqual(server.request("GET", "/v1/realtime?model=m").status, 426)
            with self.assertRaises(websockets.InvalidStatus) as refused:
                connect(self.url(server, "call_id=rtc_nobody"))
            self.assertEqual(refused.exception.response.status_code, 404)

    def test_stopping_the_server_ends_the_session(self):
        with Swiftlet(backend="embedded:parrot") as server:
            socket = connect(self.url(server))
            events_until(socket, "session.created")
        with self.assertRaises(websockets.ConnectionClosed):
            while True:
                socket.recv(timeout=10)


class Sideband(unittest.TestCase):
    def test_it_hears_and_speaks_for_the_call(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            with connect(f"{server.url.replace('http', 'ws')}/v1/realtime?call_id={call.call_id}") as socket:
                created = json.loads(socket.recv(timeout=10))
                self.assertEqual(created["session"]["id"], call.of_type("session.created")[0]["session"]["id"])
                socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": "Listen."}}))
                self.assertEqual(events_until(socket, "session.updated")[-1]["session"]["instructions"], "Listen.")
                self.assertEqual(call.wait_for("session.updated")["session"]["instructions"], "Listen.")
                call.say("Somebody listens.")
                types = [event["type"] for event in events_until(socket, "response.done")]
                self.assertIn("input_audio_buffer.speech_started", types)
                call.hangup()
                with self.assertRaises(websockets.ConnectionClosed):
                    while True:
                        socket.recv(timeout=10)
            server.wait_for_no_calls()

    def test_a_call_outlives_whoever_listens_in(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            with connect(f"{server.url.replace('http', 'ws')}/v1/realtime?call_id={call.call_id}") as socket:
                socket.recv(timeout=10)
            call.say("I am still here.")
            call.wait_for("response.done")
