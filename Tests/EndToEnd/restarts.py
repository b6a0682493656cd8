"""An ICE restart during a call, as a browser's script does it: used with the real servers, and to prove itself."""

import re
import unittest

from harness import wait_until
from tones import is_tone


class RestartCase(unittest.TestCase):
    def restart_during_a_call(self, tab):
        self.assertTrue(tab.load_script("whip_caller.js"))
        tab.evaluate("void (window.caller = new WHIPCaller())")
        first = tab.evaluate("caller.start()")
        self.assertEqual(first["status"], 201, first)
        self.assertTrue(first["tag"], "the 201 has no ETag")
        wait_until(lambda: is_tone(tab.evaluate("caller.peakFrequency()")), "the tone")
        before = tab.evaluate("caller.path()")

        second = tab.evaluate("caller.restart()")
        self.assertEqual(second["status"], 200, second)
        self.assertEqual(second["type"], "application/trickle-ice-sdpfrag")
        self.assertNotEqual(second["tag"], first["tag"], "a restart makes a new ICE session, so a new ETag")
        self.assertNotEqual(ufrag(second["text"]), ufrag(first["text"]))

        moved = lambda: tab.evaluate("caller.path()")["port"] not in (None, before["port"])
        wait_until(moved, lambda: f"a new port after {before}, but {tab.evaluate('caller.path()')}")
        packets = tab.evaluate("caller.path()")["packets"]
        wait_until(lambda: tab.evaluate("caller.path()")["packets"] > packets + 50, "a second of audio on the new path")
        wait_until(lambda: is_tone(tab.evaluate("caller.peakFrequency()")), "the tone on the new path")
        self.assertEqual(tab.evaluate("caller.path()")["state"], "connected")
        self.assertIn(tab.evaluate("caller.end()"), (200, 204))


def ufrag(sdp):
    return re.search(r"a=ice-ufrag:(\S+)", sdp)[1]
