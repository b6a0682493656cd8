"""What may come that should not, between regions: each has a counter and a log line at a bounded rate, and a call beside it hears nothing of it."""

import os
import socket
import subprocess
import time
import unittest

from aioice import stun

from harness import EXECUTABLE, REPOSITORY, request, wait_until
from lab import Lab, LabCall

CALLS = "/v1/realtime/calls"
OFFER = (REPOSITORY / "Tests" / "Corpus" / "sdp" / "chromium-156.sdp").read_bytes()
MANY = 300


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = cls.enterClassContext(Lab())

    def setUp(self):
        self.lab.move_to("Berlin")

    def check(self, cluster, transceiver):
        """An authentic check for a session that never was."""
        minted = subprocess.run(
            [EXECUTABLE, "hint", "mint", "--key-file", self.lab.keys, "--cluster", str(cluster), "--transceiver", str(transceiver)],
            check=True, capture_output=True, text=True)
        ufrag, password = minted.stdout.split()
        message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        message.attributes["USERNAME"] = f"{ufrag}:client"
        message.attributes["PRIORITY"] = 1
        message.add_message_integrity(password.encode())
        return bytes(message)

    def send(self, site, datagram, to, count=MANY):
        """From another host's namespace, or from the client's if `site` is None, at some thousand a second."""
        def run():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                host, port = to.split(":")
                for number in range(count):
                    sender.sendto(datagram, (host, int(port)))
                    if number % 10 == 9:
                        time.sleep(0.002)
        run() if site is None else self.lab.sites[site].inside(run)

    def told_once(self, part, words):
        """There is a line, and there are not many."""
        wait_until(lambda: part.lines(words), lambda: f"'{words}' from {part.process}")
        time.sleep(1.5)
        self.assertLessEqual(len(part.lines(words)), 2)

    def with_a_call(self):
        call = self.enterContext(LabCall(self.lab.doors[71]))
        call.connect()
        call.wait_for_tone()
        self.addCleanup(self.goes_on, call)
        return call

    def goes_on(self, call):
        before = len(call.arrivals)
        wait_until(lambda: len(call.arrivals) > before + 50, "a second of audio of the call beside it")
        self.assertEqual(call.state, "connected")
        self.assertEqual(call.hangup().status, 200)

    def test_a_cluster_that_nobody_knows(self):
        self.with_a_call()
        ams = self.lab.ingress["ams"]
        self.send(None, self.check(99, 1), ams.public)
        wait_until(lambda: ams.dropped("unknown_cluster") == MANY, lambda: ams.dropped("unknown_cluster"))
        self.told_once(ams, r"dropped \d+ packets for a cluster")

    def test_a_transceiver_that_nobody_knows(self):
        self.with_a_call()
        own = [self.lab.relays[number] for number in (71, 72)]
        before = sum(relay.dropped("unknown_transceiver") for relay in own)
        self.send(None, self.check(7, 999), self.lab.ingress["ams"].public)
        wait_until(lambda: sum(relay.dropped("unknown_transceiver") for relay in own) > before, "a drop at one of the cluster's relays")
        dropper = max(own, key=lambda relay: relay.dropped("unknown_transceiver"))
        self.told_once(dropper, r"dropped \d+ packets (or frames )?for a transceiver")

    def test_forged_frames(self):
        self.with_a_call()
        # Client data of version 1 from ingress relay 2 for transceiver 71, with one record; the tag is somebody's guess.
        header = bytes([0x11, 0, 0, 7]) + (71).to_bytes(4, "big") + bytes([0, 2, 0, 1, 0, 0, 0, 0])
        frame = header + os.urandom(8) + bytes(18) + b"\0\1" + bytes(4) + b"\0"
        relay, transceiver = self.lab.relays[71], self.lab.transceivers[71]
        sessions = r'^swiftlet_transceiver_dropped_total\{what="record",reason="without_session"'
        before = transceiver.metrics().total(sessions)
        self.send("iad", frame, relay.trunk)
        self.send("iad", frame, transceiver.trunk)
        wait_until(lambda: relay.dropped("trunk_tag") == MANY, lambda: relay.dropped("trunk_tag"))
        refused = r'^swiftlet_transceiver_dropped_total\{what="frame",reason="wrong_tag"'
        wait_until(lambda: transceiver.metrics().total(refused) == MANY, lambda: transceiver.metrics().total(refused))
        self.told_once(relay, r"dropped \d+ trunk frames that were not made with our trunk key")
        self.told_once(transceiver, r"dropped \d+ trunk frames that were not made with our trunk key")
        self.assertEqual(transceiver.metrics().total(sessions), before, "a forged record was looked at")

    def test_relays_in_a_loop(self):
        self.with_a_call()
        one, two = self.lab.relays[71], self.lab.relays[72]
        texts = {relay: relay.table.read_text() for relay in (one, two)}
        try:
            for relay, other in ((one, two), (two, one)):
                relay.table.write_text(texts[relay] + f"799 {other.trunk}\n")
                relay.read_again()
            before = one.passed_on() + two.passed_on(), one.dropped("trunk_loop") + two.dropped("trunk_loop")
            self.send(None, self.check(7, 799), self.lab.ingress["ams"].public, count=100)
            wait_until(lambda: one.dropped("trunk_loop") + two.dropped("trunk_loop") > before[1], "a frame that went round")
            dropper = max((one, two), key=lambda relay: relay.dropped("trunk_loop"))
            self.told_once(dropper, r"dropped \d+ trunk frames in a loop")
            # Each went through no more relays than a frame may: at most five times on, of a hundred frames, beside the call's own.
            frames = one.dropped("trunk_loop") + two.dropped("trunk_loop") - before[1]
            self.assertLessEqual(frames, 100)
        finally:
            for relay, text in texts.items():
                relay.table.write_text(text)
                relay.read_again()

    def test_geo_headers_that_are_garbage_or_a_strangers(self):
        self.with_a_call()
        transceiver = self.lab.transceivers[72]

        def answered(headers):
            response = request(transceiver.url, "POST", CALLS, OFFER, {"Content-Type": "application/sdp", **headers})
            self.assertEqual(response.status, 201, response)
            request(transceiver.url, "POST", response.headers["Location"] + "/hangup")
            return response.headers["Swiftlet-Ingress"]

        edge = self.lab.sites["edge"]
        for latitude, longitude in (("nan", "0"), ("1e9", "5"), ("", ""), ("9" * 2000, "1"), ("52.5", "181"), ("<b>", "0")):
            told = edge.inside(lambda: answered({"CF-IPLatitude": latitude, "CF-IPLongitude": longitude}))
            self.assertEqual(told, "default; reason=default")
        self.assertEqual(edge.inside(lambda: answered({"CF-IPCountry": "?!"})), "default; reason=default")
        refused = r"^swiftlet_transceiver_geo_headers_refused_total.*"
        self.assertEqual(transceiver.metrics().total(refused + "bad_degrees"), 6)
        self.assertEqual(transceiver.metrics().total(refused + "bad_country"), 1)
        # From the client's own address, which is nobody's proxy.
        self.assertEqual(answered({"CF-IPLatitude": "38.9", "CF-IPLongitude": "-77"}), "default; reason=default")
        self.assertEqual(transceiver.metrics().total(refused + "untrusted_headers"), 1)
        wait_until(lambda: transceiver.lines("untrusted_headers"), "a line in the log")
        self.assertTrue(transceiver.lines("bad_degrees"))
        # A client that writes headers of its own does not get them past the proxy.
        self.assertTrue(
            self.lab.doors[72].request(
                "POST", CALLS, OFFER, {"Content-Type": "application/sdp", "CF-IPLatitude": "38.9", "CF-IPLongitude": "-77"}
            ).headers["Swiftlet-Ingress"].startswith("ams"))

    def test_clocks_that_differ(self):
        ams, door = self.lab.ingress["ams"], self.lab.doors[71]
        try:
            # A day's mistake harms nobody.
            for hours in (-23, 23):
                self.lab.skew("ams", hours * 3600)
                with self.subTest(hours=hours), LabCall(door) as call:
                    wait_until(lambda: door.metrics().total(r'ingress_healthy\{ingress="ams"'), "ams answers", 30)
                    call.connect()
                    call.wait_for_tone()
                    self.assertEqual(call.remote, self.lab.sites["ams"].address(1))
                    call.hangup()
            # With a greater one this ingress believes no hint, says so, and the call goes through the other of its two candidates.
            for seconds, reason, words in (
                (-100_000, "hint_from_the_future", "checks whose hint is from the future"),
                (200_000, "expired_hint", "checks whose hint has expired"),
            ):
                self.lab.skew("ams", seconds)
                with self.subTest(seconds=seconds), LabCall(door) as call:
                    wait_until(lambda: door.metrics().total(r'ingress_healthy\{ingress="ams"'), "ams answers", 30)
                    call.connect()
                    call.wait_for_tone()
                    self.assertEqual(call.ingresses, "ams, iad; reason=geo-header")
                    self.assertEqual(call.remote, self.lab.sites["iad"].address(1))
                    wait_until(lambda: ams.dropped(reason) > 0, reason)
                    self.told_once(ams, words)
                    call.hangup()
        finally:
            self.lab.skew("ams", 0)
        # The second cluster a day behind: its transceivers mint hints of yesterday, which are good.
        self.lab.skew("nrt", -80_000)
        try:
            with LabCall(self.lab.doors[81]) as call:
                call.connect()
                call.wait_for_tone()
                call.hangup()
        finally:
            self.lab.skew("nrt", 0)


if __name__ == "__main__":
    unittest.main()
