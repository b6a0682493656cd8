"""The page by itself, in both browsers, against the stand-in: what it shows, and what it says when something is wrong."""

import json
import unittest

from chromium import Chromium
from firefox import Firefox
from harness import wait_until
from standin import StandIn
from tones import is_tone

STEPS = ["microphone", "offer", "answer", "ice", "dtls", "audio"]


def text_of(tab, element):
    return tab.evaluate(f"document.getElementById('{element}').textContent")


def conversation(tab, *steps):
    """The moments and the items of a conversation in which the steps happened: calls of the model's methods, one millisecond apart."""
    calls = "".join(f"now += 1; c.{step};" for step in steps)
    script = (
        "import('/conversation.js').then(({Conversation, cutText}) => { const c = new Conversation(); let now = 0;"
        f" {calls} return {{kinds: c.marks.map(({{kind}}) => kind), items: c.items.map((i) => cutText(i)), state: c.state}}; }})"
    )
    return tab.evaluate(script)


def event(kind, **fields):
    return f"receive({json.dumps({'type': kind, **fields})}, now)"


class PageInBothBrowsers:
    """Each browser runs all of these in one process; each test has a server and a tab of its own."""

    @classmethod
    def setUpClass(cls):
        cls.browser = cls.enterClassContext(cls.Browser())

    def setUp(self):
        self.server = self.enterContext(StandIn())
        self.tab = self.browser.open(self.server.url)
        self.tab.wait_for("'swiftlet' in window")

    def test_a_call_goes_through_every_step_and_ends(self):
        tab = self.tab
        self.assertEqual(tab.evaluate("swiftlet.state"), "idle")
        tab.connect()
        tab.wait_for_tone()
        self.assertTrue(is_tone(tab.evaluate("swiftlet.microphoneFrequency()")))
        self.assertEqual(text_of(tab, "call-label"), "Stop")
        timeline = tab.evaluate("swiftlet.timeline")
        self.assertCountEqual(timeline, STEPS)
        self.assertLessEqual(timeline["offer"], timeline["answer"])
        self.assertLessEqual(timeline["answer"], timeline["audio"])
        for step in STEPS:
            self.assertRegex(tab.evaluate(f"document.querySelector('#step-{step} .time').textContent"), r"^\d+ ms$")
        tab.wait_for("document.getElementById('turn-state').textContent === 'Speak: you will hear yourself.'")
        meter = "Number(document.getElementById('meter-echo').getAttribute('aria-valuenow'))"
        tab.wait_for(f"{meter} > -40 && {meter} < 0")
        tab.hangup()
        self.assertEqual(tab.evaluate("swiftlet.state"), "idle")
        self.assertEqual(text_of(tab, "status"), "The call has ended.")
        hangup = ("POST", f"/v1/realtime/calls/{tab.evaluate('swiftlet.callID')}/hangup")
        self.assertEqual(self.server.requests.count(hangup), 1, self.server.requests)
        self.server.wait_for_no_calls()
        self.assertEqual(tab.errors, [])

    def test_a_call_that_the_server_ends_is_over_on_the_page(self):
        self.tab.connect()
        self.server.request("POST", f"/v1/realtime/calls/{self.tab.evaluate('swiftlet.callID')}/hangup")
        self.tab.wait_for("swiftlet.state === 'idle'", 5)
        self.assertEqual(text_of(self.tab, "status"), "The server ended the call.")
        self.assertEqual(self.tab.errors, [])

    def test_a_second_call_follows_the_first(self):
        for _ in range(2):
            self.tab.connect()
            self.tab.wait_for_tone()
            self.tab.hangup()
        self.server.wait_for_no_calls()

    def test_leaving_the_page_ends_the_call(self):
        self.tab.connect()
        self.tab.navigate("about:blank")
        self.server.wait_for_no_calls()

    def test_a_refusal_shows_the_servers_words(self):
        self.server.refusal = (429, "All 4 calls of this server are taken; try again when one has ended.")
        self.tab.start()
        self.tab.wait_for("!document.getElementById('error').hidden")
        self.assertIn("All 4 calls of this server are taken", text_of(self.tab, "error"))
        self.assertIn("429", text_of(self.tab, "error"))
        self.assertEqual(text_of(self.tab, "call-label"), "Start")

    def test_a_server_that_wants_a_key_gets_one(self):
        self.server.key = "sk-please"
        self.tab.start()
        self.tab.wait_for("!document.getElementById('access').hidden")
        self.assertIn("Incorrect API key", text_of(self.tab, "error"))
        self.tab.evaluate("void (document.getElementById('api-key').value = 'sk-please')")
        self.tab.connect()
        self.tab.hangup()
        self.server.wait_for_no_calls()

    def test_a_server_that_is_gone_is_named(self):
        self.server.close_door()
        self.tab.start()
        self.tab.wait_for("!document.getElementById('error').hidden")
        self.assertIn("could not be reached", text_of(self.tab, "error"))

    def test_a_turn_whose_end_nobody_will_tell_is_forgotten(self):
        begun = event("input_audio_buffer.speech_started", item_id="a")
        no_detection = event("session.updated", session={"audio": {"input": {"turn_detection": None}}})
        for end in (no_detection, event("input_audio_buffer.cleared")):
            after = conversation(self.tab, begun, end)
            self.assertEqual((after["kinds"], after["items"], after["state"]), ([], [], "ready"))
        # A turn by hand is not meant: it is the page that tells its end.
        after = conversation(self.tab, "pressed(now)", event("input_audio_buffer.cleared"))
        self.assertEqual((after["kinds"], after["state"]), (["speech-start"], "listening"))

    def test_what_an_interruption_cut_off_is_told_between_words(self):
        part = {"type": "output_audio", "transcript": "One two three four five six."}
        said = event("conversation.item.added", item={"id": "b", "role": "assistant", "content": [part]})
        for milliseconds, heard in ((0, ""), (700, "One two "), (60_000, "One two three four five six.")):
            cut = event("conversation.item.truncated", item_id="b", audio_end_ms=milliseconds)
            item = conversation(self.tab, said, cut)["items"][0]
            self.assertEqual(item["heard"], heard)
            self.assertEqual(item["heard"] + item["lost"], part["transcript"])

    def test_the_space_bar_starts_a_call(self):
        self.tab.evaluate("void document.body.dispatchEvent(new KeyboardEvent('keydown', {code: 'Space', bubbles: true}))")
        self.tab.wait_for("swiftlet.state === 'talking'")
        self.tab.hangup()

    def test_names_and_roles_are_there_for_screen_readers(self):
        self.assertEqual(self.tab.evaluate("document.documentElement.lang"), "en")
        self.assertEqual(text_of(self.tab, "call-label"), "Start")
        unnamed = (
            "[...document.querySelectorAll('[role=meter], section')]"
            ".filter((e) => !e.ariaLabel && !e.getAttribute('aria-labelledby')).length"
        )
        self.assertEqual(self.tab.evaluate(unnamed), 0)


