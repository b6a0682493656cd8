"""The servers under test, and the small tools that every test needs.

`Swiftlet` starts `swiftlet up` as an operator would, reads from its output where it listens, and stops it by SIGINT.
`request` speaks HTTP without a library's opinions, because the tests also send what a library would refuse to send.
"""

import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.parse

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Where screenshots and logs of failed tests go.
ARTIFACTS = pathlib.Path(os.environ.get("SWIFTLET_TEST_ARTIFACTS", REPOSITORY / ".build" / "e2e"))
EXECUTABLE = pathlib.Path(os.environ.get("SWIFTLET_EXECUTABLE", REPOSITORY / ".build" / "release" / "swiftlet"))

# Generous on purpose: a test that waits is done as soon as what it waits for is there.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0


class TimedOut(AssertionError):
    pass


def wait_until(condition, what, timeout=15.0, interval=0.05):
    """Returns the first true value of `condition()`. `what` may be a callable, asked only when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOut(f"not within {timeout:g} s: {what() if callable(what) else what}")
        time.sleep(interval)


def outside_addresses():
    """Addresses of this machine that a browser uses by default: IPv4 and not loopback."""
    import ifaddr

    return [
        address.ip for adapter in ifaddr.get_adapters() for address in adapter.ips
        if isinstance(address.ip, str) and not address.ip.startswith(("127.", "169.254."))
    ]


# HTTP


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:300]!r}"


def request(base, method, path, body=None, headers=None, timeout=10.0):
    """One request on its own connection. `path` may be a whole URL, as in a Location header."""
    url = urllib.parse.urlsplit(urllib.parse.urljoin(base, path))
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)
    try:
        target = url.path + (f"?{url.query}" if url.query else "")
        connection.request(method, target, body=body, headers=headers or {})
        response = connection.getresponse()
        return Response(response.status, response.headers, response.read())
    finally:
        connection.close()


# Metrics

SAMPLE_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?\s+(\S+)")
TYPE_LINE = re.compile(r"^# TYPE (\S+) (\S+)")


class Metrics:
    """One reading of a Prometheus text page: `values["name{label=\"x\"}"]`, and the type of each family."""

    def __init__(self, text=""):
        self.values = {}
        self.types = {}
        for line in text.splitlines():
            if match := TYPE_LINE.match(line):
                self.types[match[1]] = match[2]
            elif match := SAMPLE_LINE.match(line):
                self.values[match[1] + (match[2] or "")] = float(match[3])

    def total(self, pattern):
        """Sum of all samples whose name with labels matches."""
        return sum(value for name, value in self.values.items() if re.search(pattern, name))

    def family(self, sample):
        return sample.split("{")[0]

    def growth_since(self, earlier):
        """What counted up since `earlier`, by sample."""
        return {
            name: value - earlier.values.get(name, 0)
            for name, value in self.values.items()
            if value > earlier.values.get(name, 0) and self.types.get(self.family(name)) == "counter"
        }

    @property
    def calls(self):
        """Calls and sessions that exist now, in every part that says so."""
        gauges = [
            value for name, value in self.values.items()
            if re.search(r"_(calls|sessions)(\{|$)", name) and self.types.get(self.family(name)) == "gauge"
        ]
        if not gauges:
            raise AssertionError("the metrics have no gauge named …_calls or …_sessions")
        return sum(gauges)


# Servers


class Server:
    """What tests need from a server: where it is, and what it counts."""

    url = None            # http://HOST:PORT of signaling, the page and the metrics
    metrics_urls = ()

    def request(self, method, path, body=None, headers=None, timeout=10.0):
        return request(self.url, method, path, body, headers, timeout)

    def metrics(self):
        pages = [request(url, "GET", url).text for url in (f"{self.url}/metrics", *self.metrics_urls)]
        return Metrics("\n".join(pages))

    def wait_for_no_calls(self, timeout=10.0):
        wait_until(lambda: self.metrics().calls == 0, lambda: f"calls are still {self.metrics().calls:g}", timeout)


class Swiftlet(Server):
    """`swiftlet up` as a child. Use it in a `with`: leaving it is the Ctrl-C, and asserts that all of it ended well."""

    def __init__(self, *arguments, signaling="127.0.0.1:0", listen="127.0.0.1:0", workers=2, backend="embedded:echo"):
        self.command = [
            str(EXECUTABLE), "up", "--signaling", signaling, "--listen", listen, "--workers", str(workers),
            "--metrics", "127.0.0.1:0", "--backend", backend, *arguments,
        ]
        self.output = []
        self.relay = None     # (host, port), if the output names it
        self.ended_by_itself = False  # set by a test that has asked for it

    def __enter__(self):
        if not EXECUTABLE.exists():
            raise AssertionError(f"{EXECUTABLE} is missing: run 'swift build -c release' first, or 'make test', which does")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read_output, daemon=True)
        self.reader.start()
        try:
            wait_until(self._find_addresses, lambda: f"'signaling http://…' in the output of {self._report()}", START_TIMEOUT)
            wait_until(self._is_ready, lambda: f"/readyz answering 200\n{self._report()}", START_TIMEOUT)
        except BaseException:
            self._kill()
            raise
        self.pids = self.serving()
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            # The test failed already: stop without hiding its error behind ours.
            try:
                self.stop()
            except AssertionError as second:
                print(f"while stopping after a failure: {second}")
            print(self._report())
        else:
            self.stop()

    def stop(self):
        alive = self.process.poll() is None
        if alive:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"SIGINT did not end it within {STOP_TIMEOUT:g} s: {self._report()}") from None
        left = self._session_processes()
        self._kill()
        if not alive and not self.ended_by_itself:
            raise AssertionError(f"it ended by itself: {self._report()}")
        if self.process.returncode != 0:
            raise AssertionError(f"it did not end with 0: {self._report()}")
        if left:
            raise AssertionError(f"it ended, but left processes behind: {left}")

    def processes(self):
        """Process id → program of everything that was started, the supervisor included."""
        return self._session_processes()

    def serving(self):
        """The same without the relay's spare worker, which comes and goes."""
        return {pid: name for pid, name in self.processes().items() if name not in ("relay-spare", "exe")}

    def sockets(self):
        """(protocol, host, port) of every UDP socket and listening TCP socket of these processes."""
        inodes = set()
        for pid in self.processes():
            try:
                for descriptor in os.scandir(f"/proc/{pid}/fd"):
                    target = os.readlink(descriptor.path)
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
            except OSError:
                continue
        found = set()
        for table in ("udp", "udp6", "tcp", "tcp6"):
            for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                listening = table.startswith("udp") or fields[3] == "0A"
                if fields[9] in inodes and listening:
                    host, port = fields[1].split(":")
                    if int(port, 16):
                        found.add((table[:3], _address(host), int(port, 16)))
        return found

    def _session_processes(self):
        """Everything in the session that the child leads: children stay in it even when their parent dies."""
        found = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    stat = pathlib.Path(entry.path, "stat").read_text()
                except OSError:
                    continue
                name, _, rest = stat.partition("(")[2].rpartition(")")
                fields = rest.split()
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    found[int(entry.name)] = name
        return found

    def _kill(self):
        for pid in self._session_processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        wait_until(lambda: not self._session_processes(), "the end of processes that were killed")
        self.reader.join(5)

    def _read_output(self):
        with self.process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip("\n"))

    def _find_addresses(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended at start: {self._report()}")
        text = "\n".join(self.output)
        if relay := re.search(r"\brelay\b[^\n]*?(\[[0-9a-fA-F:.]+\]|\d+\.\d+\.\d+\.\d+):(\d+)", text):
            self.relay = (relay[1].strip("[]"), int(relay[2]))
        self.metrics_urls = tuple(set(re.findall(r"\bmetrics\b[^\n]*?(http://\S+)", text)) - {f"{self.url}/metrics"})
        if found := re.search(r"\bsignaling\b[^\n]*?(http://[^\s/]+)", text):
            self.url = found[1]
        return self.url

    def _is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended at start: {self._report()}")
        try:
            return self.request("GET", "/readyz").status == 200
        except OSError:
            return False

    def _report(self):
        tail = "\n".join(f"    {line}" for line in self.output[-60:])
        return f"{' '.join(self.command)} (exit {self.process.poll()}):\n{tail}"


def _address(hexadecimal):
    """An address as /proc/net writes it: words of 32 bits in the machine's byte order."""
    import ipaddress

    words = [bytes.fromhex(hexadecimal[i:i + 8])[::-1] for i in range(0, len(hexadecimal), 8)]
    return str(ipaddress.ip_address(b"".join(words)))
