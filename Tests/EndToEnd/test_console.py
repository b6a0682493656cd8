"""The page as a console of spoken conversations with `embedded:parrot`. Chromium's microphone speaks; Firefox's only hums."""

import json
import unittest

from chromium import Chromium
from firefox import Firefox
from harness import Swiftlet
from speech import script

LONG = "This is a rather long sentence, so that there is time enough to interrupt the answer in the middle of it."

ENDED = "swiftlet.turn === 'ready' && swiftlet.marks.at(-1)?.kind === 'answer-end'"


def text_of(tab, element):
    return tab.evaluate(f"document.getElementById('{element}').textContent")


def set_field(tab, element, value):
    """As a person does: the value, then the events that say so."""
    tab.evaluate(
        f"(() => {{ const e = document.getElementById('{element}'); e.value = {json.dumps(value)};"
        " for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true})); return true; })()"
    )


def click(tab, element):
    tab.evaluate(f"void document.getElementById('{element}').click()")


def bubbles(tab, role):
    """Text of every bubble, without who said it."""
    return tab.evaluate(f"[...document.querySelectorAll('#transcript .{role} .text')].map(e => e.textContent)")


class Spoken(unittest.TestCase):
    def setUp(self):
        self.server = self.enterContext(Swiftlet(backend="embedded:parrot"))

    def open(self, *spoken):
        """The page in a browser whose microphone says and pauses as told."""
        browser = self.enterContext(Chromium(speech=script(*spoken)))
        tab = browser.open(self.server.url)
        tab.wait_for("'swiftlet' in window")
        return tab

    def test_a_conversation_and_its_interruption_are_shown(self):
        # The answer to the long sentence lasts longer than the pause after it, so what follows interrupts.
        tab = self.open(4, "The quick brown fox jumps over the lazy dog.", 8, LONG, 4, "Wait, wait, stop it please.", 30)
        # Set before the call, so that it holds from its beginning: a tab that starves for half a second has not stopped speaking.
        set_field(tab, "vad-silence", "1000")
        tab.connect()
        tab.wait_for("swiftlet.events.some(e => e.type === 'session.updated')")
        tab.wait_for("swiftlet.turn === 'listening'", 30)
        tab.wait_for("document.querySelector('#transcript .user .text')?.textContent === 'speaking'")
        tab.wait_for("swiftlet.marks.some(({kind}) => kind === 'barge-in')", 60)
        tab.wait_for(ENDED, 60)
        tab.wait_for("document.querySelector('#turns li')?.dataset.kind === 'answered'")

        # The transcript has both, and what was cut.
        self.assertGreaterEqual(len(bubbles(tab, "user")), 3)
        self.assertTrue(all("s of speech" in text for text in bubbles(tab, "user")), bubbles(tab, "user"))
        self.assertGreaterEqual(len(bubbles(tab, "assistant")), 3)
        self.assertTrue(all(text.startswith("You said") for text in bubbles(tab, "assistant")), bubbles(tab, "assistant"))
        cut = "document.querySelector('#transcript .assistant[data-state=cut] {}').textContent"
        self.assertRegex(tab.evaluate(cut.format(".fate")), r"^Interrupted after \d+\.\d s$")
        played = tab.evaluate("swiftlet.items.find(i => i.playedMilliseconds !== null).playedMilliseconds")
        if played < 3000:      # later than that, all words were said
            self.assertNotEqual(tab.evaluate(cut.format(".lost")), "")

        # The moments, and their order in the first turn.
        marks = tab.evaluate("swiftlet.marks")
        kinds = [mark["kind"] for mark in marks]
        self.assertEqual(kinds[:4], ["speech-start", "speech-stop", "answer-start", "answer-end"], marks)
        self.assertEqual(marks, sorted(marks, key=lambda mark: mark["at"]))
        self.assertIsNotNone(tab.evaluate("document.querySelector('#turns li[data-kind=interrupted]')?.textContent ?? null"))

        # The numbers.
        for name in ("total", "heard", "started", "silence"):
            self.assertRegex(text_of(tab, f"latency-{name}"), r"^\d+ ms$", name)
        latencies = tab.evaluate("swiftlet.latencies")
        # Both are heard by the same ears: silence before the turn ended is part of the whole.
        self.assertGreater(min(latencies["total"]), min(latencies["heard"]))
        tab.wait_for("swiftlet.network?.roundTrip != null")
        for name in ("rtt", "jitter", "buffer"):
            self.assertRegex(text_of(tab, f"stat-{name}"), r"^\d+(\.\d)? ms$")
        self.assertRegex(text_of(tab, "stat-loss-down"), r"^\d+\.\d %$")

        # Both lanes have something in them: the pixels that are nearly opaque are what was heard.
        opaque = (
            "(() => { const c = document.getElementById('lanes'), scale = c.width / c.clientWidth;"
            " const count = (y) => c.getContext('2d').getImageData(0, y * scale, c.width, 8).data"
            ".reduce((n, v, i) => n + (i % 4 === 3 && v > 180), 0);"
            " return [count(36), count(102)]; })()"
        )
        for count in tab.evaluate(opaque):
            self.assertGreater(count, 100)
        self.assertTrue(tab.evaluate("document.getElementById('server-error').hidden"))
        self.assertEqual(tab.errors, [])
        tab.hangup()
        self.assertEqual(text_of(tab, "status"), "The call has ended.")
        self.assertGreaterEqual(len(bubbles(tab, "assistant")), 3, "the conversation is still there to read")
        self.server.wait_for_no_calls()

    def test_a_turn_ends_when_the_button_is_let_go(self):
        # It speaks from the beginning, so that the server may have heard the start of a turn before it is told not to listen.
        tab = self.open(*["Nobody listens for the end of this.", 0.2] * 20)
        tab.evaluate("void document.getElementById('turn-mode-hold').click()")
        tab.connect()
        tab.wait_for("swiftlet.events.some(e => e.type === 'session.updated')")
        self.assertIsNone(tab.evaluate("swiftlet.events.find(e => e.type === 'session.updated').session.audio.input.turn_detection"))
        # Nobody hears a person who does not hold the button.
        tab.wait_for("swiftlet.levels.you < -70")
        self.assertNotEqual(tab.evaluate("getComputedStyle(document.getElementById('talk')).display"), "none")
        press = "document.getElementById('talk').dispatchEvent(new KeyboardEvent('key{}', {{code: 'Space', bubbles: true}}))"
        tab.evaluate(f"void {press.format('down')}")
        tab.wait_for("swiftlet.levels.you > -40")
        self.assertEqual(tab.evaluate("document.getElementById('talk').getAttribute('aria-pressed')"), "true")
        tab.wait_for("swiftlet.turn === 'listening' && performance.now() - swiftlet.startedAt > swiftlet.marks.at(-1).at + 2000")
        tab.evaluate(f"void {press.format('up')}")
        tab.wait_for(ENDED, 60)
        kinds = [mark["kind"] for mark in tab.evaluate("swiftlet.marks")]
        self.assertEqual(kinds, ["speech-start", "speech-stop", "answer-start", "answer-end"])
        types = tab.evaluate("swiftlet.events.map(e => e.type)")
        since = types[types.index("session.updated"):]
        self.assertEqual([kind for kind in since if "speech_" in kind], [])
        self.assertEqual(len(bubbles(tab, "user")), 1)
        tab.hangup()

    def test_writing_is_answered_and_an_answer_can_be_stopped(self):
        tab = self.open(2, LONG, 60)
        tab.connect()
        tab.wait_for("swiftlet.turn === 'answering'", 40)
        tab.wait_for("!document.getElementById('answer-stop').disabled")
        click(tab, "answer-stop")
        tab.wait_for("swiftlet.events.some(e => e.type === 'output_audio_buffer.cleared')")
        set_field(tab, "text", "Good morning.")
        click(tab, "send")
        tab.wait_for("[...document.querySelectorAll('#transcript .assistant .text')].some(e => e.textContent.includes('Good morning.'))")
        self.assertIn("Good morning.", bubbles(tab, "user"))
        self.assertEqual(tab.evaluate("document.getElementById('text').value"), "")
        tab.hangup()


