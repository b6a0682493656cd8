"""A call whose first hop is a relay of another region. See regions.py."""

import pathlib
import signal
import tempfile
import time
import unittest

from aiortc_client import AiortcCall
from chromium import Chromium
from harness import wait_until
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

    def test_the_trunk_key_is_rotated_and_no_frame_is_lost(self):
        ingresses = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "ingresses"
        regions = Regions("--ingress-file", ingresses)
        ingress = regions.ingress
        ingresses.write_text(f"here {ingress.public} 50 8 {ingress.cluster} {ingress.number}@{ingress.trunk}\n")
        with regions, AiortcCall(regions) as call:
            call.connect()
            call.wait_for_tone()
            old = (regions.folder / "keys.json").read_text()
            for _ in regions.rotate_trunk_key("add"):
                regions.carrier()
            self.assertEqual(regions.frames_under_the_accepted_key(), (0, 0, 0))
            # One by one, so that for a while some speak under the old key and some under the new one.
            for _ in regions.rotate_trunk_key("promote"):
                regions.carrier()
            seen = regions.frames_under_the_accepted_key()
            self.assertTrue(all(seen), seen)
            # Everybody sends under the new one: nothing comes under the other any more, so it can go.
            regions.carrier()
            seen = regions.frames_under_the_accepted_key()
            for _ in regions.rotate_trunk_key("retire"):
                regions.carrier()
            self.assertEqual(regions.frames_under_the_accepted_key(), seen)
            call.wait_for_tone()
            self.assertEqual(regions.frames_with_wrong_tags(), 0)
            # Also for whoever asks ingresses how they are.
            self.assertNotIn("does not answer", "\n".join(regions.transceiver.output))
            # A program with the file of before is told so, and goes on; one that begins with it is not listened to.
            (regions.folder / "keys.json").write_text(old)
            regions.ingress.process.process.send_signal(signal.SIGHUP)
            regions.ingress.process.wait_for("no trunk key of before is in it.*stays in use")
            regions.carrier()
            regions.ingress.kill()
            regions.ingress.start(regions.folder)
            wait_until(lambda: regions.frames_with_wrong_tags() > 0, "frames under the old key, dropped and counted")

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
