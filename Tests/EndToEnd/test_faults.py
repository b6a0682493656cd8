"""What faults cost, each beside the undisturbed minute. `make faults` is the long form and holds the relay to its figures; without
SWIFTLET_FAULTS=long a few of each are tried, and only what must never happen is a failure: lost flows, packets sent twice.

A worker that is killed takes with it what it has read and not yet sent: at most a batch, nearly always nothing. What was in the sockets is
kept.
"""

import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

from relay_bench import Bench, Report, child, free_port, kill_worker
from harness import EXECUTABLE, Metrics, Swiftlet, request, wait_until

LONG = os.environ.get("SWIFTLET_FAULTS") == "long"
MAY_MOUNT = subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0 if os.geteuid() == 0 else False
# Packets of one receive.
BATCH = 64
# Milliseconds that the sender of packets may be late before its figures mean nothing.
STARVED = 200


def show(fault, undisturbed, disturbed, total):
    """One row of the table."""
    lost = total["lost"] + total["lost-back"]
    print(f"\n    {fault}: gap {disturbed:g} ms (undisturbed {undisturbed:g} ms), of {total['sent']:g} packets each way "
          f"{lost:g} lost, {total['twice'] + total['twice-back']:g} twice", flush=True)


class Packets(unittest.TestCase):
    """10,000 packets a second of 200 calls."""

    def check(self, fault, report, quiet, loud, lost_max=0, gap_max=None):
        undisturbed, disturbed = report.gap(quiet), report.gap(loud)
        show(fault, undisturbed, disturbed, report.total)
        self.assertEqual(report.total["twice"] + report.total["twice-back"], 0)
        if not LONG and max(second["late"] for second in report.seconds) > STARVED:
            self.skipTest("the machine is too busy to tell: even the packets' sender was late, and sockets overflow")
        self.assertLessEqual(report.total["lost"] + report.total["lost-back"], lost_max)
        if LONG and gap_max:
            self.assertLessEqual(disturbed - undisturbed, gap_max)

    def test_a_worker_is_killed(self):
        kills = 10 if LONG else 3
        with Bench() as bench:
            relay = bench.relay()
            load = bench.load(6 + kills)
            time.sleep(2)
            for _ in range(kills):
                kill_worker(relay)
                time.sleep(1)
            report = Report(load)
            self.check("worker killed", report, range(1, 4), range(4, 5 + kills), lost_max=kills * BATCH, gap_max=60)
            relay.wait_for("goes on with 200 flows; 0 had ended, 0 were half written")

    def test_upgrade_by_takeover(self):
        upgrades = 20 if LONG else 3
        with Bench() as bench:
            relays = [bench.relay()]
            load = bench.load(5 + upgrades)
            time.sleep(2)
            for _ in range(upgrades):
                relays.append(bench.relay("--takeover"))
                self.assertEqual(relays[-2].wait(), 0)
                time.sleep(0.5)
            report = Report(load)
            self.check(f"{upgrades} takeovers", report, range(1, 4), range(4, 5 + upgrades))
            relays[-1].process.send_signal(signal.SIGTERM)
            self.assertEqual(relays[-1].wait(), 0)

    def test_the_keeper_is_killed_and_started_again(self):
        with Bench() as bench:
            relay = bench.relay()
            load = bench.load(8)
            time.sleep(2)
            relay.kill()
            again = bench.relay()
            again.wait_for("goes on with 200 flows")
            report = Report(load)
            # Its sockets are gone, and what came meanwhile with them.
            self.check("keeper killed, started again", report, range(1, 3), range(3, 9), lost_max=10_000, gap_max=300)

    def test_the_service_manager_restarts_it(self):
        with Bench() as bench, Manager(bench) as manager:
            relay = manager.start()
            load = bench.load(8)
            time.sleep(2)
            relay.process.send_signal(signal.SIGTERM)
            self.assertEqual(relay.wait(), 0)
            again = manager.start()
            again.wait_for("kept by the service manager")
            again.wait_for("goes on with 200 flows")
            report = Report(load)
            self.check("restarted by the service manager", report, range(1, 3), range(3, 9))
            wait_until(lambda: "WATCHDOG=1" in manager.poll(), "a sign of life")