class ChromiumPage(PageInBothBrowsers, unittest.TestCase):
    Browser = Chromium


    def test_it_fits_every_window(self):
        for width in (320, 360, 700, 900, 1250, 1600):
            with self.subTest(width):
                self.tab.view(width, 900)
                inside, outside = self.tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
                self.assertLessEqual(inside, outside)


class FirefoxPage(PageInBothBrowsers, unittest.TestCase):
    Browser = Firefox


class NoMicrophone(unittest.TestCase):
    def test_a_missing_microphone_is_named(self):
        with StandIn() as server, Chromium(microphone=False) as browser:
            tab = browser.open(server.url)
            tab.start()
            tab.wait_for("swiftlet.error !== null")
            self.assertRegex(tab.evaluate("swiftlet.error"), "No microphone was found|could not be opened|in use")

    def test_a_page_that_is_not_secure_is_told_so(self):
        with StandIn() as server, Chromium("--host-resolver-rules=MAP talk.example 127.0.0.1") as browser:
            tab = browser.open(server.url.replace("127.0.0.1", "talk.example"))
            tab.start()
            wait_until(lambda: tab.evaluate("swiftlet.error"), "an error", 5)
            self.assertIn("secure pages", tab.evaluate("swiftlet.error"))


if __name__ == "__main__":
    unittest.main()
