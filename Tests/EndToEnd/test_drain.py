"""A transceiver that is drained: no call is cut before the deadline, everybody who could call again is told to, and it ends with 0."""

import re
import signal
import subprocess
import time
import unittest

from fleet import Fleet, Program
from harness import EXECUTABLE, Metrics, request, wait_until
from relay_bench import Process, free_port
from test_faults import LONG

# As the issue of the promise has it; CI has a machine with other work.
CALLS = 50 if LONG else 12


class Held:
    """Whole calls, and a line a second of how they are."""

    def __init__(self, fleet, seconds, hang_up_at=0, calls=CALLS):
        host, port = fleet.transceivers[0].url.removeprefix("http://").split(":")
        self.process = Process([EXECUTABLE, "bench", "hold", "--relay", f"127.0.0.1:{fleet.relay_port}", "--signaling", f"{host}:{port}",
                                "--calls", calls, "--seconds", seconds, "--hang-up-at", hang_up_at])

    def seconds(self):
        lines = [line for line in self.process.output if line.startswith("second ")]
        return [{name: int(number) for name, number in re.findall(r"([a-z]+) (-?[0-9]+)", line)} for line in lines]

    def __str__(self):
        return str(self.process)


class Drain(unittest.TestCase):
    def fleet(self, seconds):
        self.admin = f"127.0.0.1:{free_port()}"
        self.metrics = f"127.0.0.1:{free_port()}"
        return Fleet(arguments=("--drain-time", seconds, "--admin", self.admin), relay_arguments=("--metrics", self.metrics))

    def ask(self, method, path="/admin/drain", headers=None):
        return request(f"http://{self.admin}", method, path, headers=headers)

    def relay(self):
        return Metrics(request(f"http://{self.metrics}", "GET", "/metrics").text)

    def check_refusals(self, transceiver):
        wait_until(lambda: transceiver.request("GET", "/readyz").status == 503, "/readyz turning away")
        refused = transceiver.request("POST", "/v1/realtime/calls", b"v=0\r\n", {"Content-Type": "application/sdp"})
        self.assertEqual((refused.status, refused.json()["error"]["code"]), (503, "draining"))
        self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)
        whip = transceiver.request("POST", "/whip", b"v=0\r\n", {"Content-Type": "application/sdp"})
        self.assertEqual(whip.status, 503)
        self.assertEqual(transceiver.request("GET", "/healthz").status, 200)

    def test_calls_go_on_until_the_deadline_and_are_told_of_it(self):
        seconds = 40 if LONG else 12
        with self.fleet(seconds) as fleet:
            transceiver = fleet.transceivers[0]
            held = Held(fleet, seconds + 30)
            wait_until(lambda: len(held.seconds()) >= 3, lambda: f"calls: {held}", 60)
            self.assertEqual(self.ask("GET").json(), {"draining": False, "calls": CALLS, "seconds_left": None})
            self.assertEqual(self.ask("POST", headers={"Origin": "https://example.com"}).status, 403)
            self.assertEqual(self.ask("PUT").status, 405)
            begun = time.monotonic()
            answer = self.ask("POST")
            self.assertEqual((answer.status, answer.json()), (202, {"draining": True, "calls": CALLS, "seconds_left": seconds}))
            before = len(held.seconds())
            self.check_refusals(transceiver)
            self.assertEqual(self.ask("GET", "/readyz").status, 503)
            # Again, and as a service manager would: nothing changes.
            self.assertLessEqual(self.ask("POST").json()["seconds_left"], seconds)
            transceiver.process.send_signal(signal.SIGTERM)
            wait_until(lambda: self.relay().total("relay_transceivers_draining") == 1, "the relay to hear that it is draining")
            self.assertEqual(transceiver.process.wait(seconds + 20), 0)
            took = time.monotonic() - begun
            held.process.wait(30)
            self.assertGreaterEqual(took, seconds - 0.1)
            report = held.seconds()
            # Whole seconds between the request and the deadline.
            standing = report[before:before + seconds - 2]
            self.assertEqual({second["standing"] for second in standing}, {CALLS}, str(held))
            if max(second["late"] for second in standing) < 200:
                self.assertGreater(min(second["quietest"] for second in standing), 0, "somebody heard nothing for a second")
            # A greeting before, and the announcement.
            self.assertEqual(report[-1]["standing"], 0)
            self.assertGreaterEqual(standing[-1]["events"], report[0]["events"] + CALLS)
            print(f"\n    drained with {CALLS} calls: none cut before the deadline of {seconds} s, all ended at {took:.1f} s; "
                  f"the quietest second of any call had {min(second['quietest'] for second in standing)} of 50 packets", flush=True)

    def test_it_ends_with_the_last_call(self):
        with self.fleet(600) as fleet:
            transceiver = fleet.transceivers[0]
            held = Held(fleet, 8, hang_up_at=4, calls=6)
            wait_until(lambda: len(held.seconds()) >= 2, lambda: f"calls: {held}", 60)
            transceiver.process.send_signal(signal.SIGTERM)
            self.check_refusals(transceiver)
            self.assertEqual(held.process.wait(60), 0)
            self.assertIn(3, {second["standing"] for second in held.seconds()}, str(held))
            self.assertIsNone(transceiver.process.poll(), "three of them have not hung up")
            # They have gone without a word: their silence is noticed in time, and that is not waited for here.
            transceiver.process.send_signal(signal.SIGTERM)
            self.assertEqual(transceiver.process.wait(15), 0)

    def test_drained_with_nobody_there_it_ends_at_once(self):
        with self.fleet(600) as fleet:
            self.assertEqual(self.ask("POST").status, 202)
            self.assertEqual(fleet.transceivers[0].process.wait(15), 0)

    def test_an_admin_address_that_others_reach_is_refused(self):
        with self.fleet(1) as fleet:
            words = [*fleet.transceivers[0].command, "--admin", "0.0.0.0:0"]
            found = subprocess.run(words, capture_output=True, text=True, timeout=30)
            self.assertEqual(found.returncode, 2)
            self.assertIn("--admin", found.stderr)