# Becomes the program whose words follow, as a service manager would start it.
LAUNCHER = """
import os, sys
for index in range(int(sys.argv[1])):
    os.dup2(200 + index, 3 + index, inheritable=True)
    os.close(200 + index)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """What systemd does for a unit with Type=notify and a descriptor store."""

    def __init__(self, bench):
        self.bench = bench
        self.said = []
        self.kept = {}

    def __enter__(self):
        self.path = str(self.bench.path / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        return self

    def __exit__(self, *failure):
        self.poll()
        self.socket.close()
        for number in self.kept.values():
            os.close(number)

    def poll(self):
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 4)
            except BlockingIOError:
                return self.said
            lines = data.decode().splitlines()
            if "FDSTORE=1" in lines:
                name = next(line[7:] for line in lines if line.startswith("FDNAME="))
                self.kept[name] = descriptors[0]
            for line in lines:
                if line.startswith("FDNAME=") and "FDSTOREREMOVE=1" in lines:
                    self.kept.pop(line[7:], None)
            self.said += lines

    def start(self, kept=None):
        """Starts the relay with what was kept, as descriptors 3 and so on."""
        self.poll()
        kept = self.kept if kept is None else kept
        names = list(kept)
        environment = {**os.environ, "NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "5000000"}
        environment.pop("WATCHDOG_PID", None)
        # Out of the way of 3 and so on, which the launcher fills.
        high = [os.dup2(kept[name], 200 + index) for index, name in enumerate(names)]
        if names:
            environment.update(LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
        launcher = [sys.executable, "-c", LAUNCHER, str(len(names))]
        relay = self.bench.relay(folder=False, launcher=launcher, env=environment, pass_fds=high, ready=False)
        for number in high:
            os.close(number)
        relay.wait_for("^swiftlet-relay ready")
        wait_until(lambda: "READY=1" in self.poll(), "READY=1")
        return relay


def siphash(data, k0=0x666C_6F77, k1=0x7461_626C):
    """SipHash-2-4 as the table's first page has it, big-endian."""
    mask = (1 << 64) - 1

    def rotate(value, count):
        return (value << count | value >> 64 - count) & mask

    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count):
        for _ in range(count):
            v[0] = v[0] + v[1] & mask
            v[2] = v[2] + v[3] & mask
            v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2] = v[2] + v[1] & mask
            v[0] = v[0] + v[3] & mask
            v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    data = bytes(data)
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return struct.pack(">Q", v[0] ^ v[1] ^ v[2] ^ v[3])


