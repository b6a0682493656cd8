"""What the flow cache is worth when all of a relay is lost, and that nothing that happens to Redis is noticed by anybody.

The clients of `bench steady` send media and no further checks: without the cache a new relay would wait for their next one.
"""

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import threading
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
        self.authorities = None

    def start(self):
        listening = ["--port", self.port]
        if self.authorities:
            files = self.bench.path / "server"
            listening = ["--port", 0, "--tls-port", self.port, "--tls-cert-file", f"{files}.pem", "--tls-key-file", f"{files}.key",
                         "--tls-ca-cert-file", self.authorities, "--tls-auth-clients", "no"]
        self.process = Process(["redis-server", *listening, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                "--dir", self.bench.path, *self.arguments])
        self.bench.started.append(self.process)
        wait_until(lambda: self.ask("PING") in ("+PONG", "-NOAUTH Authentication required."), lambda: f"Redis: {self.process}")
        return self

    def start_quietly(self):
        """As `start`, for one that answers nobody without a name."""
        answers, self.ask = self.ask, lambda *words: "+PONG"
        self.start()
        self.ask = answers
        wait_until(lambda: any("Ready to accept connections" in line for line in self.process.output), lambda: f"Redis: {self.process}")
        return self

    def secure(self, names="IP:127.0.0.1,DNS:localhost"):
        """TLS from now on, with a certificate for `names` by an authority of its own."""
        self.authorities = authority(self.bench.path / "ca")
        issue(self.bench.path / "ca", self.bench.path / "server", names)
        return self

    def url(self, credentials="", database="", host="127.0.0.1"):
        return f"{'rediss' if self.authorities else 'redis'}://{credentials}{host}:{self.port}{database}"

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
            with self.connect() as connection:
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

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if not self.authorities:
            return connection
        return ssl.create_default_context(cafile=self.authorities).wrap_socket(connection, server_hostname="127.0.0.1")

    def count(self):
        answer = self.ask("DBSIZE")
        return int(answer[1:]) if answer.startswith(":") else -1

    def keys(self):
        return self.ask("KEYS", "swiftlet:flow:*")


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def authority(name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key", "-out",
            f"{name}.pem", "-days", 2, "-subj", f"/CN={name.name}")
    return f"{name}.pem"


def issue(by, name, names):
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key", "-out",
            f"{name}.csr", "-subj", "/CN=redis", "-addext", f"subjectAltName={names}")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial", "-days", 2,
            "-copy_extensions", "copy", "-out", f"{name}.pem")


