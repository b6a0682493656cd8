"""Whose network is away for a while: the same call goes on, also where the browser had given it up."""

import os
import time
import unittest

from chromium import Chromium
from harness import Swiftlet, wait_until
from middle import Middle

# `make faults`: every length, and held to the promised time. Without it one length, and no time: a machine may do other things as well.
LONG = os.environ.get("SWIFTLET_FAULTS") == "long"

CREATED = r"^swiftlet_transceiver_sessions_created_total"

# What the page has received, and when that grew again, without the way to the test and back.
WATCH = """void (window.watch = {packets: 0, grewAt: 0, backAt: 0}, window.watcher = setInterval(async () => {
    let packets = 0;
    (await swiftlet.peer.getStats()).forEach(r => { if (r.type === 'inbound-rtp') packets = r.packetsReceived; });
    if (packets === watch.packets) return;
    if (Date.now() - watch.grewAt > 1000) watch.backAt = Date.now();
    watch.packets = packets;
    watch.grewAt = Date.now();
}, 20))"""


class Outage(unittest.TestCase):
    def check(self, seconds, bound, states):
        """The network is away for `seconds`, Chromium says one of `states` then, and after its return audio is back within `bound`."""
        # An echo that waits for nothing: its wait would be counted with the gap.
        with Middle() as middle, Chromium() as browser, Swiftlet(
            "--echo-delay", "0", "--advertise", f"127.0.0.1:{middle.port}"
        ) as server:
            middle.to(server.relay)
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for_tone()
            tab.evaluate(WATCH)
            before_outage = server.metrics()
            middle.is_cut = True
            time.sleep(seconds)
            state = tab.evaluate("swiftlet.peer.connectionState")
            self.assertIn(state, states)
            before = tab.evaluate("watch.packets")
            returned = time.time()
            middle.is_cut = False
            wait_until(lambda: tab.evaluate("watch.packets") > before, "audio after the outage", 10)
            gap = tab.evaluate("watch.backAt") / 1000 - returned
            wait_until(lambda: tab.evaluate("swiftlet.peer.connectionState") == "connected", "connected again", 10)
            tab.wait_for_tone()
            made = server.metrics().total(CREATED) - before_outage.total(CREATED)
            self.assertEqual(made, 0, "not the same call")
            print(f"\n    {seconds:g} s without a network ({state}): audio {gap:.2f} s after its return", flush=True)
            if LONG:
                self.assertLess(gap, bound)
            tab.hangup()
            server.wait_for_no_calls()

    def test_given_up(self):
        self.check(20, 2, ["failed"])

    @unittest.skipUnless(LONG, "make faults")
    def test_five_seconds(self):
        self.check(5, 0.5, ["connected", "disconnected"])

    @unittest.skipUnless(LONG, "make faults")
    def test_fourteen_seconds(self):
        self.check(14, 0.5, ["disconnected"])

    @unittest.skipUnless(LONG, "make faults")
    def test_forty_seconds(self):
        self.check(40, 2, ["failed"])