class Mishaps(unittest.TestCase):
    """What is wrong is said, the safe choice is made, and no call is harmed."""

    def request(self, bench):
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking.connect(str(bench.path / "run" / "takeover"))
        asking.send(struct.pack(">BBI", 7, 1, os.getpid()))
        self.assertEqual(asking.recv(4096)[0], 1, "the estate is offered")
        return asking

    def test_a_second_takeover_is_refused_and_a_first_that_dies_is_forgotten(self):
        with Bench() as bench:
            relay = bench.relay()
            load = bench.load(5)
            asking = self.request(bench)
            second = bench.relay("--takeover", ready=False)
            self.assertEqual(second.wait(), 2)
            second.wait_for("refused: process .* is taking over already")
            asking.close()
            relay.wait_for("has ended; going on")
            third = bench.relay("--takeover")
            self.assertEqual(relay.wait(), 0)
            report = Report(load)
            self.assertEqual((report.total["lost"], report.total["twice"]), (0, 0))
            third.process.send_signal(signal.SIGTERM)
            self.assertEqual(third.wait(), 0)

    def test_a_successor_that_dies_with_the_sockets_leaves_the_relay_as_it_was(self):
        with Bench() as bench:
            relay = bench.relay()
            load = bench.load(5)
            asking = self.request(bench)
            # It says that it is ready, gets the sockets, and dies. The process that it names is nobody's.
            asking.send(struct.pack(">BI", 3, 0))
            wait_until(lambda: child(relay) is None, "the end of the worker")
            asking.close()
            relay.wait_for("going on")
            relay.wait_for("goes on with 200 flows")
            report = Report(load)
            self.assertEqual((report.total["lost"], report.total["twice"]), (0, 0))

    def test_takeover_of_nobody_and_of_another_address(self):
        with Bench() as bench:
            relay = bench.relay("--takeover")
            relay.wait_for("no relay answers")
            other = Bench()
            with other:
                bench.public, kept = other.public, bench.public
                refused = bench.relay("--takeover", ready=False)
                self.assertEqual(refused.wait(), 2)
                refused.wait_for("restart it to change that")
                bench.public = kept
            beside = bench.relay(ready=False)
            self.assertEqual(beside.wait(), 2)
            beside.wait_for("another relay runs with .*--takeover takes its place")
            self.assertIsNotNone(child(relay))

    def test_tables_that_are_none(self):
        with Bench() as bench:
            table = bench.path / "run" / "flows"

            def leave():
                relay = bench.relay()
                Report(bench.load(2, flows=20))
                relay.process.send_signal(signal.SIGTERM)
                self.assertEqual(relay.wait(), 0)
                return bytearray(table.read_bytes())

            def try_it(content, message):
                table.write_bytes(content)
                relay = bench.relay()
                relay.wait_for(message)
                report = Report(bench.load(2, flows=20))
                self.assertEqual(report.total["lost"], 0)
                relay.process.send_signal(signal.SIGTERM)
                self.assertEqual(relay.wait(), 0)

            good = leave()
            try_it(good[:40], "it is cut off after 40 bytes")
            try_it(good[:-4096], "it has .* bytes, not")
            try_it(b"\xff" * len(good), "it is no flow table")
            try_it(good[:16] + b"\0\0\0\x09" + good[20:], "written by another version")
            try_it(good[:41] + b"\x55" + good[42:], "first page is damaged")
            foreign = good[:40] + bytes(16) + good[56:72]
            try_it(foreign + siphash(foreign) + good[80:], "it is from another machine")
            # A page that fits, and rubbish behind it.
            rubbish = good[:4096] + b"\xff" * (len(good) - 4096)
            table.write_bytes(rubbish)
            relay = bench.relay()
            relay.wait_for("goes on with 0 flows; 0 had ended, 16384 were half written")
            report = Report(bench.load(2, flows=20))
            self.assertEqual(report.total["lost"], 0)

    def test_wrong_descriptors_of_another_relay(self):
        """Whoever answers at the path is believed only as far as its descriptors are the sockets that are asked for."""
        with Bench() as bench:
            (bench.path / "run").mkdir(mode=0o700)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(str(bench.path / "run" / "takeover"))
            listener.listen()
            null = os.open("/dev/null", os.O_RDWR)
            # An estate's head: version 1, 2 workers, 1 public address, no listener, steering key, flows of a worker.
            head = struct.pack(">BBBBBII", 1, 1, 2, 1, 0, 7, 8192)

            def answer(messages, complaint):
                relay = bench.relay("--takeover", ready=False)
                connection, _ = listener.accept()
                connection.recv(4096)
                for data, descriptors in messages:
                    socket.send_fds(connection, [data], descriptors)
                relay.wait_for(complaint)
                self.assertEqual(relay.wait(), 2)
                connection.close()

            answer([(head, []), (b"\x02", [null] * 4), (struct.pack(">BI", 4, 0), [null])], "--takeover")
            with open(bench.path / "file", "w+b") as file:
                file.truncate(4096)
                answer([(head, []), (b"\x02", [null] * 4), (struct.pack(">BI", 4, 0), [file.fileno()])], "what came are not its sockets")
            answer([(head, []), (b"\x02", [null] * 5)], "descriptors are missing: 0 of 4")
            answer([(head[:1] + b"\x63" + head[2:], [])], "hands over by version 99")
            answer([(b"\xff" * 13, [])], "no relay's answer")
            answer([(b"\x08we are closed", [])], "refused: we are closed")
            os.close(null)
            listener.close()

    def test_wrong_descriptors_of_the_service_manager(self):
        with Bench() as bench, Manager(bench) as manager:
            wrong = {"public-0-0": os.open("/dev/null", os.O_RDONLY), "flows": os.open("/dev/zero", os.O_RDONLY), "what": os.dup(0)}
            relay = manager.start(wrong)
            relay.wait_for("descriptors are not used: public-0-1 is missing")
            report = Report(bench.load(2, flows=20))
            self.assertEqual(report.total["lost"], 0)
            for number in wrong.values():
                os.close(number)

    def test_sigterm_twice_and_a_spare_that_dies(self):
        with Bench() as bench:
            relay = bench.relay()
            spare = wait_until(lambda: child(relay, "relay-spare"), "a spare")
            os.kill(spare, signal.SIGKILL)
            relay.wait_for("spare worker has ended")
            # Without a spare it takes longer, and works.
            load = bench.load(4)
            kill_worker(relay)
            report = Report(load)
            self.assertLessEqual(report.total["lost"], BATCH)
            relay.process.send_signal(signal.SIGTERM)
            relay.process.send_signal(signal.SIGTERM)
            self.assertEqual(relay.wait(), 0)

    def test_a_worker_that_hangs_is_replaced(self):
        with Bench() as bench:
            relay = bench.relay()
            worker = wait_until(lambda: child(relay), "a worker")
            os.kill(worker, signal.SIGSTOP)
            relay.wait_for(f"worker process {worker} says nothing", 20)
            wait_until(lambda: child(relay) not in (None, worker), "another worker")