class Babbler:
    """Where Redis should be: something that accepts, listens, and says what `speak` does with the connection."""

    def __init__(self, speak):
        self.speak = speak
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection):
        with connection:
            try:
                self.speak(connection)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.listener.close()


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

    def check_recovery(self, bench, redis, url, *arguments):
        """All of a relay is lost, and what Redis knows of its flows brings them back."""
        relay = self.relay(bench, "--redis", url, *arguments)
        load = bench.load(10)
        wait_until(lambda: self.read().values["swiftlet_relay_cache_writes_total"] >= self.FLOWS, lambda: f"flows in Redis: {relay}")
        again = self.lose_everything(bench, relay, "--redis", url, *arguments)
        wait_until(lambda: self.read().total("swiftlet_relay_flows_recalled_total") >= self.FLOWS, lambda: f"flows: {again}")
        report = Report(load)
        self.assertEqual(report.total["twice"] + report.total["twice-back"], 0)
        return report, relay.output + again.output

    def test_over_tls_with_a_user_and_a_database_all_is_the_same(self):
        with Bench() as bench:
            acl = bench.path / "users.acl"
            # Nothing but what a relay needs.
            acl.write_text("user default off\nuser relay on >hunter2 ~swiftlet:flow:* +ping +get +set +select +auth\n")
            redis = Redis(bench, "--aclfile", acl).secure()
            redis.start_quietly()
            url = redis.url(credentials="relay:hunter2@", database="/2", host="localhost")
            report, said = self.check_recovery(bench, redis, url, "--redis-ca", redis.authorities)
            show("relay and keeper killed, with Redis over TLS", report.gap(range(1, 2)), report.gap(range(2, 11)), report.total)
            self.assertNotIn("hunter2", "".join(said))

    def check_closed(self, redis_url, *arguments, said=None):
        """Calls flow, the cache stays closed, and the operator is told why, once."""
        with Bench() as bench:
            relay = self.relay(bench, "--redis", redis_url, *arguments)
            if said:
                relay.wait_for(said)
            report = Report(bench.load(4))
            self.assertEqual(report.total["lost"] + report.total["lost-back"], 0)
            self.assertEqual(self.read().values["swiftlet_relay_cache_open"], 0)
            self.assertGreater(self.read().values["swiftlet_relay_cache_failures_total"], 0)
            if said:
                self.assertEqual(sum(said.split(":")[0] in line for line in relay.output), 1, str(relay))

    def test_a_certificate_of_somebody_else_or_for_somebody_else_is_refused(self):
        with Bench() as files:
            stranger = authority(files.path / "stranger")
            redis = Redis(files).secure().start()
            self.check_closed(redis.url(), "--redis-ca", stranger, said="its certificate is not good")
            self.check_closed(redis.url(), said="its certificate is not good")
            other = Redis(files).secure(names="DNS:elsewhere.example").start_quietly()
            self.check_closed(other.url(), "--redis-ca", other.authorities, said="its certificate is not good: .*mismatch")

    def test_tls_and_none_do_not_meet(self):
        with Bench() as files:
            plain = Redis(files).start()
            self.check_closed(plain.url().replace("redis:", "rediss:"), said="does not answer; calls go on without it")
            secure = Redis(files).secure().start()
            self.check_closed(secure.url().replace("rediss:", "redis:"), said="does not answer")

    def test_wrong_passwords_and_unknown_users_stay_outside(self):
        with Bench() as files:
            redis = Redis(files, "--requirepass", "right").start()
            for credentials, said in (("", "NOAUTH"), (":wrong@", "WRONGPASS"), ("nobody:right@", "WRONGPASS")):
                self.check_closed(redis.url(credentials=credentials), said=f"it says: {said}")

    def test_a_bad_authority_is_told_at_the_start(self):
        with Bench() as bench:
            empty = bench.path / "empty.pem"
            empty.write_text("no certificate\n")
            for path, words in ((empty, "no certificate in PEM"), (bench.path / "missing", "cannot read")):
                relay = self.relay(bench, "--redis", "rediss://user:hunter2@127.0.0.1", "--redis-ca", path, ready=False)
                self.assertEqual(relay.wait(), 2)
                self.assertRegex("".join(relay.output), f"--redis-ca: .*{words}")
                self.assertNotIn("hunter2", "".join(relay.output))

    def test_nonsense_at_every_byte(self):
        """Right answers up to some byte, and noise from there on; noise from the first byte; a talker that never ends."""
        chance = random.Random(5)

        def right_until(place):
            def speak(connection):
                said = 0
                while connection.recv(65_536):
                    answer = b"+PONG\r\n" if said == 0 else b"+OK\r\n" * 8 + b"$-1\r\n" * 8
                    noise = bytes(chance.randrange(256) for _ in range(64))
                    part = (answer + noise)[:len(answer)] if said + len(answer) <= place else answer[:max(0, place - said)] + noise
                    connection.sendall(part)
                    said += len(answer)
            return speak

        def endless(connection):
            while True:
                connection.sendall(bytes(chance.randrange(256) for _ in range(4096)))

        def promises(connection):
            connection.recv(65_536)
            connection.sendall(b"+PONG\r\n" + b"$2147483647\r\n" + bytes(200_000))
            connection.recv(1)

        def nested(connection):
            connection.recv(65_536)
            connection.sendall(b"+PONG\r\n" + b"*1\r\n" * 10_000)
            connection.recv(1)

        places = [*range(0, 24), 40, 60, 63] if LONG else [0, 3, 7, 9, 20]
        with Bench() as bench:
            for speak in [endless, promises, nested, *map(right_until, places)]:
                with Babbler(speak) as babbler:
                    relay = self.relay(bench, "--redis", f"redis://127.0.0.1:{babbler.port}")
                    load = bench.load(2 if not LONG else 3)
                    host, port = bench.public.rsplit(":", 1)
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                        for _ in range(30):
                            stranger.sendto(bytes([0x80, 111]) + bytes(50), (host, int(port)))
                            time.sleep(0.02)
                    report = Report(load)
                    self.assertEqual(report.total["lost"] + report.total["lost-back"], 0, speak.__name__)
                    self.assertGreaterEqual(babbler.connections, 1)
                    self.assertEqual(self.read().total("swiftlet_relay_flows_recalled_total"), 0)
                    relay.process.send_signal(signal.SIGTERM)
                    self.assertEqual(relay.wait(), 0)

    def test_a_drop_at_a_time(self):
        """A Redis behind a line of one byte a turn: too slow to be of use, and nobody is harmed."""
        def speak(connection):
            answers = b""
            while True:
                connection.settimeout(0.01)
                try:
                    if not connection.recv(65_536):
                        return
                    answers += b"+PONG\r\n" if not answers else b"+OK\r\n"
                except TimeoutError:
                    pass
                if answers:
                    connection.sendall(answers[:1])
                    answers = answers[1:] or b"\0"
                time.sleep(0.05)

        with Bench() as bench, Babbler(speak) as babbler:
            relay = self.relay(bench, "--redis", f"redis://127.0.0.1:{babbler.port}")
            report = Report(bench.load(5))
            self.assertEqual(report.total["lost"] + report.total["lost-back"], 0)
            self.assertIsNone(relay.process.poll())
