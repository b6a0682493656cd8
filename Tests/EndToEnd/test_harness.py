"""The harness proves itself against the stand-in: if these fail, do not believe the other tests."""

import pathlib
import sys
import tempfile
import unittest
import unittest.mock

import restarts
from aiortc_client import AiortcCall
from chromium import Chromium
from firefox import Firefox
from gstreamer_client import GStreamerCall
from harness import Metrics, Swiftlet
from standin import StandIn
from tones import dominant_frequency, is_tone, sine


class Tools(unittest.TestCase):
    def test_a_tone_is_recognised_and_another_is_not(self):
        self.assertTrue(is_tone(dominant_frequency(sine(24_000))))
        self.assertFalse(is_tone(dominant_frequency(sine(24_000, frequency=1000))))
        self.assertIsNone(dominant_frequency(sine(24_000, amplitude=0)))

    def test_metrics_are_read_and_compared(self):
        before = Metrics('# TYPE a_total counter\na_total{x="1"} 1\n# TYPE b_calls gauge\nb_calls 2\n')
        after = Metrics('# TYPE a_total counter\na_total{x="1"} 4\na_total{x="2"} 1\n# TYPE b_calls gauge\nb_calls 3\n')
        self.assertEqual(after.growth_since(before), {'a_total{x="1"}': 3, 'a_total{x="2"}': 1})
        self.assertEqual(after.calls, 3)


# Behaves like `swiftlet up` at start; what it does at SIGINT is the test's to say.
IMPOSTOR = """#!{python}
import http.server, signal, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *arguments): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
def interrupted(*_):
    {ending}
signal.signal(signal.SIGINT, interrupted)
print("relay 127.0.0.1:3478", flush=True)
print("signaling http://127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
"""


class Supervision(unittest.TestCase):
    def start(self, ending):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        impostor = folder / "impostor"
        impostor.write_text(IMPOSTOR.format(python=sys.executable, ending=ending))
        impostor.chmod(0o755)
        self.enterContext(unittest.mock.patch("harness.EXECUTABLE", impostor))
        return Swiftlet()

    def test_addresses_are_read_and_a_clean_end_passes(self):
        with self.start("sys.exit(0)") as server:
            self.assertEqual(server.relay, ("127.0.0.1", 3478))
            self.assertEqual(server.request("GET", "/readyz").status, 200)
            self.assertEqual(list(server.pids), [server.process.pid])
            port = int(server.url.rsplit(":", 1)[1])
            self.assertEqual(server.sockets(), {("tcp", "127.0.0.1", port)})

    def test_another_exit_code_fails(self):
        with self.assertRaisesRegex(AssertionError, "did not end with 0"):
            with self.start("sys.exit(3)"):
                pass

    def test_a_process_left_behind_fails_and_is_ended(self):
        with self.assertRaisesRegex(AssertionError, "left processes behind.*sleep"):
            with self.start("subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL); sys.exit(0)") as server:
                pass
        self.assertEqual(server.processes(), {})

    def test_an_early_end_fails(self):
        with self.assertRaisesRegex(AssertionError, "ended by itself"):
            with self.start("sys.exit(0)") as server:
                server.process.kill()
                server.process.wait()


class Clients(unittest.TestCase):
    def check_page(self, browser):
        with StandIn() as server, browser:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for_tone()
            self.assertTrue(is_tone(tab.evaluate("swiftlet.microphoneFrequency()")))
            tab.hangup()
            server.wait_for_no_calls()
            self.assertEqual(tab.errors, [])

    def test_chromium(self):
        self.check_page(Chromium())

    def test_firefox(self):
        self.check_page(Firefox())

    def test_aiortc(self):
        with StandIn() as server, AiortcCall(server) as call:
            call.connect()
            call.wait_for_tone()
            self.assertEqual(call.hangup().status, 200)
            server.wait_for_no_calls()

    def test_gstreamer(self):
        with StandIn() as server, GStreamerCall(server) as call:
            call.connect()
            call.wait_for_tone()
            self.assertEqual(call.hangup(), 200)
            server.wait_for_no_calls()

    def test_aiortc_over_whip_and_ipv6(self):
        with StandIn("::1") as server, AiortcCall(server, "/whip", data_channel=False) as call:
            call.connect()
            call.wait_for_tone()
            self.assertEqual(call.hangup().status, 200)
            server.wait_for_no_calls()


class Restarts(restarts.RestartCase):
    def check_restart(self, browser):
        with StandIn() as server, browser:
            tab = browser.open(server.url)
            self.assertTrue(tab.load_script("whip_echo.js"))
            self.restart_during_a_call(tab)

    def test_chromium(self):
        self.check_restart(Chromium())

    def test_firefox(self):
        self.check_restart(Firefox())


if __name__ == "__main__":
    unittest.main()
