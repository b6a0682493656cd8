"""OpenAI's Python library and the HTTP calls of the API, with nothing changed but the base URL."""

import json
import pathlib
import tempfile
import unittest

import openai
from openai import OpenAI
from websockets.sync.client import connect

from aiortc_client import AiortcCall
from harness import Response, Swiftlet, wait_until
from speech import SpeakingCall

KEY = "sk-test-of-the-official-library"
SDP = {"Content-Type": "application/sdp"}
SESSION = {
    "type": "realtime", "model": "gpt-realtime", "instructions": "Be kind.",
    "audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 600}}, "output": {"voice": "marin"}},
}


def client_of(server, key=KEY):
    return OpenAI(
        api_key=key, base_url=f"{server.url}/v1", websocket_base_url=f"{server.url}/v1".replace("http", "ws"), max_retries=0)


class Guarded(unittest.TestCase):
    """A server with one project key."""

    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        keys = pathlib.Path(folder) / "keys"
        keys.write_text(f"{KEY} app\n")
        keys.chmod(0o600)
        cls.server = cls.enterClassContext(Swiftlet("--api-keys", str(keys), backend="embedded:parrot"))
        cls.client = client_of(cls.server)

    def raw(self, method, path, body=None, headers=None, key=KEY):
        return self.server.request(method, path, body, {"Authorization": f"Bearer {key}", **(headers or {})})


class LibraryCall(SpeakingCall):
    """A call whose offer `post` sends; it returns status, headers and answer."""

    def __init__(self, server, post):
        super().__init__(server)
        self.post = post

    def _post(self, offer):
        return self.post(offer)


def created(raw):
    return Response(raw.status_code, Headers(raw.headers), raw.content)


class Headers(dict):
    def __init__(self, headers):
        super().__init__({name.title(): value for name, value in headers.items()})

    def get_content_type(self):
        return self["Content-Type"].split(";")[0]


