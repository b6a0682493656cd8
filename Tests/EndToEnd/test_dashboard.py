"""The dashboards of relay and transceiver in a real browser, with calls behind them; and what Prometheus reads."""

import http.client
import json
import re
import socket
import subprocess
import time
import unittest
import urllib.parse

from aiortc_client import AiortcCall
from chromium import Chromium
from harness import ARTIFACTS, REPOSITORY, Swiftlet, request, wait_until
from regions import Regions

LISTENERS_MAX = 16


def events(url):
    """A connection that listens, and its response."""
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.request("GET", "/events")
    return connection, connection.getresponse()


def next_event(response):
    while line := response.readline():
        if line.startswith(b"data: "):
            return json.loads(line[6:])
    raise AssertionError("the stream of events ended")


class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Swiftlet())
        # The relay's admin port: where its counters are.
        cls.relay = re.sub("/metrics$", "", cls.server.metrics_urls[0])
        cls.calls = [cls.enterClassContext(AiortcCall(cls.server)) for _ in range(3)]
        for call in cls.calls:
            call.connect()

    @classmethod
    def tearDownClass(cls):
        for call in cls.calls:
            call.hangup()

    def look(self, tab, name):
        """Waits for numbers, and keeps what the page looks like by day and by night."""
        tab.wait_for("'dashboard' in window && dashboard.samples.length >= 8", 30)
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        for dark in (False, True):
            tab.screenshot(ARTIFACTS / f"dashboard-{name}-{'dark' if dark else 'light'}.png", 1600, 1500, dark)
            time.sleep(1.2)
            tab.screenshot(ARTIFACTS / f"dashboard-{name}-{'dark' if dark else 'light'}.png", 1600, 1500, dark)
        self.assertEqual(tab.evaluate("document.body.dataset.link"), "live")
        self.assertGreater(tab.evaluate("dashboard.samples.at(-1).packets"), 100, "three calls, 50 packets a second, each way")
        self.assertGreater(tab.evaluate("dashboard.samples.at(-1).cpuTime"), 0)
        figures = tab.evaluate("[...document.querySelectorAll('#headline dd')].map((e) => e.textContent)")
        self.assertEqual(len(figures), 6)
        self.assertNotIn("–", figures, "a headline without a number")
        # A counter of the kernel is a number or says why it is none.
        for line in tab.evaluate("[...document.querySelectorAll('#perf tbody tr')].map((e) => e.textContent)"):
            self.assertRegex(line, r"\d|unavailable, because \w")
        self.assertIn("started", tab.evaluate("document.getElementById('marks').textContent"))
        self.assertEqual(tab.errors, [])

    def test_the_relays_dashboard_is_alive(self):
        with Chromium() as browser:
            tab = browser.open(self.relay + "/")
            self.look(tab, "relay")
            self.assertGreater(tab.evaluate("dashboard.quantile(dashboard.samples.at(-1).latency, 0.5)"), 0)
            self.assertIn("settings read again", tab.evaluate("document.getElementById('marks').textContent"))
            self.assertGreaterEqual(tab.evaluate("dashboard.last.fill.confirmed"), len(self.calls))
            who, state, round_trip = tab.evaluate("[...document.querySelectorAll('#trunk tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))")[0][:3]
            self.assertEqual((who, state), ("transceiver 1", "answers"))
            self.assertRegex(round_trip, "[0-9] [nµm]s$")

    def test_an_attack_shows_with_its_reasons(self):
        host, port = self.server.relay
        # Media from nobody, a check that nobody has signed, one without a ufrag.
        rubbish = {
            "no_flow": b"\x80" + bytes(99),
            "no_integrity": self.check_with_username(b"mine:yours"),
            "no_username": b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
        }
        rows = "[...document.querySelectorAll('#drops tbody tr')].map((r) => [r.cells[0].textContent, r.cells[1]?.textContent])"
        with Chromium() as browser, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            tab = browser.open(self.relay + "/")
            tab.wait_for("'dashboard' in window && dashboard.samples.length >= 2", 15)

            def shown():
                for _ in range(20):
                    for datagram in rubbish.values():
                        attacker.sendto(datagram, (host, port))
                rates = dict(tab.evaluate(rows))
                return all(rates.get(reason, "0") != "0" for reason in rubbish)

            wait_until(shown, lambda: f"{', '.join(rubbish)} among what is dropped now: {tab.evaluate(rows)}")
            self.assertEqual(tab.evaluate("document.querySelectorAll('#headline .bad').length"), 1)
            tab.screenshot(ARTIFACTS / "dashboard-attack.png", 1600, 1900, False)
            self.assertEqual(tab.errors, [])

    @staticmethod
    def check_with_username(username):
        attribute = b"\x00\x06" + len(username).to_bytes(2, "big") + username + bytes(-len(username) % 4)
        return b"\x00\x01" + len(attribute).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + bytes(12) + attribute

    def test_the_transceivers_dashboard_is_alive(self):
        with Chromium() as browser:
            tab = browser.open(self.server.url + "/dashboard")
            self.look(tab, "transceiver")
            self.assertEqual(tab.evaluate("dashboard.last.fill.used"), len(self.calls))

    def test_it_needs_nothing_from_elsewhere_and_can_be_read_aloud(self):
        page = request(self.relay, "GET", "/").text
        for name in ("/", "/dashboard.js", "/dashboard.css"):
            response = request(self.relay, "GET", name)
            self.assertEqual(response.status, 200)
            self.assertNotRegex(response.text, r"https?://|@import", f"{name} names another place")
            self.assertIn("default-src 'self'", response.headers["Content-Security-Policy"])
        self.assertIn('lang="en"', page)
        with Chromium() as browser:
            tab = browser.open(self.relay + "/")
            tab.wait_for("'dashboard' in window && dashboard.samples.length >= 1", 15)
            unnamed = (
                "[...document.querySelectorAll('canvas, section, meter, [role=region]')]"
                ".filter((e) => !e.ariaLabel && !e.getAttribute('aria-labelledby')).length"
            )
            self.assertEqual(tab.evaluate(unnamed), 0)
            self.assertEqual(tab.evaluate("[...document.querySelectorAll('table')].filter((e) => !e.caption).length"), 0)

    def test_every_event_is_a_whole_report(self):
        for url in (self.relay, self.server.url):
            connection, response = events(url)
            with connection.sock:
                first, second = next_event(response), next_event(response)
            self.assertEqual(response.headers["Content-Type"], "text/event-stream")
            self.assertAlmostEqual(second["uptime"] - first["uptime"], 1, delta=0.9)
            self.assertEqual(len(second["workers"]), 2)
            packets = [sum(way["packets"] for worker in report["workers"] for way in worker["traffic"]) for report in (first, second)]
            self.assertGreater(packets[1], packets[0])
            for worker in second["workers"]:
                for counter in worker["perf"]:
                    self.assertTrue(("value" in counter) != ("unavailable" in counter), counter)

    def test_listeners_are_bounded_and_places_come_free(self):
        listeners = [events(self.relay) for _ in range(LISTENERS_MAX)]
        self.assertEqual({response.status for _, response in listeners}, {200})
        connection, response = events(self.relay)
        self.assertEqual(response.status, 503)
        connection.close()
        for connection, response in listeners:
            response.close()
            connection.close()

        def listens_again():
            connection, response = events(self.relay)
            connection.close()
            return response.status == 200

        wait_until(listens_again, "a place for a listener")

    def test_a_listener_that_does_not_read_costs_the_others_nothing(self):
        host, port = self.relay.removeprefix("http://").split(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((host, int(port)))
            deaf.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            connection, response = events(self.relay)
            for _ in range(3):
                next_event(response)
            connection.close()

    def test_promtool_finds_nothing_to_say(self):
        promtool = subprocess.run([REPOSITORY / "Tests/EndToEnd/promtool.sh"], text=True, capture_output=True, check=True).stdout.strip()
        for url in (self.relay, self.server.url):
            text = request(url, "GET", "/metrics").text
            check = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
            self.assertEqual((check.returncode, check.stdout, check.stderr), (0, "", ""), url)

    def test_grafanas_dashboard_asks_for_what_is_there(self):
        board = json.loads((REPOSITORY / "Tuning" / "grafana.json").read_text())
        asked = {name for panel in board["panels"] for target in panel["targets"] for name in re.findall(r"swiftlet_\w+", target["expr"])}
        families = set(self.server.metrics().types)
        # What the processor counts is there only where it can be read.
        missing = {name for name in asked if re.sub("_(bucket|sum|count)$", "", name) not in families and "_thread_" not in name}
        self.assertEqual(missing, set())
        self.assertGreater(len(asked), 20)


class Trunk(unittest.TestCase):
    def test_it_shows_who_answers_and_who_has_fallen_silent(self):
        with Regions() as regions, Chromium() as browser:
            tab = browser.open(regions.ingress.url + "/")
            rows = "[...document.querySelectorAll('#trunk tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"

            def states():
                return {row[0].split(" of ")[0]: row[1] for row in tab.evaluate(rows)}

            wait_until(lambda: states().get("relay 11") == states().get("relay 12") == "answers", "two relays that answer", 15)
            wait_until(lambda: all(re.search("[0-9] [nµm]?s$", row[2]) for row in tab.evaluate(rows)), "their round trips", 15)
            regions.relays[1].kill()
            wait_until(lambda: states().get("relay 11") == "silent" and states()["relay 12"] == "answers", "the one that has died", 15)
            tab.screenshot(ARTIFACTS / "dashboard-trunk.png", 1600, 1500, False)
            self.assertEqual(tab.errors, [])


if __name__ == "__main__":
    unittest.main()
