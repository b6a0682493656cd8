"""Which relays an answer names: by the client's place, and only if somebody trustworthy has told it."""

import pathlib
import re
import unittest

from aiortc_client import AiortcCall
from fleet import Fleet
from harness import REPOSITORY, wait_until

CALLS = "/v1/realtime/calls"
OFFER = (REPOSITORY / "Tests" / "Corpus" / "sdp" / "chromium-156.sdp").read_bytes()
DATABASE = REPOSITORY / "Tests" / "Corpus" / "geoip" / "places.mmdb"
TABLE = """# name addresses latitude longitude cluster relays
fra 127.0.0.1:{port} 50.11 8.68 0 7@{trunk}
iad 198.51.100.2:3478,[2001:db8:2::1]:3478 38.95 -77.45 2 20
nrt 198.51.100.4:3478 35.77 140.39 1
"""


def arguments(fleet):
    fleet.table = fleet.place / "ingresses.txt"
    fleet.table.write_text(TABLE.format(port=fleet.relay_port, trunk=fleet.relay.find(r"trunk (127\.0\.0\.1:\d+)")[1]))
    return ["--ingress-file", fleet.table, "--geoip-database", DATABASE, "--trusted-proxies", "127.0.0.1"]


class Steering(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fleet = cls.enterClassContext(Fleet(1, arguments))
        cls.server = cls.fleet.transceivers[0]

    def answer(self, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.server.request("POST", CALLS, OFFER, {"Content-Type": "application/sdp", **headers})
        self.assertEqual(response.status, 201, response)
        candidates = [line.split()[4] for line in response.text.splitlines() if line.startswith("a=candidate:")]
        self.server.request("POST", response.headers["Location"] + "/hangup")
        return response.headers["Swiftlet-Ingress"], candidates

    def test_latitude_and_longitude(self):
        told, candidates = self.answer(CF_IPLatitude="40.71", CF_IPLongitude="-74.01")
        self.assertEqual(told, "iad, fra; reason=geo-header")
        self.assertEqual(candidates, ["2001:db8:2::1", "198.51.100.2", "127.0.0.1"])

    def test_country(self):
        self.assertEqual(self.answer(CF_IPCountry="KR")[0].split(";"), ["nrt, fra", " reason=geo-country"])

    def test_database(self):
        self.assertEqual(self.answer(X_Forwarded_For="1.2.3.4, 203.0.113.99")[0], "iad, fra; reason=maxmind")

    def test_unknown(self):
        told, candidates = self.answer()
        self.assertEqual((told, candidates), ("default; reason=default", ["127.0.0.1"]))

    def test_garbage(self):
        for value in ("nan", "1e9", "\x7f" * 3000 and "9" * 3000, "<script>", "91"):
            self.assertEqual(self.answer(CF_IPLatitude=value, CF_IPLongitude="0", CF_IPCountry="?!")[0], "default; reason=default")
        self.assertGreater(self.server.metrics().total("geo_headers_refused_total.*bad_degrees"), 0)
        self.assertGreater(self.server.metrics().total("geo_headers_refused_total.*bad_country"), 0)

    def test_the_choice_is_counted_and_logged(self):
        before = self.server.metrics()
        self.answer(CF_IPCountry="US")
        grown = self.server.metrics().growth_since(before)
        self.assertEqual(grown['swiftlet_transceiver_ingress_chosen_total{ingress="iad",reason="geo-country"}'], 1, grown)
        wait_until(lambda: self.server.find(r"rtc_\S+: ingress iad, fra; reason=geo-country"), self.server.report)

    def test_the_table_is_read_again_and_a_mistake_changes_nothing(self):
        text = self.fleet.table.read_text()
        try:
            self.fleet.table.write_text(text + "syd 198.51.100.5:3478 -33.95 151.18 1\n")
            wait_until(lambda: self.answer(CF_IPCountry="NZ")[0].startswith("syd"), "the new ingress")
            self.fleet.table.write_text(text + "\nsyd 198.51.100.5:3478 -33.95 x 1\n")
            wait_until(lambda: self.server.find(r"line 6: .*; the ingresses of before stay"), self.server.report)
            self.assertTrue(self.answer(CF_IPCountry="NZ")[0].startswith("syd"))
        finally:
            self.fleet.table.write_text(text)
            wait_until(lambda: self.answer(CF_IPCountry="NZ")[0].startswith("nrt"), "the old table")

    def test_a_browser_may_read_the_choice(self):
        response = self.server.request("POST", CALLS, OFFER, {"Content-Type": "application/sdp", "CF-IPCountry": "DE"})
        self.server.request("POST", response.headers["Location"] + "/hangup")
        self.assertIn("Swiftlet-Ingress", response.headers["Access-Control-Expose-Headers"])


class Use(unittest.TestCase):
    def test_the_ingress_that_a_call_used_is_told_with_set_up_and_round_trips(self):
        with Fleet(1, arguments) as fleet, AiortcCall(fleet.transceivers[0]) as call:
            server = fleet.transceivers[0]
            call.connect()
            call.wait_for_tone()
            labels = r'\{ingress="fra",relay="7"\}'
            self.assertEqual(server.metrics().total("ingress_setup_seconds_count" + labels), 1)
            wait_until(lambda: server.metrics().total("ingress_reports_total" + labels), "a report of the client", 30)
            self.assertLess(server.metrics().total("ingress_reported_loss_total" + labels), 0.1)

    def test_an_ingress_that_dies_is_not_told_any_more(self):
        with Fleet(1, arguments) as fleet:
            server = fleet.transceivers[0]

            def told():
                headers = {"Content-Type": "application/sdp", "CF-IPCountry": "DE"}
                response = server.request("POST", CALLS, OFFER, headers)
                server.request("POST", response.headers["Location"] + "/hangup")
                return response.headers["Swiftlet-Ingress"]

            wait_until(lambda: server.metrics().total("ingress_trunk_round_trip_seconds"), "a round trip")
            self.assertEqual(told(), "fra, iad; reason=geo-country")
            fleet.relay.stop()
            wait_until(lambda: told() == "iad, nrt; reason=geo-country", told)
            self.assertEqual(server.metrics().values['swiftlet_transceiver_ingress_healthy{ingress="fra"}'], 0)
            fleet.relay.start("ready")


class Untrusted(unittest.TestCase):
    def test_headers_of_a_stranger_are_not_believed(self):
        def without_proxies(fleet):
            return arguments(fleet)[:-2]

        with Fleet(1, without_proxies) as fleet:
            server = fleet.transceivers[0]
            headers = {"Content-Type": "application/sdp", "CF-IPCountry": "US", "X-Forwarded-For": "203.0.113.99"}
            response = server.request("POST", CALLS, OFFER, headers)
            self.assertEqual(response.headers["Swiftlet-Ingress"], "default; reason=default")
            self.assertEqual(server.metrics().total("geo_headers_refused_total.*untrusted_headers"), 1)
            server.request("POST", response.headers["Location"] + "/hangup")