class Death(unittest.TestCase):
    """A transceiver that dies without a word."""

    def test_its_relay_learns_of_it_and_drops_its_flows(self):
        metrics = f"127.0.0.1:{free_port()}"
        with Fleet(relay_arguments=("--metrics", metrics)) as fleet:
            read = lambda: Metrics(request(f"http://{metrics}", "GET", "/metrics").text)
            held = Held(fleet, 60, calls=CALLS)
            wait_until(lambda: len(held.seconds()) >= 2, lambda: f"calls: {held}", 60)
            wait_until(lambda: read().total("relay_transceivers_serving") == 1, "a transceiver that answers")
            self.assertEqual(read().total(r"relay_flows_confirmed\{"), CALLS)
            transceiver = fleet.transceivers[0]
            transceiver.process.kill()
            transceiver.process.wait()
            died = time.monotonic()
            wait_until(lambda: read().total("relay_transceivers_lost") == 1, lambda: str(read().values), 15)
            took = time.monotonic() - died
            wait_until(lambda: read().total("relay_flows_of_lost_transceivers_total") >= CALLS, lambda: str(read().values))
            self.assertEqual(read().total("relay_transceiver_losses_total"), 1)
            # Of the machine's own words: nothing came of the ten seconds of silence.
            self.assertLess(took, 9)
            print(f"\n    a transceiver killed with {CALLS} calls: the relay knew after {took * 1000:.0f} ms", flush=True)
            held.process.kill()
            # Another one in its place is one like any other.
            transceiver.start()
            again = Held(fleet, 5, calls=3)
            wait_until(lambda: read().total("relay_transceivers_serving") == 1, lambda: str(read().values))
            self.assertEqual(again.process.wait(60), 0, str(again))
            self.assertEqual(read().total("relay_transceivers_lost"), 0)


if __name__ == "__main__":
    unittest.main()