class Logs(unittest.TestCase):
    """Where words go that nobody can take: a full disk, a pipe whose reader has gone, a pipe whose reader hangs. Calls do not notice, and what
    the operator asks for is done."""

    def check(self, output):
        with Bench() as bench:
            relay = bench.relay("--metrics", f"127.0.0.1:{free_port()}", ready=False, output=output)
            wait_until(lambda: child(relay), "a worker")
            load = bench.load(5, flows=50)
            for _ in range(2):
                kill_worker(relay)
                relay.process.send_signal(signal.SIGHUP)
                time.sleep(0.5)
            # More than the pipe has room for.
            for _ in range(200):
                relay.process.send_signal(signal.SIGHUP)
                time.sleep(0.005)
            report = Report(load)
            self.assertLessEqual(report.total["lost"], 2 * BATCH)
            self.assertEqual(report.total["twice"], 0)
            relay.process.send_signal(signal.SIGTERM)
            self.assertEqual(relay.process.wait(20), 0)

    def test_a_full_disk(self):
        with open("/dev/full", "w") as full:
            self.check(full)

    @unittest.skipUnless(MAY_MOUNT, "mounting is not allowed here")
    def test_a_runtime_folder_without_room(self):
        """The table is not begun where it could not be finished: a page that cannot be written would kill worker after worker."""
        with Bench() as bench:
            (bench.path / "run").mkdir()
            mounted = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=1m none {bench.path}/run && exec "$@"', "sh"]
            relay = bench.relay(launcher=mounted)
            relay.wait_for("has no room for the flow table")
            load = bench.load(3)
            kill_worker(relay)
            relay.wait_for("goes on with 200 flows")
            report = Report(load)
            self.assertLessEqual(report.total["lost"], BATCH)
            relay.process.send_signal(signal.SIGTERM)
            self.assertEqual(relay.wait(), 0)

    def test_a_reader_that_has_gone(self):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            self.check(pipe)

    def test_a_reader_that_hangs(self):
        reading, writing = os.pipe()
        # Room for a few lines.
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        with os.fdopen(writing, "w") as pipe:
            self.check(pipe)
        os.close(reading)


