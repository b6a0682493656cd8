"""What faults cost a call of a real client: the longest time in which no audio came to it, beside the same of the undisturbed seconds before.
`make faults` is the long form and holds the relay to its figures; without SWIFTLET_FAULTS=long fewer of each are tried, on one client, and
calls must only go on.
"""

import mmap
import os
import shutil
import struct
import subprocess
import time
import unittest

from aiortc_client import AiortcCall
from chromium import Chromium
from firefox import Firefox
from harness import EXECUTABLE, Server
from relay_bench import Bench, Process, kill_worker
from wire import Wire

LONG = os.environ.get("SWIFTLET_FAULTS") == "long"


class Line(Bench, Server):
    """A relay and a transceiver by themselves, and clients that reach them through a wire."""

    def __init__(self, env=None):
        self.env = env

    def __enter__(self):
        super().__enter__()
        self.wire = Wire(self.public)
        self.wire.__enter__()
        try:
            self.current = self.relay(env=self.env)
            self.answering = Process([
                EXECUTABLE.parent / "swiftlet-transceiver", "--signaling", "127.0.0.1:0", "--trunk", self.transceiver, "--advertise",
                self.wire.address, "--key-file", self.keys, "--cluster", 1, "--id", 1, "--backend", "embedded:echo",
                "--workers", 1], env=self.env)
            self.started.append(self.answering)
            ready = self.answering.wait_for("^swiftlet-transceiver ready")
            self.url = ready.split("signaling ")[1].split("/,")[0]
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, error, trace):
        self.wire.__exit__()
        super().__exit__(kind, error, trace)

    # Faults

    def kill_worker(self):
        kill_worker(self.current)

    def take_over(self):
        old, self.current = self.current, self.relay("--takeover", env=self.env)
        if old.wait() != 0:
            raise AssertionError(str(old))

    def kill_all(self):
        self.current.kill()
        self.current = self.relay(env=self.env)

    def kill_all_and_forget(self):
        self.current.kill()
        # Its worker writes into the table until it is gone too; the lock says when.
        table = self.path / "run" / "flows"
        table.unlink()
        self.current = self.relay(env=self.env)


class Aiortc(AiortcCall):
    name = "aiortc"
    # aioice's, which it stretches by up to a fifth.
    check_interval = 6.0

    def is_connected(self):
        return self.state == "connected"

    def check_now(self):
        """A check out of its turn, as a client sends one that has noticed that its network has changed."""
        async def check():
            for transceiver in self.peer.getTransceivers():
                connection = transceiver.sender.transport.transport._connection
                for pair in connection._nominated.values():
                    await pair.protocol.request(
                        connection.build_request(pair, nominate=False), pair.remote_addr,
                        integrity_key=connection.remote_password.encode(), retransmissions=2)
        self.loop.run(check())


class Browser:
    """A browser with one call of the page."""

    def __init__(self, server, browser):
        self.server = server
        self.browser = browser

    def __enter__(self):
        self.browser.__enter__()
        return self

    def __exit__(self, *failure):
        self.browser.__exit__(*failure)

    def connect(self):
        self.tab = self.browser.open(self.server.url)
        self.tab.connect()

    def wait_for_tone(self):
        self.tab.wait_for_tone()

    def is_connected(self):
        return self.tab.evaluate("swiftlet.peer.connectionState") == "connected"


class ChromiumCall(Browser):
    name = "Chromium"
    check_interval = 2.5

    def __init__(self, server):
        super().__init__(server, Chromium())


class FirefoxCall(Browser):
    name = "Firefox"
    # RFC 7675: 5 s, stretched by up to a fifth.
    check_interval = 6.0

    def __init__(self, server):
        super().__init__(server, Firefox())


