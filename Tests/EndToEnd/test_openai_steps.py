"""OpenAI's published steps for browsers work with nothing but another base URL, also from a page of another origin, as in real apps."""

import http.server
import json
import pathlib
import tempfile
import threading
import unittest

from chromium import Chromium
from firefox import Firefox
from harness import Swiftlet, wait_until
from speech import script

PAGE = pathlib.Path(__file__).with_name("openai_steps.html")
KEY = "sk-test-of-the-steps-in-the-documentation"
SESSION = {"session": {"type": "realtime", "model": "gpt-realtime", "audio": {"output": {"voice": "marin"}}}}


class App:
    """The application's own server of the documentation: the page, and `/token`, behind which it asks for an ephemeral key."""

    def __init__(self, realtime):
        app = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/":
                    self.reply(200, "text/html", PAGE.read_text().replace("BASE_URL", realtime.url))
                elif self.path == "/token":
                    self.reply(200, "application/json", json.dumps(app.token(realtime)))
                else:
                    self.reply(404, "text/plain", "")

            def reply(self, status, kind, text):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def token(self, realtime):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        response = realtime.request("POST", "/v1/realtime/client_secrets", json.dumps(SESSION), headers)
        assert response.status == 200, response
        return response.json()

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.server.shutdown()
        self.server.server_close()


class OpenAISteps(unittest.TestCase):
    def check_steps(self, browser, speaks):
        keys = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "keys"
        keys.write_text(f"{KEY} app\n")
        keys.chmod(0o600)
        with Swiftlet("--api-keys", str(keys), backend="embedded:parrot") as server, App(server) as app, browser:
            tab = browser.open(app.url)
            tab.wait_for("'steps' in window || 'failure' in window")
            self.assertIsNone(tab.evaluate("window.failure ?? null"))
            self.assertEqual(tab.evaluate("steps.status"), 201)
            self.assertRegex(tab.evaluate("steps.location"), "/v1/realtime/calls/rtc_")   # CORS shows it only when it is told to
            tab.wait_for("steps.isOpen && steps.events.some(e => e.type === 'session.created')")
            # The key's session is the call's.
            session = tab.evaluate("steps.events.find(e => e.type === 'session.created').session")
            self.assertEqual(session["audio"]["output"]["voice"], "marin")

            # "Sending events": the documentation's own pair.
            content = [{"type": "input_text", "text": "hello there!"}]
            item = {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}}
            tab.evaluate(f"steps.send({json.dumps(item)})")
            tab.evaluate("steps.send({type: 'response.create', response: {output_modalities: ['text']}})")
            tab.wait_for("steps.events.some(e => e.type === 'response.done')")
            answer = "steps.events.find(e => e.type === 'response.done').response.output[0].content[0].text"
            self.assertIn("hello there!", tab.evaluate(answer))

            if speaks:
                tab.wait_for("steps.events.some(e => e.type === 'output_audio_buffer.stopped')", 60)
                self.assertEqual(tab.evaluate("steps.audioElement.srcObject.getAudioTracks().length"), 1)
                self.assertFalse(tab.evaluate("steps.audioElement.paused"))
                received = (
                    "(async () => [...(await steps.pc.getStats()).values()].find(r => r.type === 'inbound-rtp').packetsReceived)()"
                )
                wait_until(lambda: tab.evaluate(received) > 50, "a second of the answer")
            tab.evaluate("steps.pc.close()")
            server.wait_for_no_calls()
            self.assertEqual(tab.errors, [])

    def test_chromium(self):
        self.check_steps(Chromium(speech=script(5, "Hello, can you hear me?", 30)), speaks=True)

    def test_firefox(self):
        self.check_steps(Firefox(), speaks=False)


if __name__ == "__main__":
    unittest.main()