class Library(Guarded):
    def call(self, client, **parameters):
        return LibraryCall(self.server, lambda offer: created(client.realtime.calls.with_raw_response.create(sdp=offer, **parameters)))

    def check_session(self, call):
        session = call.of_type("session.created")[0]["session"]
        self.assertEqual((session["model"], session["instructions"]), ("gpt-realtime", "Be kind."))
        self.assertEqual(session["audio"]["output"]["voice"], "marin")
        self.assertEqual(session["audio"]["input"]["turn_detection"]["silence_duration_ms"], 600)

    def test_a_call_with_a_project_key_from_offer_to_hangup(self):
        with self.call(self.client, session=SESSION) as call:
            call.connect()
            self.check_session(call)
            call.say("Is anybody there?")
            call.wait_for("response.done")
            self.client.realtime.calls.hangup(call.call_id)
            with self.assertRaises(openai.NotFoundError) as missing:
                self.client.realtime.calls.hangup(call.call_id)
            self.assertEqual(missing.exception.code, "call_not_found")
        self.server.wait_for_no_calls()

    def test_a_call_with_a_client_secret_whose_session_applies(self):
        secret = self.client.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": 60}, session=SESSION)
        self.assertTrue(secret.value.startswith("ek_"))
        self.assertEqual((secret.session.type, secret.session.audio.output.voice), ("realtime", "marin"))
        with self.call(client_of(self.server, secret.value)) as call:
            call.connect()
            self.check_session(call)
            with self.assertRaises(openai.PermissionDeniedError):
                client_of(self.server, secret.value).realtime.calls.hangup(call.call_id)
            self.client.realtime.calls.hangup(call.call_id)
        self.server.wait_for_no_calls()

    def test_a_secret_lives_ten_seconds_to_two_hours(self):
        for seconds in (9, 7201):
            with self.assertRaises(openai.BadRequestError) as wrong:
                self.client.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": seconds})
            self.assertEqual(wrong.exception.param, "expires_after.seconds")

    def test_a_session_of_a_secret_is_checked(self):
        with self.assertRaises(openai.BadRequestError) as wrong:
            self.client.realtime.client_secrets.create(session={"type": "realtime", "audio": {"output": {"speed": 4}}})
        self.assertEqual(wrong.exception.param, "session.audio.output.speed")

    def test_a_transcription_session(self):
        secret = self.client.realtime.client_secrets.create(
            session={"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1", "language": "en"}}}})
        self.assertEqual((secret.session.type, secret.session.object), ("transcription", "realtime.transcription_session"))
        self.assertEqual(secret.session.audio.input.transcription.language, "en")
        with client_of(self.server, secret.value).realtime.connect(extra_query={"intent": "transcription"}) as connection:
            first = connection.recv()
            self.assertEqual((first.type, first.session.type), ("session.created", "transcription"))

    def test_somebody_listens_in_and_speaks_for_the_call(self):
        with self.call(self.client, session=SESSION) as call:
            call.connect()
            with self.client.realtime.connect(call_id=call.call_id) as connection:
                self.assertEqual(connection.recv().session.id, call.of_type("session.created")[0]["session"]["id"])
                connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
                self.assertEqual(connection.recv().session.instructions, "Be brief.")
                self.assertEqual(call.wait_for("session.updated")["session"]["instructions"], "Be brief.")
                connection.conversation.item.create(
                    item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Good evening."}]})
                connection.response.create()
                for event in connection:
                    if event.type == "response.done":
                        break
                self.assertIn("Good evening.", event.response.output[0].content[0].text)
                call.wait_for("response.done")
            self.client.realtime.calls.hangup(call.call_id)

    def test_a_websocket_with_a_client_secret(self):
        secret = self.client.realtime.client_secrets.create(session=SESSION)
        with client_of(self.server, secret.value).realtime.connect(model="another") as connection:
            session = connection.recv().session
            self.assertEqual((session.model, session.instructions), ("gpt-realtime", "Be kind."))

    def test_calls_by_telephone_are_none_of_ours(self):
        calls = self.client.realtime.calls
        with self.call(self.client) as call:
            call.connect()
            for act in (lambda: calls.accept(call.call_id, type="realtime"), lambda: calls.reject(call.call_id, status_code=486),
                        lambda: calls.refer(call.call_id, target_uri="tel:+14155550123")):
                with self.assertRaises(openai.BadRequestError) as wrong:
                    act()
                self.assertIn("SIP", wrong.exception.message)
                self.assertEqual(wrong.exception.code, "not_a_sip_call")
            calls.hangup(call.call_id)
        with self.assertRaises(openai.NotFoundError):
            calls.accept("rtc_nobody", type="realtime")

    def test_a_wrong_key(self):
        with self.assertRaises(openai.AuthenticationError) as wrong:
            client_of(self.server, "sk-wrong-0123456789").realtime.client_secrets.create()
        self.assertEqual(wrong.exception.code, "invalid_api_key")


class OlderClients(Guarded):
    """What was there before the API was final, which clients in the field still use."""

    def test_the_model_in_the_query(self):
        for path in ("/v1/realtime/calls?model=gpt-4o-realtime", "/v1/realtime?model=gpt-4o-realtime"):
            with self.subTest(path), LibraryCall(self.server, lambda offer: self.raw("POST", path, offer, SDP)) as call:
                call.connect()
                self.assertEqual(call.of_type("session.created")[0]["session"]["model"], "gpt-4o-realtime")
                self.assertRegex(call.location, r"^/v1/realtime/calls/rtc_[A-Za-z0-9_-]+$")
                self.client.realtime.calls.hangup(call.call_id)

    def test_a_session_with_its_secret(self):
        wanted = {
            "model": "gpt-4o-realtime", "voice": "verse", "modalities": ["audio", "text"], "instructions": "Be kind.",
            "input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1"}, "temperature": 0.8,
            "max_response_output_tokens": 200, "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
        }
        answer = self.raw("POST", "/v1/realtime/sessions", json.dumps(wanted), {"Content-Type": "application/json"})
        self.assertEqual(answer.status, 200, answer)
        session = answer.json()
        self.assertEqual(
            (session["object"], session["model"], session["voice"], session["modalities"], session["input_audio_format"]),
            ("realtime.session", "gpt-4o-realtime", "verse", ["audio", "text"], "g711_ulaw"))
        secret = session["client_secret"]
        self.assertGreater(secret["expires_at"], 1_700_000_000)
        with LibraryCall(self.server, lambda offer: self.raw("POST", "/v1/realtime?model=x", offer, SDP, secret["value"])) as call:
            call.connect()
            final = call.of_type("session.created")[0]["session"]
            self.assertEqual(final["model"], "gpt-4o-realtime")
            self.assertEqual(final["audio"]["input"]["turn_detection"]["silence_duration_ms"], 300)
            self.assertEqual(final["audio"]["input"]["transcription"]["model"], "whisper-1")
            self.assertEqual((final["audio"]["output"]["voice"], final["max_output_tokens"]), ("verse", 200))


class Forms(Guarded):
    """Bodies as all kinds of HTTP libraries write them."""

    def test_either_order_and_odd_boundaries(self):
        session = json.dumps(SESSION)
        for boundary, quoted in (("x", False), ("--=_Part 1:2?(3)'", True), ("-" * 70, False)):
            for names in (("sdp", "session"), ("session", "sdp")):
                def post(offer):
                    texts = {"sdp": ("application/sdp", offer), "session": ("application/json", session)}
                    body = "".join(
                        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {texts[name][0]}\r\n\r\n'
                        f"{texts[name][1]}\r\n" for name in names) + f"--{boundary}--\r\n"
                    value = f'"{boundary}"' if quoted else boundary
                    return self.raw("POST", "/v1/realtime/calls", body, {"Content-Type": f"multipart/form-data; boundary={value}"})
                with self.subTest(boundary=boundary, names=names), LibraryCall(self.server, post) as call:
                    call.connect()
                    self.assertEqual(call.of_type("session.created")[0]["session"]["instructions"], "Be kind.")
                    self.client.realtime.calls.hangup(call.call_id)


if __name__ == "__main__":
    unittest.main()