class Case(unittest.TestCase):
    quiet = 8 if LONG else 3

    def call(self, kind, line):
        call = kind(line)
        self.enterContext(call)
        call.connect()
        call.wait_for_tone()
        return call

    def fault(self, line, call, name, act, settle=3.0, lost=None, gap_max=None):
        """One row: the undisturbed seconds, then the fault. `gap_max` is in milliseconds, beyond the undisturbed gap."""
        undisturbed, _, _ = line.wire.measure(self.quiet)
        act()
        time.sleep(settle)
        call.wait_for_tone()
        gap, missing, twice = line.wire.restart()
        print(f"\n    {call.name}, {name}: gap {gap:.0f} ms (undisturbed {undisturbed:.0f} ms), {missing} packets did not come, "
              f"{twice} came twice", flush=True)
        self.assertTrue(call.is_connected())
        self.assertEqual(twice, 0)
        if lost is not None:
            self.assertLessEqual(missing, lost)
        if LONG and gap_max is not None:
            self.assertLessEqual(gap - undisturbed, gap_max)


class Faults(Case):
    def check(self, kind):
        times = 5 if LONG else 2
        upgrades = 20 if LONG else 2
        with Line() as line:
            call = self.call(kind, line)
            interval = call.check_interval * 1000

            def repeat(act, count, pause):
                for _ in range(count):
                    act()
                    time.sleep(pause)

            # What the worker had read and not sent goes with it: a batch of a few packets at most.
            self.fault(line, call, f"worker killed {times} times", lambda: repeat(line.kill_worker, times, 1), lost=2 * times, gap_max=60)
            self.fault(line, call, f"{upgrades} takeovers", lambda: repeat(line.take_over, upgrades, 0.5), lost=0, gap_max=100)
            self.fault(line, call, "all of the relay killed, started at once", line.kill_all, gap_max=300)
            self.fault(line, call, "the same, and the flow table gone", line.kill_all_and_forget, settle=call.check_interval + 1,
                       gap_max=interval + 300)
            self.fault(line, call, "NAT rebinding", line.wire.rebind, settle=call.check_interval + 1, gap_max=interval + 150)
            if kind is Aiortc:
                self.fault(line, call, "NAT rebinding, and a check with it", lambda: (line.wire.rebind(), call.check_now()), gap_max=150)
            # Nothing can come while nobody stays for the answer; then the next check is as good as the first.
            self.fault(line, call, "20 NAT rebindings in 4 s", lambda: repeat(line.wire.rebind, 20, 0.2),
                       settle=call.check_interval + 1, gap_max=4000 + interval + 150)

    def test_aiortc(self):
        self.check(Aiortc)

    @unittest.skipUnless(LONG, "make faults")
    def test_chromium(self):
        self.check(ChromiumCall)

    @unittest.skipUnless(LONG, "make faults")
    def test_firefox(self):
        self.check(FirefoxCall)


@unittest.skipUnless(shutil.which("cc"), "no C compiler")
class Date(Case):
    """Somebody sets the date. The programs' view of it is moved, not the system's clock (clock_shift.c)."""

    def check(self, kind, seconds, words):
        folder = self.enterContext(Folder())
        library = folder / "clock_shift.so"
        source = os.path.join(os.path.dirname(__file__), "clock_shift.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        shift = folder / "shift"
        shift.write_bytes(bytes(8))
        env = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(shift)}

        def set_date():
            with open(shift, "r+b") as file, mmap.mmap(file.fileno(), 8) as page:
                page[:8] = struct.pack("=q", seconds)

        with Line(env) as line:
            call = self.call(kind, line)
            self.fault(line, call, f"date set {words}", set_date, lost=0, gap_max=100)
            # The old call's hint is of another time than the relay's date, and so are those of new calls: all are honoured.
            self.fault(line, call, f"NAT rebinding after the date was set {words}", line.wire.rebind, settle=call.check_interval + 1,
                       gap_max=call.check_interval * 1000 + 150)
            with AiortcCall(line) as another:
                another.connect()
                another.wait_for_tone()

    def test_an_hour_forward(self):
        self.check(Aiortc, 3600, "1 h forward")

    def test_a_day_back(self):
        self.check(Aiortc, -86_400, "1 day back")


class Folder:
    def __enter__(self):
        import pathlib
        import tempfile
        self.folder = tempfile.TemporaryDirectory(prefix="swiftlet-clock-")
        return pathlib.Path(self.folder.name)

    def __exit__(self, *failure):
        self.folder.cleanup()
