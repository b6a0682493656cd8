"""What the second hop costs a caller: time from the offer to the first packet of audio that comes back. Printed for Perf/RESULTS.md.

Both ways are equally long. With one hop the answer names a relay beside the transceiver; with two it names an ingress 2 ms from the client, and
the rest is trunk.
"""

import statistics
import unittest

from harness import wait_until
from lab import LONG, Lab, LabCall, browser

DELAYS = (5, 40, 120)   # milliseconds one way between client and transceiver
ROUNDS = 10 if LONG else 3
NEAR = 2


class FirstMedia(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = cls.enterClassContext(Lab())
        cls.lab.move_to("Berlin", access=0, jitter=0)
        wait_until(lambda: cls.lab.transceivers[71].metrics().total(r'ingress_healthy\{ingress="ams"'), "ams answers", 30)

    def stretch(self, milliseconds):
        for a, b, delay in (
            ("Berlin", "fra", milliseconds), ("Berlin", "ams", NEAR), ("ams", "fra", milliseconds - NEAR), ("Berlin", "edge", 0.5),
            ("edge", "fra", milliseconds - 0.5), ("Berlin", "iad", milliseconds + 100),   # the other candidate is never the shorter way
        ):
            self.lab.path(a, b, delay)

    def call(self, hops):
        with LabCall(self.lab.doors[71], headers={"Lab-Place": "none"} if hops == 1 else {}) as call:
            call.connect()
            wait_until(lambda: call.arrivals, "audio", 20)
            site = self.lab.sites["fra" if hops == 1 else "ams"]
            self.assertEqual(call.remote, site.address(1))
            call.hangup()
            return 1000 * (call.arrivals[0] - call.posted), 1000 * (call.arrivals[0] - call.answered)

    def measure(self, name, call):
        """`call(hops)` makes one and returns its two times in milliseconds."""
        rows = []
        for delay in DELAYS:
            self.stretch(delay)
            # By turns: what disturbs one disturbs the other.
            times = {1: [], 2: []}
            for _ in range(ROUNDS):
                for hops in times:
                    times[hops].append(call(hops))
            rows.append((delay, *(column for hops in times for column in zip(*times[hops]))))
        print(f"\n    {name}, {ROUNDS} calls each: ms until the first packet of audio, from the offer; from the answer. Least, median")
        print("    one way    one hop                    two hops")
        for delay, *columns in rows:
            cells = [f"{min(column):5.0f} {statistics.median(column):5.0f}" for column in columns]
            print(f"    {delay:4} ms    {cells[0]}; {cells[1]}    {cells[2]}; {cells[3]}")
        print(f"    the machine's share: {late(self.lab.world())}", flush=True)

    def test_time_to_first_media_of_aiortc(self):
        self.measure("aiortc", self.call)

    def test_time_to_first_media_of_chromium(self):
        with browser(self.lab) as chromium:
            def call(hops):
                tab = chromium.open(self.lab.doors[71].url)
                if hops == 1:
                    tab.evaluate(
                        "void (window.fetch = ((f) => (url, options = {}) => f(url, {...options,"
                        " headers: {...options.headers, 'Lab-Place': 'none'}}))(window.fetch))")
                tab.connect()
                tab.wait_for("'audio' in swiftlet.timeline", 30)
                line = tab.evaluate("swiftlet.timeline")
                tab.hangup()
                return line["audio"] - line["offer"], line["audio"] - line["answer"]
            self.measure("Chromium", call)


def late(world):
    """What a busy machine adds to the delays."""
    total = max(1, sum(world[f"late-{name}"] for name in ("below-1ms", "below-5ms", "below-20ms", "more")))
    some, much = total - world["late-below-1ms"], world["late-below-20ms"] + world["late-more"]
    return f"{100 * some / total:.0f} % of packets late by more than 1 ms, {100 * much / total:.1f} % by more than 5 ms"


if __name__ == "__main__":
    unittest.main()
