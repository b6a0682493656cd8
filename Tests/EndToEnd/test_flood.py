"""Calls through a flood of rubbish from 200,000 forged sources. `SWIFTLET_FLOOD_SECONDS` makes it longer."""

import json
import os
import signal
import subprocess
import unittest

from harness import EXECUTABLE

# Of calls alone, and of calls in the flood.
SECONDS = int(os.environ.get("SWIFTLET_FLOOD_SECONDS", "5"))
ROUNDS = 2
# Bad packets a second: with 40,000 each of the 200,000 sources comes once in five seconds.
RATE = 40_000


def bench(*arguments):
    # A session of its own, which it may put before others: what tests measure should not be another program's hunger.
    process = subprocess.Popen(
        [EXECUTABLE, "bench", *arguments, "--json", "yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True)
    try:
        output, errors = process.communicate(timeout=60 + 10 * SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        raise AssertionError(f"bench {' '.join(arguments)} ended with {process.returncode}: {errors}{output}")
    return json.loads(output)


class Flood(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # 500 calls of 50 packets a second, there and back.
        for _ in range(3):
            cls.report = bench(
                "flood", "--against", "relay", "--flows", "500", "--rate", str(RATE), "--rounds", str(ROUNDS),
                "--milliseconds", str(1000 * SECONDS // ROUNDS))
            # A queue that overflows at half of a processor is the work of whoever had the other half: another try.
            if cls.report["queue_dropped"] == 0 or cls.report["cpu_in_flood"] > 0.5:
                break

    def test_calls_go_on(self):
        report = self.report
        self.assertGreater(report["bad_packets"], 10_000, report)
        # What calls lose without a flood is the machine's, not the flood's.
        self.assertLess(report["loss_in_flood"] - report["loss_alone"], 0.01, report)

    def test_nobody_is_answered_and_nothing_is_remembered(self):
        self.assertEqual(self.report["answered"], 0, self.report)
        self.assertEqual(self.report["flows_made"], 0, self.report)

    def test_memory_stays_what_it_was(self):
        self.assertLessEqual(self.report["rss_after_kib"] - self.report["rss_before_kib"], 256, self.report)

    def test_every_bad_packet_is_counted_with_its_reason(self):
        report = self.report
        reasons = {drop["reason"]: drop["count"] for drop in report["dropped"]}
        # Malformed are two kinds: what is cut short, and what has more attributes than any client sends.
        for reason, share in (("wrong_hint_tag", 0.1), ("malformed_stun", 0.3), ("wrong_integrity", 0.1)):
            self.assertGreater(reasons.get(reason, 0), report["bad_packets"] * share, f"{reason}: {report}")
        self.assertGreater(report["truncated"], report["bad_packets"] * 0.1, report)
        counted = sum(reasons.values()) + report["truncated"] + report["queue_dropped"]
        lost_calls = report["loss_in_flood"] * report["sent_in_flood"]
        self.assertAlmostEqual((counted - lost_calls) / report["bad_packets"], 1, delta=0.02, msg=report)


class ManyFlows(unittest.TestCase):
    def test_20000_flows_fit(self):
        report = bench("memory", "--against", "relay", "--flows", "20000")
        self.assertEqual(report["flows"], 20_000, report)
        self.assertLess(report["rss_peak_kib"], 64 * 1024, report)
        self.assertLessEqual(report["rss_used_kib"] - report["rss_open_kib"], 256, report)


if __name__ == "__main__":
    unittest.main()