class LogAndSettings(unittest.TestCase):
    """In Firefox, because the other tests of this file are Chromium's."""

    def setUp(self):
        self.server = self.enterContext(Swiftlet(backend="embedded:parrot"))
        self.tab = self.enterContext(Firefox()).open(self.server.url)
        self.tab.connect()
        self.tab.wait_for("document.querySelector('#events li')")

    def rows(self):
        """[direction, type] of every row that is shown."""
        return self.tab.evaluate(
            "[...document.querySelectorAll('#events li:not([hidden])')]"
            ".map(e => [e.classList.contains('in') ? 'in' : 'out', e.querySelector('.type').textContent])"
        )

    def updated(self, condition):
        """Waits for a `session.updated` whose turn detection `d` is as wanted."""
        wanted = f"((d) => {condition})(e.session.audio.input.turn_detection)"
        self.tab.wait_for(f"swiftlet.events.some(e => e.type === 'session.updated' && {wanted})")

    def test_the_log_shows_opens_and_filters_events(self):
        tab = self.tab
        tab.wait_for("document.querySelector('#events .type').textContent === 'session.created'")
        tab.evaluate("void document.querySelector('#events summary').click()")
        tab.wait_for("document.querySelector('#events pre')")
        shown = json.loads(tab.evaluate("document.querySelector('#events pre').textContent"))
        self.assertEqual(shown, tab.evaluate("swiftlet.events[0]"))
        tab.evaluate("void swiftlet.send({type: 'session.sing', event_id: 'mine'})")
        tab.wait_for("document.querySelector('#events .error')")
        # The test tone of a fake microphone may count as speech meanwhile, so that other rows may stand between and after these two.
        ours = [row for row in self.rows() if row[1] in ("session.sing", "error")]
        self.assertEqual(ours, [["out", "session.sing"], ["in", "error"]])
        set_field(tab, "log-filter", "MINE")
        self.assertEqual(self.rows(), [["out", "session.sing"], ["in", "error"]])
        set_field(tab, "log-direction", "out")
        self.assertEqual(self.rows(), [["out", "session.sing"]])
        self.assertRegex(text_of(tab, "log-count"), r"^1 of \d+$")
        # What comes while it filters is filtered, too.
        tab.evaluate("void swiftlet.send({type: 'session.update', session: {type: 'realtime', instructions: 'Sing.'}})")
        tab.wait_for("[...document.querySelectorAll('#events .type')].some(e => e.textContent === 'session.updated')")
        self.assertEqual(self.rows(), [["out", "session.sing"]])
        click(tab, "log-clear")
        self.assertEqual(self.rows(), [])
        self.assertEqual(tab.errors, [])

    def test_settings_become_the_sessions_and_refusals_are_shown_in_the_servers_words(self):
        tab = self.tab
        set_field(tab, "vad-silence", "700")
        self.updated("d.silence_duration_ms === 700")
        set_field(tab, "vad-idle", "8000")
        self.updated("d.idle_timeout_ms === 8000")
        set_field(tab, "vad-idle", "")
        click(tab, "vad-interrupt")
        self.updated("d.idle_timeout_ms === null && d.interrupt_response === false")

        set_field(tab, "vad-silence", "99999")
        tab.wait_for("!document.getElementById('server-error').hidden")
        error = tab.evaluate("swiftlet.events.find(e => e.type === 'error').error")
        self.assertEqual(text_of(tab, "server-error-text"), error["message"])
        self.assertIn("silence_duration_ms", text_of(tab, "server-error-code"))
        self.assertEqual(tab.evaluate("document.getElementById('vad-silence').getAttribute('aria-invalid')"), "true")
        click(tab, "server-error-dismiss")
        self.assertTrue(tab.evaluate("document.getElementById('server-error').hidden"))
        set_field(tab, "vad-silence", "600")
        self.updated("d.silence_duration_ms === 600")
        tab.wait_for("!document.getElementById('vad-silence').hasAttribute('aria-invalid')")

        # What another hand has changed is shown.
        detection = {"type": "server_vad", "threshold": 0.8, "prefix_padding_ms": 100}
        update = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}}
        tab.evaluate(f"void swiftlet.send({json.dumps(update)})")
        tab.wait_for("document.getElementById('vad-threshold').value === '0.8'")
        self.assertEqual(text_of(tab, "vad-threshold-value"), "0.80")
        self.assertEqual(tab.evaluate("swiftlet.turnDetection.prefix_padding_ms"), 100)

        click(tab, "turn-mode-hold")
        self.updated("d === null")
        self.assertTrue(tab.evaluate("document.getElementById('vad-fields').disabled"))

        # The next call begins as the form says.
        tab.hangup()
        click(tab, "turn-mode-auto")
        set_field(tab, "vad-threshold", "0.3")
        tab.connect()
        self.updated("d?.threshold === 0.3 && d.silence_duration_ms === 600")
        self.assertEqual(tab.errors, [])


if __name__ == "__main__":
    unittest.main()
