"""The story of the Global Relay, step by step. See README.md."""

import time
import unittest

from harness import REPOSITORY, wait_until
from lab import CLUSTERS, INGRESSES, PLACES, Lab, LabCall, browser
from tones import is_tone

CALLS = "/v1/realtime/calls"
OFFER = (REPOSITORY / "Tests" / "Corpus" / "sdp" / "chromium-156.sdp").read_bytes()


class Story(unittest.TestCase):
    """In the order of their names: each step leaves the world whole."""

    @classmethod
    def setUpClass(cls):
        cls.lab = cls.enterClassContext(Lab())
        cls.failed = False
        # Everybody has answered everybody.
        for transceiver in cls.lab.transceivers.values():
            def knows(transceiver=transceiver):
                healthy = transceiver.metrics().total(r"^swiftlet_transceiver_ingress_healthy")
                return healthy == len(INGRESSES) and transceiver.metrics().total("^swiftlet_transceiver_ingress_trunk_round_trip_seconds")
            wait_until(knows, "both ingresses measured", 30)

    def setUp(self):
        self.lab.move_to("Berlin")

    def told(self, number):
        response = self.lab.doors[number].request("POST", CALLS, OFFER, {"Content-Type": "application/sdp"})
        self.assertEqual(response.status, 201, response)
        self.lab.doors[number].request("POST", response.headers["Location"] + "/hangup")
        candidates = [line.split()[4] for line in response.text.splitlines() if line.startswith("a=candidate:")]
        return response.headers["Swiftlet-Ingress"], candidates

    def test_1_aiortc_is_heard_through_both_hops(self):
        for cluster in CLUSTERS.values():
            number = cluster[0] * 10 + 1
            with self.subTest(transceiver=number), LabCall(self.lab.doors[number]) as call:
                call.connect()
                call.wait_for_tone()
                self.assertEqual(call.ingresses, "ams, iad; reason=geo-header")
                self.assertEqual(call.remote, self.lab.sites["ams"].address(1))
                carrier = self.lab.carrier(cluster[0])
                self.assertEqual(carrier.metrics().total(r"^swiftlet_relay_flows\{"), 0)
                self.assertEqual(self.lab.ingress["ams"].metrics().total(r"^swiftlet_relay_flows_confirmed\{"), 1)
                self.assertEqual(call.hangup().status, 200)
                self.lab.doors[number].wait_for_no_calls()

    def test_1_chromium_is_heard_through_both_hops(self):
        with browser(self.lab) as chromium:
            for cluster in CLUSTERS.values():
                number = cluster[0] * 10 + 2
                with self.subTest(transceiver=number):
                    tab = chromium.open(self.lab.doors[number].url)
                    tab.connect()
                    tab.wait_for_tone(30)
                    self.lab.carrier(cluster[0])
                    tab.hangup()
                    self.lab.doors[number].wait_for_no_calls()
                    self.assertEqual(tab.errors, [])

    def test_2_the_nearest_ingress_for_six_places(self):
        for place, (*_, nearest) in PLACES.items():
            for number in (71, 82):
                with self.subTest(place=place, transceiver=number):
                    self.lab.move_to(place)
                    names, candidates = self.told(number)
                    other = next(name for name in INGRESSES if name != nearest)
                    self.assertEqual(names, f"{nearest}, {other}; reason=geo-header")
                    self.assertEqual(candidates, [self.lab.sites[name].address(1) for name in (nearest, other)])

    def test_2_clients_use_the_nearest_ingress(self):
        # Where the whole way by it is the shorter one, too: clients choose by how fast checks come back.
        for place, number in (("Berlin", 71), ("Los Angeles", 81)):
            nearest = PLACES[place][4]
            with self.subTest(place=place):
                self.lab.move_to(place)
                door = self.lab.doors[number]
                labels = rf'ingress_setup_seconds_count\{{ingress="{nearest}",'
                before = door.metrics().total(labels)
                with LabCall(door) as call:
                    call.connect()
                    call.wait_for_tone()
                    self.assertEqual(call.remote, self.lab.sites[nearest].address(1))
                    wait_until(lambda: door.metrics().total(labels) == before + 1,
                               lambda: {name: value for name, value in door.metrics().values.items() if "setup_seconds_count" in name})
                    call.hangup()

    def test_3_a_dead_ingress_is_not_told_to_the_next_call(self):
        ams = self.lab.ingress["ams"]
        try:
            ams.kill()
            wait_until(lambda: self.told(71)[0] == "iad; reason=geo-header", lambda: self.told(71), 30)
            with LabCall(self.lab.doors[71]) as call:
                call.connect()
                call.wait_for_tone()
                self.assertEqual(call.remote, self.lab.sites["iad"].address(1))
                call.hangup()
        finally:
            ams.start()
        wait_until(lambda: self.told(71)[0].startswith("ams, iad"), lambda: self.told(71), 30)

    def test_4_a_running_client_goes_on_by_an_ice_restart_when_its_ingress_dies(self):
        ams = self.lab.ingress["ams"]
        door = self.lab.doors[72]
        with browser(self.lab) as chromium:
            tab = chromium.open(door.url)
            self.assertTrue(tab.load_script("whip_caller.js"))
            tab.evaluate("void (window.caller = new WHIPCaller())")
            first = tab.evaluate("caller.start()")
            self.assertEqual(first["status"], 201, first)
            wait_until(lambda: is_tone(tab.evaluate("caller.peakFrequency()")), "the tone", 30)
            self.assertEqual(tab.evaluate("caller.path()")["relay"], self.lab.sites["ams"].address(1))
            try:
                ams.kill()
                killed = time.monotonic()
                packets = tab.evaluate("caller.path()")["packets"]
                second = tab.evaluate("caller.restart()")
                self.assertEqual(second["status"], 200, second)
                wait_until(lambda: tab.evaluate("caller.path()")["relay"] == self.lab.sites["iad"].address(1),
                           lambda: tab.evaluate("caller.path()"), 30)
                wait_until(lambda: tab.evaluate("caller.path()")["packets"] > packets + 50, "a second of audio by the other ingress", 30)
                print(f"\n    ingress killed, ICE restart at once: a second of audio after {time.monotonic() - killed:.1f} s", flush=True)
                wait_until(lambda: is_tone(tab.evaluate("caller.peakFrequency()")), "the tone by the other ingress", 30)
                self.assertEqual(tab.evaluate("caller.path()")["state"], "connected")
                moves = r'ingress_moves_total\{ingress="iad"'
                wait_until(lambda: door.metrics().total(moves) == 1, "the move in the transceiver's figures")
                self.assertIn(tab.evaluate("caller.end()"), (200, 204))
            finally:
                ams.start()
        wait_until(lambda: self.told(72)[0].startswith("ams, iad"), lambda: self.told(72), 30)

    def test_5_the_death_of_a_cluster_relay_is_healed_by_the_other(self):
        with LabCall(self.lab.doors[71]) as call:
            call.connect()
            call.wait_for_tone()
            carrier = self.lab.carrier(7)
            self.lab.world()
            begun = time.monotonic()
            time.sleep(3)
            quiet, killed = call.longest_gap([at for at in call.arrivals if at >= begun]), time.monotonic()
            undisturbed = self.lab.world()
            carrier.kill()
            try:
                self.assertNotEqual(self.lab.carrier(7).number, carrier.number)
                wait_until(lambda: call.arrivals[-1] > killed + 2, "packets", 15)
                gap = call.longest_gap([at for at in call.arrivals if at >= killed - 0.1])
                disturbed = self.lab.world()
                print(
                    f"\n    cluster relay killed: gap {gap * 1000:.0f} ms (undisturbed {quiet * 1000:.0f} ms); packets late by at most "
                    f"{disturbed['late-most-us'] / 1000:.0f} ms ({undisturbed['late-most-us'] / 1000:.0f} ms)", flush=True)
                call.wait_for_tone()
                self.assertEqual(call.state, "connected")
            finally:
                carrier.start()
            wait_until(lambda: self.lab.carrier(7).number == carrier.number, "the call's return", 30)
            call.wait_for_tone()
            call.hangup()


if __name__ == "__main__":
    unittest.main()
