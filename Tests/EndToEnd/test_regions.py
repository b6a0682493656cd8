"""A call whose first hop is a relay of another region. See regions.py."""

import signal
import time
import unittest

from aiortc_client import AiortcCall
from chromium import Chromium
from regions import CLUSTER, Regions


class TwoHops(unittest.TestCase):
    def test_aiortc_is_heard_through_both(self):
        with Regions() as regions, AiortcCall(regions) as call:
            call.connect()
            call.wait_for_tone()
            carrier = regions.carrier()
            self.assertEqual(carrier.metrics().total(r"^swiftlet_relay_flows\{"), 0)   # it keeps nothing of the call
            self.assertEqual(regions.ingress.metrics().total(r"^swiftlet_relay_flows_confirmed\{"), 1)
            alive = regions.ingress.metrics().total(rf'^swiftlet_relay_peer_alive\{{[^}}]*cluster="{CLUSTER}"')
            self.assertEqual(alive, 4)   # two relays, asked by two workers
            self.assertEqual(call.hangup().status, 200)
            regions.wait_for_no_calls()

    def test_chromium_is_heard_through_both(self):
        with Regions() as regions, Chromium() as browser:
            tab = browser.open(regions.url)
            tab.connect()
            tab.wait_for_tone()
            regions.carrier()
            tab.hangup()
            regions.wait_for_no_calls()
            self.assertEqual(tab.errors, [])

    def test_the_death_of_the_relay_in_the_middle_is_healed_by_the_other(self):
        with Regions() as regions, AiortcCall(regions) as call:
            call.connect()
            call.wait_for_tone()
            carrier = regions.carrier()
            arrivals = call.note_arrivals()
            time.sleep(2)
            quiet, killed = call.longest_gap(arrivals), time.monotonic()
            carrier.kill()
            self.assertNotEqual(regions.carrier().number, carrier.number)
            time.sleep(1)
            gap = call.longest_gap([at for at in arrivals if at >= killed - 0.1])
            print(f"\n    relay in the middle killed: gap {gap * 1000:.0f} ms (undisturbed {quiet * 1000:.0f} ms)", flush=True)
            call.wait_for_tone()
            self.assertEqual(call.state, "connected")
            # It comes back, and the call returns to it.
            carrier.start(regions.folder)
            time.sleep(2)
            self.assertEqual(regions.carrier().number, carrier.number)
            call.wait_for_tone()

    def test_a_relays_file_with_a_mistake_is_named_and_changes_nothing(self):
        with Regions() as regions, AiortcCall(regions) as call:
            call.connect()
            call.wait_for_tone()
            good = (regions.folder / "relays").read_text()
            (regions.folder / "relays").write_text(good + "12 seven 127.0.0.1:4000\n")
            regions.ingress.process.process.send_signal(signal.SIGHUP)
            regions.ingress.process.wait_for(r'relays: line 4: "seven" is not a cluster.*stays in use')
            regions.carrier()
            # Without the relays of its cluster the call has nowhere to go; with them it goes on.
            (regions.folder / "relays").write_text("")
            regions.ingress.process.process.send_signal(signal.SIGHUP)
            regions.ingress.process.wait_for(r"read again: .*0 other relays")
            (regions.folder / "relays").write_text(good)
            regions.ingress.process.process.send_signal(signal.SIGHUP)
            regions.ingress.process.wait_for(r"read again: .*2 other relays")
            regions.carrier()
            call.wait_for_tone()


if __name__ == "__main__":
    unittest.main()
