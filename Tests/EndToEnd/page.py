"""What both browsers' tabs can do with Swiftlet's page. A driver adds `evaluate`, `screenshot` and `errors`."""

import json
import pathlib
import time

from harness import ARTIFACTS, TimedOut, wait_until
from tones import TONE_HZ, is_tone


class BrowserError(AssertionError):
    """JavaScript threw, or the browser refused a command."""


class Tab:
    def evaluate(self, expression):
        """The JSON value of a JavaScript expression; a promise is waited for."""
        raise NotImplementedError

    def screenshot(self, path):
        raise NotImplementedError

    @property
    def errors(self):
        """What the console has reported as errors so far."""
        raise NotImplementedError

    def load_script(self, name):
        """Evaluates a file of this folder that is one expression."""
        return self.evaluate(pathlib.Path(__file__).with_name(name).read_text())

    def wait_for(self, expression, timeout=15.0):
        try:
            return wait_until(lambda: self.evaluate(expression), expression, timeout)
        except TimedOut as error:
            self.keep_evidence()
            raise TimedOut(f"{error}\n    {json.dumps(self.facts())}\n    console: {self.errors}") from None

    def start(self, processing=False):
        """Presses the button. Without processing, because noise suppression takes a steady tone for noise."""
        self.wait_for("'swiftlet' in window")
        self.evaluate(f"void (document.getElementById('processing').checked = {json.dumps(processing)})")
        self.evaluate("void document.getElementById('call').click()")

    def connect(self, timeout=20.0):
        self.start()
        self.wait_for("swiftlet.state === 'talking' || swiftlet.error !== null", timeout)
        if error := self.evaluate("swiftlet.error"):
            raise AssertionError(f"the page says: {error}")

    @property
    def frequency(self):
        return self.evaluate("swiftlet.peakFrequency()")

    def wait_for_tone(self, timeout=15.0):
        """Until the page hears the tone that its microphone sent."""
        started = time.monotonic()
        try:
            wait_until(lambda: is_tone(self.frequency), f"{TONE_HZ:g} Hz in the echo", timeout)
        except TimedOut as error:
            self.keep_evidence()
            raise TimedOut(f"{error}\n    {json.dumps(self.facts())}\n    console: {self.errors}") from None
        return time.monotonic() - started

    def hangup(self):
        self.evaluate("swiftlet.hangup()")

    def facts(self):
        """Everything worth printing when something is not as it should be."""
        return self.evaluate(
            "(() => { const s = window.swiftlet; if (!s) return {loaded: false}; return {state: s.state, timeline: s.timeline,"
            " error: s.error, levels: s.levels, microphone: s.microphoneFrequency(), echo: s.peakFrequency(),"
            " channel: s.channelState, connection: s.peer?.connectionState, ice: s.peer?.iceConnectionState}; })()"
        )

    def keep_evidence(self):
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.screenshot(ARTIFACTS / f"{type(self).__name__}-{time.time_ns()}.png")
