"""Transceivers that register themselves in Redis: found by a relay and by each other, and nothing that befalls Redis ends a call."""

import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import types
import unittest

from aiortc_client import AiortcCall
from fleet import Program, Transceiver, free_port
from harness import EXECUTABLE, REPOSITORY, Metrics, request, wait_until
from test_redis import Redis

CALLS = "/v1/realtime/calls"
OFFER = (REPOSITORY / "Tests" / "Corpus" / "sdp" / "chromium-156.sdp").read_bytes()
SDP = {"Content-Type": "application/sdp"}


class Registered:
    """Redis, a relay that knows the registry alone, and transceivers that are in it."""

    def __init__(self, transceivers=2, redis=True, arguments=()):
        self.count = transceivers
        self.starts_redis = redis
        self.arguments = arguments

    def __enter__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="swiftlet-members-"))
        self.path = str(self.place)
        self.started = []
        self.keys = self.place / "keys.json"
        subprocess.run([str(EXECUTABLE), "keys", "generate", "--out", str(self.keys)], check=True, stdout=subprocess.DEVNULL)
        self.redis = Redis(types.SimpleNamespace(path=self.path, started=self.started), "--requirepass", "s3cret")
        self.url = self.redis.url(credentials=":s3cret@", database="/2")
        self.public = free_port(socket.SOCK_DGRAM)
        self.trunk = free_port(socket.SOCK_DGRAM)
        self.programs = []
        try:
            if self.starts_redis:
                self.redis.start()
            self.start_relay()
            self.transceivers = [self.start_transceiver(number + 1) for number in range(self.count)]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start_relay(self):
        self.metrics_port = free_port(socket.SOCK_STREAM)
        self.relay = Program(
            "swiftlet-relay", "--listen", f"127.0.0.1:{self.public}", "--trunk", f"127.0.0.1:{self.trunk}", "--key-file", self.keys,
            "--transceivers", self.url, "--workers", 1, "--metrics", f"127.0.0.1:{self.metrics_port}", "--runtime-folder", self.place / "run")
        self.programs.append(self.relay)
        self.relay.start("ready")

    def start_transceiver(self, number):
        transceiver = Transceiver(
            "--signaling", "127.0.0.1:0", "--trunk", "127.0.0.1:0", "--advertise", f"127.0.0.1:{self.public}", "--key-file", self.keys,
            "--id", number, "--workers", 1, "--backend", "embedded:echo", "--members", self.url, *self.arguments)
        self.programs.append(transceiver)
        return transceiver.start()

    def ask(self, *words):
        """One command to Redis, past the password and in the database."""
        return self.redis.ask_all([("AUTH", "s3cret"), ("SELECT", "2"), words])[-1]

    def hash(self):
        names = self.ask("KEYS", "swiftlet:members:*")
        return names[0] if isinstance(names, list) and names else "none"

    def fields(self):
        fields = self.ask("HKEYS", self.hash())
        return sorted(field.decode() for field in fields) if isinstance(fields, list) else []

    def relay_metrics(self):
        return Metrics(request(f"http://127.0.0.1:{self.metrics_port}", "GET", "/metrics").text)

    def wait_for_members(self, serving, draining=0, programs=None, timeout=30):
        for read in programs or [self.relay_metrics, *(one.metrics for one in self.transceivers)]:
            def counts(read=read):
                values = read().values
                found = [values.get(name) for name in values if "_members{" in name and ("serving" in name or "draining" in name)]
                return found == [serving, draining]
            # A reading is told to the relay's workers by way of its keeper.
            wait_until(counts, lambda: "members:\n" + "\n".join(program.report() for program in self.programs), timeout)

    def __exit__(self, kind, error, trace):
        for program in reversed(self.programs):
            if getattr(program, "process", None):
                program.stop()
                if kind is not None:
                    print(program.report())
        for process in self.started:
            process.kill()
        shutil.rmtree(self.place, ignore_errors=True)


