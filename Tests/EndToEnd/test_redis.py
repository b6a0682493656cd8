"""What the flow cache is worth when all of a relay is lost, and that nothing that happens to Redis is noticed by anybody.

The clients of `bench steady` send media and no further checks: without the cache a new relay would wait for their next one.
"""

import os
import shutil
import signal
import socket
import time
import unittest

from harness import Metrics, request, wait_until
from relay_bench import Bench, Process, Report, free_port
from test_faults import LONG, show


class Redis:
    """A redis-server of this test's own, without files."""

    def __init__(self, bench, *arguments):
        self.bench = bench
        self.port = free_port()
        self.arguments = arguments
        self.process = None

    def start(self):
        self.process = Process(["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                "--dir", self.bench.path, *self.arguments])
        self.bench.started.append(self.process)
        wait_until(lambda: self.ask("PING") in ("+PONG", "-NOAUTH Authentication required."), lambda: f"Redis: {self.process}")
        return self

    def url(self, credentials="", database=""):
        return f"redis://{credentials}127.0.0.1:{self.port}{database}"

    def ask(self, *words):
        """One command; the first line of its answer."""
        return self.ask_all([words])[0]

    def ask_all(self, commands):
        data = b""
        for words in commands:
            data += b"*%d\r\n" % len(words)
            for word in words:
                word = word if isinstance(word, bytes) else str(word).encode()
                data += b"$%d\r\n%s\r\n" % (len(word), word)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(data)
                lines = connection.makefile("rb")
                answers = []
                for _ in commands:
                    head = lines.readline().decode().rstrip("\r\n")
                    if head.startswith("$") and head != "$-1":
                        lines.read(int(head[1:]) + 2)
                    if head.startswith("*"):
                        items = []
                        for _ in range(int(head[1:])):
                            items.append(lines.read(int(lines.readline()[1:]) + 2)[:-2])
                        head = items
                    answers.append(head)
                return answers
        except OSError as error:
            return [f"({error})"] * len(commands)

    def count(self):
        answer = self.ask("DBSIZE")
        return int(answer[1:]) if answer.startswith(":") else -1

    def keys(self):
        return self.ask("KEYS", "swiftlet:flow:*")


@unittest.skipUnless(shutil.which("redis-server"), "redis-server is not installed")
class FlowCache(unittest.TestCase):
    FLOWS = 200

    def relay(self, bench, *arguments, **options):
        relay = bench.relay("--metrics", "127.0.0.1:0", *arguments, folder=False, **options)
        if options.get("ready", True):
            self.metrics = relay.metrics_url()
        return relay

    def read(self):
        return Metrics(request(self.metrics, "GET", "/metrics").text)

    def lose_everything(self, bench, relay, *arguments):
        """Keeper and worker at once, without a runtime folder: nothing is left on this machine."""
        relay.kill()
        return self.relay(bench, *arguments)

    def test_all_is_lost_and_media_flows_again_by_what_redis_knows(self):
        with Bench() as bench:
            redis = Redis(bench, "--requirepass", "s3cr@t").start()
            url = redis.url(credentials=":s3cr%40t@", database="/3")
            relay = self.relay(bench, "--redis", url)
            load = bench.load(10)
            wait_until(lambda: self.read().values["swiftlet_relay_cache_writes_total"] >= self.FLOWS, "the flows in Redis")
            again = self.lose_everything(bench, relay, "--redis", url)
            self.assertNotIn("s3cr", "".join(relay.output + again.output))
            wait_until(lambda: self.read().total("swiftlet_relay_flows_recalled_total") >= self.FLOWS, "the flows")
            metrics = self.read()
            report = Report(load)
            show("relay and keeper killed, with Redis", report.gap(range(1, 2)), report.gap(range(2, 11)), report.total)
            print(f"    waited: {metrics.total('parked_datagrams'):g} packets for {metrics.total('cache_questions'):g} questions")
            if LONG:
                self.assertLessEqual(report.gap(range(2, 11)), 300)
            self.assertEqual(report.total["twice"] + report.total["twice-back"], 0)

    def test_without_redis_the_next_check_is_waited_for(self):
        with Bench() as bench:
            relay = self.relay(bench)
            load = bench.load(6)
            time.sleep(1)
            self.lose_everything(bench, relay)
            load.wait(60)
            metrics = self.read()
            # These clients send none.
            self.assertEqual(metrics.total("swiftlet_relay_flows$|swiftlet_relay_flows{"), 0)
            self.assertGreater(metrics.values['swiftlet_relay_dropped_total{reason="no_flow"}'], 1000)
            self.assertEqual(metrics.total("swiftlet_relay_parked"), 0)

    def check_no_change(self, fault, harm=lambda redis: None, heal=lambda redis: None, before=lambda redis: None, arguments=()):
        """Calls that flow do not notice what happens to Redis."""
        with Bench() as bench:
            redis = Redis(bench, *arguments).start()
            before(redis)
            relay = self.relay(bench, "--redis", redis.url())
            load = bench.load(9)
            time.sleep(2.5)
            harm(redis)
            # Unknown sources knock all the while.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                host, port = bench.public.rsplit(":", 1)
                for _ in range(100):
                    stranger.sendto(bytes([0x80, 111]) + bytes(50), (host, int(port)))
                    time.sleep(0.02)
            heal(redis)
            report = Report(load)
            show(fault, report.gap(range(1, 3)), report.gap(range(3, 10)), report.total)
            self.assertEqual(report.total["lost"] + report.total["lost-back"], 0)
            self.assertEqual(report.total["twice"] + report.total["twice-back"], 0)
            self.assertIsNone(relay.process.poll())
            return self.read().total("cache_server_errors_total")

    def test_redis_is_killed(self):
        self.check_no_change("Redis killed", lambda redis: redis.process.kill(), lambda redis: redis.start())

    def test_redis_hangs(self):
        self.check_no_change("Redis hung", lambda redis: os.kill(redis.process.pid, signal.SIGSTOP),
                             lambda redis: os.kill(redis.process.pid, signal.SIGCONT))

    def test_redis_is_slow(self):
        self.check_no_change("Redis slow", lambda redis: redis.ask("CLIENT", "PAUSE", "1500", "ALL"))

    def test_redis_is_flushed(self):
        self.check_no_change("Redis flushed", lambda redis: redis.ask("FLUSHALL"))

    def test_redis_is_read_only(self):
        # As a replica whose master is gone: it answers, and takes nothing.
        errors = self.check_no_change("Redis read-only", before=lambda redis: redis.ask("REPLICAOF", "127.0.0.1", "1"))
        self.assertGreaterEqual(errors, self.FLOWS)

    def test_redis_is_full(self):
        errors = self.check_no_change("Redis full", arguments=("--maxmemory", "1", "--maxmemory-policy", "noeviction"))
        self.assertGreaterEqual(errors, self.FLOWS)

    def test_garbage_in_redis_is_a_miss(self):
        with Bench() as bench:
            redis = Redis(bench).start()
            relay = self.relay(bench, "--redis", redis.url())
            load = bench.load(8)
            wait_until(lambda: redis.count() >= self.FLOWS, "the flows in Redis")
            keys = redis.keys()
            self.assertEqual(len(keys), self.FLOWS)
            values = [b"", b"\x00" * 49, os.urandom(49), os.urandom(100_000), b"12"]
            spoil = []
            for number, key in enumerate(keys):
                if number % 6 == 5:
                    spoil += [("DEL", key), ("LPUSH", key, "x")]
                elif number % 6 == 4:
                    # Another source's entry, which is authentic.
                    spoil += [("COPY", keys[number - 4 - (6 if number > 6 else 0)], key, "REPLACE")]
                else:
                    spoil += [("SET", key, values[number % len(values)])]
            # First the copies, while there is something to copy.
            spoil.sort(key=lambda command: command[0] != "COPY")
            self.lose_and_spoil(bench, redis, relay, spoil)
            load.wait(60)
            metrics = self.read()
            self.assertEqual(metrics.total("swiftlet_relay_flows_recalled_total"), 0)
            self.assertGreater(metrics.values['swiftlet_relay_cache_lookups_total{result="miss"}'], self.FLOWS / 2)
            self.assertGreater(metrics.values["swiftlet_relay_cache_forged_total"], 10)

    def lose_and_spoil(self, bench, redis, relay, spoil):
        relay.kill()
        redis.ask_all(spoil)
        self.relay(bench, "--redis", redis.url())

    def test_a_relay_starts_without_waiting_for_redis(self):
        with Bench() as bench, socket.socket() as listener:
            # It accepts, and says nothing.
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            for url in ("redis://127.0.0.1:1", f"redis://127.0.0.1:{listener.getsockname()[1]}", "redis://no-such-host.invalid"):
                relay = self.relay(bench, "--redis", url)
                load = bench.load(2)
                report = Report(load)
                self.assertEqual(report.total["lost"] + report.total["lost-back"], 0)
                self.assertEqual(self.read().values["swiftlet_relay_cache_open"], 0)
                relay.process.send_signal(signal.SIGTERM)
                self.assertEqual(relay.wait(), 0)

    def test_tls_is_refused_in_words(self):
        with Bench() as bench:
            relay = self.relay(bench, "--redis", "rediss://user:hunter2@127.0.0.1", ready=False)
            self.assertEqual(relay.wait(), 2)
            said = "".join(relay.output)
            self.assertIn("TLS", said)
            self.assertNotIn("hunter2", said)
