"""`swiftlet top` with a call behind it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import unittest

from aiortc_client import AiortcCall
from harness import EXECUTABLE, Swiftlet, wait_until


class Top(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Swiftlet())
        cls.relay = re.sub("/metrics$", "", cls.server.metrics_urls[0])
        cls.call = cls.enterClassContext(AiortcCall(cls.server))
        cls.call.connect()

    @classmethod
    def tearDownClass(cls):
        cls.call.hangup()

    def command(self, *more):
        return [str(EXECUTABLE), "top", "--relay", self.relay, "--transceiver", self.server.url, *more]

    def test_one_picture(self):
        def moving():
            run = subprocess.run(self.command("--once"), capture_output=True, text=True, timeout=30)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertNotIn("\x1b", run.stdout)
            for word in ("RELAY", "TRANSCEIVER", "flows 1 of", "from clients/s", "CPU %", "p99 µs", "relay-0", "relay-1"):
                self.assertIn(word, run.stdout)
            # Which of the workers has the call is the kernel's choice.
            rates = [float(line.split()[1]) for line in re.findall(r"^  relay-\d .*$", run.stdout, re.M)]
            return max(rates) > 20

        wait_until(moving, "packets of the call", 30)

    def test_a_program_that_is_not_there_is_named(self):
        run = subprocess.run(
            [str(EXECUTABLE), "top", "--once", "--relay", "http://127.0.0.1:1"], capture_output=True, text=True, timeout=30)
        self.assertEqual(run.returncode, 1)
        self.assertIn("relay at 127.0.0.1:1: Connection refused", run.stderr)

    def test_without_a_terminal_it_says_what_to_do(self):
        run = subprocess.run(self.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        self.assertEqual(run.returncode, 2)
        self.assertIn("--once", run.stderr)

    def test_a_terminal_follows_its_size_and_q_ends_it(self):
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)

        def resize(rows, columns):
            fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        resize(40, 120)
        before = termios.tcgetattr(follower)
        process = self.enterContext(subprocess.Popen(self.command(), stdin=follower, stdout=follower, stderr=follower))
        self.addCleanup(process.kill)
        screen = bytearray()

        def read(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if select.select([leader], [], [], 0.1)[0]:
                    screen.extend(os.read(leader, 65_536))
            return screen.decode(errors="replace")

        def widest():
            """Of the last whole picture: each begins by going to the upper left corner."""
            pictures = read(0.5).split("\x1b[H")
            if len(pictures) < 3 or "relay-0" not in pictures[-2]:
                return 0
            return max(len(line) for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", pictures[-2]).splitlines())

        wait_until(lambda: 100 < widest() <= 120, lambda: f"wide pictures in {screen!r}", 20)
        resize(20, 50)
        screen.clear()
        wait_until(lambda: 0 < widest() <= 50, lambda: f"narrow pictures in {screen!r}", 20)
        os.write(leader, b"q")
        self.assertEqual(process.wait(10), 0)
        self.assertIn("\x1b[?1049l", read(0.5), "the other screen is left")
        self.assertEqual(termios.tcgetattr(follower), before, "the terminal is as it was")
        os.close(follower)


if __name__ == "__main__":
    unittest.main()