class Reload(unittest.TestCase):
    """SIGHUP: keys, table and options of the configuration file, all or nothing, without a lost packet."""

    def hang_up(self, relay, pattern):
        before = len(relay.output)
        relay.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(re.search(pattern, line) for line in relay.output[before:]), lambda: f"'{pattern}' from {relay}")

    def keys(self, bench, *words):
        verbs = 2 if words[0] == "trunk" else 1
        subprocess.run([EXECUTABLE, "keys", *words[:verbs], "--key-file", bench.keys, *words[verbs:]], check=True)

    def assert_calls_flow(self, bench):
        total = Report(bench.load(2, flows=20)).total
        self.assertEqual((total["lost"], total["lost-back"], total["twice"]), (0, 0, 0))

    def test_keys_and_tables_come_and_go_under_load(self):
        times = 20 if LONG else 5
        with Bench() as bench:
            relay = bench.relay()
            load = bench.load(4 + times // 3)
            table = bench.path / "transceivers"
            for number in range(times):
                table.write_text(f"1 {bench.transceiver}\n" + "".join(f"{2 + other} 127.0.0.1:9\n" for other in range(number)))
                if number == 1:
                    self.keys(bench, "add")
                if number == 3:
                    self.keys(bench, "promote", "--retire-after", "1")
                keys = "1 hint key," if number < 1 else "2 hint keys,"
                self.hang_up(relay, f"read again: {keys} {number + 1} transceiver")
                time.sleep(0.3)
            total = Report(load).total
            self.assertEqual((total["lost"], total["lost-back"], total["twice"], total["twice-back"]), (0, 0, 0, 0))
            # Calls of the new key, with the worker that has read it, and with the one that comes after.
            self.assert_calls_flow(bench)
            kill_worker(relay)
            relay.wait_for("goes on with")
            self.assert_calls_flow(bench)

    def test_the_trunk_key_changes_under_load(self):
        with Bench() as bench:
            relay = bench.relay("--metrics", "127.0.0.1:0")
            self.keys(bench, "trunk", "add")
            self.hang_up(relay, "read again: 1 hint key, 2 trunk keys, 1 transceiver")
            # It sends under the old key, as long as it runs, and takes both.
            load = bench.load(6)
            for _ in range(7):
                self.keys(bench, "trunk", "promote")
                self.hang_up(relay, "read again: 1 hint key, 2 trunk keys, 1 transceiver")
                time.sleep(0.3)
            total = Report(load).total
            self.assertEqual((total["lost"], total["lost-back"], total["twice"], total["twice-back"]), (0, 0, 0, 0))
            accepted = Metrics(request(relay.metrics_url(), "GET", "/metrics").text).total("^swiftlet_relay_trunk_frames_accepted_key_total")
            self.assertGreater(accepted, 0)
            self.keys(bench, "trunk", "retire")
            self.hang_up(relay, "read again: 1 hint key, 1 transceiver")
            self.assert_calls_flow(bench)

    def test_a_bad_file_changes_nothing_not_even_for_the_next_worker(self):
        with Bench() as bench:
            options = bench.path / "relay.json"
            options.write_text('{"gather-us": "100"}\n')
            relay = bench.relay("--config", options)
            good, table = bench.keys.read_text(), bench.path / "transceivers"
            lines = good.splitlines(keepends=True)
            entry = table.read_text()

            def spoil(path, content, message):
                kept = path.read_text()
                path.write_text(content)
                self.hang_up(relay, f"{message}.*; what was read before stays in use")
                kill_worker(relay)
                path.write_text(kept)
                self.assert_calls_flow(bench)

            spoil(table, entry + "# a comment\n2 nowhere\n", f'--transceivers: {table}: line 3: "nowhere" is not ADDRESS:PORT')
            spoil(table, entry + entry, f"--transceivers: {table}: line 2: id 1 is given twice, first in line 1")
            spoil(bench.keys, "".join(lines[:3]), f"--key-file: {bench.keys}: line 4: the file ends too early")
            spoil(bench.keys, good.replace('"id": 0', '"id": 32'), f"--key-file: {bench.keys}: line 4: .*want a whole number, at most 31")
            spoil(options, '{"gather-us": "100", "io": "auto"}\n', '"io" cannot change')
            spoil(options, '{"gather-us": ', f"{options} is not JSON: line 1: it ends too early")
            spoil(options, '{"gather-us": "9999"}\n', f'{options}: "gather-us"')
            other = bench.path / "other.json"
            subprocess.run([EXECUTABLE, "keys", "generate", "--out", other], check=True, stderr=subprocess.DEVNULL)
            spoil(bench.keys, other.read_text(), "another passwordKey is another deployment")
            options.write_text('{"gather-us": "0", "trunk-mtu": "1200"}\n')
            self.hang_up(relay, "read again: 1 hint key, 1 transceiver$")
            self.assert_calls_flow(bench)

    def test_a_table_that_changes_is_read_without_a_word(self):
        with Bench() as bench:
            relay = bench.relay()
            (bench.path / "transceivers").write_text("1 127.0.0.1:9\n2 127.0.0.1:9\n")
            relay.wait_for("read again: 1 hint key, 2 transceivers")


class Calls(unittest.TestCase):
    def test_a_worker_is_killed_under_a_call(self):
        from aiortc_client import AiortcCall

        class Timed(AiortcCall):
            """Notes how long nothing was heard."""
            heard_at = None
            gap = 0.0

            def take(self, samples):
                now = time.monotonic()
                if self.heard_at is not None:
                    self.gap = max(self.gap, now - self.heard_at)
                self.heard_at = now
                super().take(samples)

        with Swiftlet() as server, Timed(server) as call:
            call.connect()
            call.wait_for_tone()
            call.gap = 0.0
            time.sleep(3)
            undisturbed, call.gap = call.gap, 0.0
            keeper = next(pid for pid, name in server.processes().items() if name == "swiftlet-relay")
            for _ in range(3):
                kill_worker(type("Keeper", (), {"pid": keeper}))
                time.sleep(1)
            print(f"\n    worker killed under a call of aiortc: gap {call.gap * 1000:.0f} ms (undisturbed {undisturbed * 1000:.0f} ms)", flush=True)
            self.assertEqual(call.state, "connected")
            call.wait_for_tone()
            if LONG:
                self.assertLessEqual(call.gap - undisturbed, 0.06)

    def test_nothing_is_left_when_the_supervisor_is_killed(self):
        with Swiftlet() as server:
            server.ended_by_itself = True
            server.process.kill()
            wait_until(lambda: not server.processes(), lambda: f"the end of {server.processes()}")
            server.process.wait()
            server.process.returncode = 0