@unittest.skipUnless(shutil.which("redis-server"), "redis-server is not installed")
class Members(unittest.TestCase):
    def call_through_the_registry(self, fleet):
        call = self.enterContext(AiortcCall(fleet.transceivers[0]))
        call.connect()
        call.wait_for_tone()
        return call

    def hear_again(self, call):
        """What comes now, not what came before."""
        before = call.frame_count
        wait_until(lambda: call.frame_count > before + 50, "a second of audio")
        call.wait_for_tone()

    def test_a_call_by_what_the_registry_says_and_its_end_through_another(self):
        with Registered() as fleet:
            owner, door = fleet.transceivers
            fleet.wait_for_members(2)
            self.assertEqual(fleet.fields(), ["0/1", "0/2"])
            call = self.call_through_the_registry(fleet)
            self.assertEqual(door.request("POST", call.location + "/hangup").status, 200)
            owner.wait_for_no_calls()
            for program in fleet.programs:
                self.assertNotIn("s3cret", "\n".join(program.output))
            self.assertTrue(fleet.relay.find(r"2 members|1 members"), fleet.relay.report())

    def check_no_change(self, harm, heal=lambda fleet: None):
        with Registered() as fleet:
            owner, door = fleet.transceivers
            fleet.wait_for_members(2)
            call = self.call_through_the_registry(fleet)
            harm(fleet)
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline:
                self.hear_again(call)
            # A check that makes a new flow needs the transceiver's address, and a hangup its owner's.
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            self.assertEqual(door.request("POST", location + "/hangup").status, 200)
            heal(fleet)
            fleet.wait_for_members(2, timeout=60)
            self.hear_again(call)
            wait_until(lambda: fleet.fields() == ["0/1", "0/2"], lambda: f"two members, not {fleet.fields()}", 60)
            self.assertEqual(fleet.relay_metrics().total("dropped_total.*unknown_transceiver"), 0)
            self.assertEqual(door.request("POST", call.location + "/hangup").status, 200)

    def test_redis_killed(self):
        self.check_no_change(lambda fleet: fleet.redis.process.kill(), lambda fleet: fleet.redis.start())

    def test_redis_hangs(self):
        self.check_no_change(
            lambda fleet: fleet.redis.process.process.send_signal(signal.SIGSTOP),
            lambda fleet: fleet.redis.process.process.send_signal(signal.SIGCONT))

    def test_redis_flushed(self):
        self.check_no_change(lambda fleet: fleet.ask("FLUSHALL"))

    def test_redis_filled_with_garbage(self):
        def harm(fleet):
            garbage = [word for number in range(200) for word in (f"0/{number % 4}" if number < 4 else f"x{number}", b"\x01" * number)]
            fleet.ask("HSET", fleet.hash(), *garbage)
        self.check_no_change(harm)

    def test_something_else_where_the_hash_belongs(self):
        def harm(fleet):
            name = fleet.hash()
            fleet.redis.ask_all([("AUTH", "s3cret"), ("SELECT", "2"), ("DEL", name), ("SET", name, "no hash")])
        self.check_no_change(harm)

    def test_values_copied_to_others_and_from_before_are_nobody(self):
        def harm(fleet):
            name = fleet.hash()
            fleet.ask("EVAL", "redis.call('HSET', KEYS[1], '0/9', redis.call('HGET', KEYS[1], '0/1')) return 1", "1", name)
        self.check_no_change(harm)

    def test_nobody_waits_for_redis_at_the_start(self):
        with Registered(redis=False) as fleet:
            self.assertEqual(fleet.transceivers[0].request("GET", "/readyz").status, 200)
            fleet.redis.start()
            fleet.wait_for_members(2)
            self.call_through_the_registry(fleet)

    def test_draining_is_seen_and_new_calls_go_to_who_serves(self):
        with Registered() as fleet:
            old, other = fleet.transceivers
            fleet.wait_for_members(2)
            call = self.call_through_the_registry(fleet)
            old.process.send_signal(signal.SIGTERM)
            fleet.wait_for_members(1, 1, [fleet.relay_metrics, other.metrics])
            self.hear_again(call)
            answer = old.request("POST", CALLS, OFFER, SDP)
            self.assertEqual(answer.status, 201, answer)
            self.assertEqual(other.metrics().calls, 1)
            self.assertEqual(old.metrics().calls, 1)
            self.assertEqual(old.request("POST", answer.headers["Location"] + "/hangup").status, 200)
            other.wait_for_no_calls()

    def test_who_is_full_sends_new_calls_to_the_emptiest(self):
        with Registered(3, arguments=("--sessions", 2)) as fleet:
            full, busy, empty = fleet.transceivers
            for _ in range(2):
                self.assertEqual(full.request("POST", CALLS, OFFER, SDP).status, 201)
            self.assertEqual(busy.request("POST", CALLS, OFFER, SDP).status, 201)
            fleet.wait_for_members(3)
            time.sleep(7)
            self.assertEqual(full.request("POST", CALLS, OFFER, SDP).status, 201)
            self.assertEqual([one.metrics().calls for one in fleet.transceivers], [2, 1, 1])
            for _ in range(2):
                self.assertEqual(full.request("POST", CALLS, OFFER, SDP).status, 201)
            self.assertEqual([one.metrics().calls for one in fleet.transceivers], [2, 2, 2])
            turned_away = full.request("POST", CALLS, OFFER, SDP)
            self.assertEqual((turned_away.status, turned_away.json()["error"]["code"]), (503, "at_capacity"), turned_away)

    def test_the_entry_of_a_dead_transceiver_goes(self):
        with Registered() as fleet:
            living, dead = fleet.transceivers
            fleet.wait_for_members(2)
            location = dead.request("POST", CALLS, OFFER, SDP).headers["Location"]
            dead.process.kill()
            began = time.monotonic()
            response = living.request("POST", location + "/hangup")
            self.assertEqual((response.status, response.json()["error"]["code"]), (404, "call_owner_unreachable"), response)
            self.assertLess(time.monotonic() - began, 1.5, "the owner's time is 0.9 s; the rest is this machine's")
            fleet.wait_for_members(1, 0, [fleet.relay_metrics, living.metrics], timeout=60)
            self.assertEqual(fleet.fields(), ["0/1"])
            wait_until(lambda: living.find(r"1 members: .*-0/2"), living.report)
            self.assertEqual(fleet.relay_metrics().values['swiftlet_relay_members{state="lost"}'], 1)

    def test_a_relay_without_redis_knows_whom_it_knew(self):
        with Registered() as fleet:
            fleet.wait_for_members(2)
            call = self.call_through_the_registry(fleet)
            wait_until(lambda: (fleet.place / "run" / "members").exists(), fleet.relay.report)
            fleet.redis.process.kill()
            fleet.relay.stop()
            (fleet.place / "run" / "flows").unlink()
            fleet.start_relay()
            # The next check makes the flow again.
            before = call.frame_count
            wait_until(lambda: call.frame_count > before + 50, fleet.relay.report, 30)
            fleet.redis.start()
            fleet.wait_for_members(2, timeout=60)

    def test_a_worker_that_dies_knows_whom_the_last_one_knew(self):
        with Registered() as fleet:
            fleet.wait_for_members(2)
            call = self.call_through_the_registry(fleet)
            fleet.redis.process.kill()
            children = subprocess.run(["pgrep", "-P", str(fleet.relay.process.pid)], capture_output=True, text=True).stdout.split()
            self.assertGreaterEqual(len(children), 1)
            for child in children:
                subprocess.run(["kill", "-9", child])
            wait_until(lambda: fleet.relay.find("goes on with"), fleet.relay.report)
            self.hear_again(call)


if __name__ == "__main__":
    unittest.main()
