"""Three regions in network namespaces, real programs in them, and wan.c as the world between. See README.md; run.sh makes the room for it.

This process is in the client's namespace. Whatever it opens goes through the world; `Site.inside` opens it elsewhere.
"""

import ctypes
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import aioice.ice

from aiortc_client import AiortcCall
from chromium import Chromium
from harness import EXECUTABLE, REPOSITORY, Metrics, Server, request, wait_until
from relay_bench import Process

# run.sh's shell has it ignored in what it starts beside itself.
signal.signal(signal.SIGINT, signal.default_int_handler)
LONG = os.environ.get("SWIFTLET_LAB") == "long"
WAN = REPOSITORY / ".build" / "lab" / "wan"
CLOCK_SHIFT = WAN.with_name("clock_shift.so")   # Tests/EndToEnd/clock_shift.c
CLONE_NEWNET = 0x40000000

# Latitude and longitude. Two ingresses, which are clusters of their own without transceivers, and two clusters.
INGRESSES = {"ams": (2, 52.31, 4.76), "iad": (3, 38.95, -77.45)}
CLUSTERS = {"fra": (7, 50.11, 8.68), "nrt": (8, 35.77, 140.39)}
# Where the client lives, by turns, and the ingress that is nearest.
PLACES = {
    "Berlin": (10, 52.52, 13.40, "DE", "ams"), "Boston": (11, 42.36, -71.06, "US", "iad"), "Lisbon": (12, 38.72, -9.14, "PT", "ams"),
    "Bogota": (13, 4.71, -74.07, "CO", "iad"), "Nairobi": (14, -1.29, 36.82, "KE", "ams"),
    "Los Angeles": (15, 34.05, -118.24, "US", "iad"),
}
EDGE = 5   # the proxy in front of signaling, always beside the client
BACKBONE_JITTER, ACCESS_JITTER = 0.5, 3   # milliseconds


def delay(here, there, extra=0.0):
    """Milliseconds one way: light in glass at two thirds of its speed, on a way half as long again as the great circle."""
    (a, b), (c, d) = [[math.radians(x) for x in place] for place in (here, there)]
    cosine = math.sin(a) * math.sin(c) + math.cos(a) * math.cos(c) * math.cos(b - d)
    return 6371 * math.acos(max(-1, min(1, cosine))) / 200 * 1.5 + 0.2 + extra


def sh(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.stderr}")


class Site:
    """A namespace with 10.77.NUMBER.0/24."""

    def __init__(self, name, number, hosts):
        self.name, self.number, self.hosts = name, number, hosts
        self.file = f"/run/netns/{name}"

    def address(self, host):
        return f"10.77.{self.number}.{host}"

    def make(self):
        sh("ip", "netns", "add", self.name)
        sh("ip", "-n", self.name, "link", "set", "lo", "up")

    def connect(self):
        for host in self.hosts:
            sh("ip", "-n", self.name, "address", "add", f"{self.address(host)}/32", "dev", "wan0")
        sh("ip", "-n", self.name, "link", "set", "wan0", "up")
        sh("ip", "-n", self.name, "route", "add", "default", "dev", "wan0", "src", self.address(self.hosts[0]))

    def inside(self, function):
        """What the function returns, whose sockets are of this site. A thread is what has a namespace."""
        result = []

        def run():
            with open(self.file) as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                    result.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                result.append(function())
            except Exception as error:
                result.append(error)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def start(self, *command, **options):
        """A process there, the leader of a session of its own."""
        return Process(["nsenter", f"--net={self.file}", *command], start_new_session=True, **options)


class Part(Server):
    """One of our programs at a site."""

    def __init__(self, lab, site, program, host):
        self.lab, self.site, self.program, self.host = lab, site, program, host
        self.process = None
        self.environment = {}
        self.arguments = []

    def start(self, ready=True):
        environment = {**os.environ, **self.environment}
        self.process = self.site.start(EXECUTABLE.parent / self.program, *self.arguments, env=environment)
        if ready:
            self.process.wait_for(f"^{self.program} ready")

    def kill(self):
        if self.process and self.process.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.process.wait()

    @property
    def is_alive(self):
        return self.process.process.poll() is None

    def lines(self, pattern):
        return [line for line in self.process.output if re.search(pattern, line)]

    def metrics(self):
        return self.site.inside(lambda: Metrics(request(self.url, "GET", "/metrics").text))

    def request(self, method, path, body=None, headers=None, timeout=10.0):
        return self.site.inside(lambda: request(self.url, method, path, body, headers, timeout))


class Relay(Part):
    def __init__(self, lab, site, number, cluster, host, table):
        super().__init__(lab, site, "swiftlet-relay", host)
        self.number, self.cluster = number, cluster
        self.public, self.trunk = f"{site.address(host)}:3478", f"{site.address(host)}:3479"
        self.url = f"http://127.0.0.1:{9090 + host}"
        self.table = lab.folder / table
        self.arguments = [
            "--listen", self.public, "--trunk", self.trunk, "--metrics", f"127.0.0.1:{9090 + host}", "--key-file", lab.keys,
            "--cluster", cluster, "--relay-id", number, "--relays", lab.folder / "relays", "--transceivers",
            f"table:{self.table}", "--workers", 1, "--flows", 4096]

    def passed_on(self):
        return self.metrics().total("^swiftlet_relay_trunk_frames_passed_on_total")

    def dropped(self, reason):
        return self.metrics().total(rf'^swiftlet_relay_dropped_total\{{reason="{reason}"')

    def read_again(self):
        said = len(self.process.output)
        self.process.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("read again" in line for line in self.process.output[said:]), lambda: str(self.process))


class Transceiver(Part):
    def __init__(self, lab, site, number, cluster, host, advertise):
        super().__init__(lab, site, "swiftlet-transceiver", host)
        self.number, self.cluster = number, cluster
        self.trunk = f"{site.address(host)}:3480"
        self.signaling = f"{site.address(host)}:8080"
        self.url = f"http://{self.signaling}"
        self.edge_port = 8000 + number
        self.arguments = [
            "--signaling", self.signaling, "--allow-anonymous", "--trunk", self.trunk, "--advertise", advertise, "--key-file", lab.keys,
            "--cluster", cluster, "--id", number, "--workers", 1, "--backend", "embedded:echo", "--echo-delay", 0, "--ingress-file",
            lab.folder / "ingresses", "--trusted-proxies", f"10.77.{EDGE}.1", "--members", f"file:{lab.folder / 'members'}"]


class Door(Server):
    """A transceiver's signaling as clients reach it: through the proxy that is beside them, which tells where they are."""

    def __init__(self, transceiver):
        self.url = f"http://10.77.{EDGE}.1:{transceiver.edge_port}"
        self.transceiver = transceiver

    def metrics(self):
        return self.transceiver.metrics()


class Lab:
    """Leaving the `with` ends everything."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="swiftlet-lab-")
        self.folder = pathlib.Path(self.temporary.name)
        self.keys = self.folder / "keys"
        sh(EXECUTABLE, "keys", "generate", "--out", self.keys)
        self.sites = {name: Site(name, number, [1]) for name, (number, *_) in INGRESSES.items()}
        self.sites |= {name: Site(name, number, [1, 2, 11, 12]) for name, (number, *_) in CLUSTERS.items()}
        self.sites["edge"] = Site("edge", EDGE, [1])
        self.coordinates = {name: row[1:3] for name, row in (INGRESSES | CLUSTERS | PLACES).items()}
        self.parts, self.others = [], []
        try:
            self._lay_cables()
            self._write_files()
            for part in self.parts:
                part.start(ready=False)
            for part in self.parts:
                part.process.wait_for(f"^{part.program} ready", 60)
            self._start_edge()
            self.move_to("Berlin")
        except BaseException:
            self.__exit__(True)
            raise
        return self

    def __exit__(self, kind=None, *failure):
        for part in self.parts:
            if kind is not None and part.process:
                print(part.process)
            part.kill()
        for process in self.others:
            if kind is not None:
                print(process)
            process.kill()
        if hasattr(self, "wan"):
            self.wan.stdin.close()
            self.wan.wait()
        for name in os.listdir("/run/netns"):
            sh("ip", "netns", "delete", name)
        self.temporary.cleanup()

    # The world

    def _lay_cables(self):
        for site in self.sites.values():
            site.make()
        places = ",".join(str(row[0]) for row in PLACES.values())
        self.wan = subprocess.Popen(
            [WAN, f"{places}@/proc/self/ns/net", *(f"{site.number}@{site.file}" for site in self.sites.values())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if self.wan.stdout.readline() != "ready\n":
            raise AssertionError("wan did not start")
        for site in self.sites.values():
            site.connect()
        sh("ip", "link", "set", "wan0", "up")
        names = [*INGRESSES, *CLUSTERS]
        for i, a in enumerate(names):
            for b in names[i + 1:]:
                self.path(a, b, delay(self.coordinates[a], self.coordinates[b]), BACKBONE_JITTER)

    def tell(self, command):
        self.wan.stdin.write(command + "\n")
        answer = self.wan.stdout.readline().strip()
        if not answer.startswith(("ok", "stats")):
            raise AssertionError(f"{command}: {answer}")
        return answer

    def number(self, name):
        return PLACES[name][0] if name in PLACES else self.sites[name].number

    def path(self, a, b, milliseconds, jitter=0, loss=0):
        self.tell(f"path {self.number(a)} {self.number(b)} {milliseconds:.3f} {jitter} {loss}")

    def world(self):
        """What has passed between sites, and how late, since the last time."""
        return {name: int(value) for name, value in re.findall(r"(\S+) (\d+)", self.tell("stats")[6:])}

    def move_to(self, place, access=5.0, jitter=ACCESS_JITTER):
        """The client lives there from now on, behind an access network, and the proxy's nearest edge is beside it."""
        self.place = place
        address = f"10.77.{PLACES[place][0]}.1"
        sh("ip", "address", "flush", "dev", "wan0")
        sh("ip", "address", "add", f"{address}/32", "dev", "wan0")
        sh("ip", "route", "replace", "default", "dev", "wan0", "src", address)
        for name in (*INGRESSES, *CLUSTERS):
            self.path(place, name, delay(self.coordinates[place], self.coordinates[name], access), jitter)
            self.path("edge", name, delay(self.coordinates[place], self.coordinates[name]), BACKBONE_JITTER)
        self.path(place, "edge", access + 1, 0)
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [address] * use_ipv4
        return address

    # What lives in it

    def _write_files(self):
        lines, rows, members = [], [], []
        self.relays, self.transceivers, self.ingress = {}, {}, {}
        (self.folder / "nobody").write_text("")
        for name, (number, latitude, longitude) in INGRESSES.items():
            relay = Relay(self, self.sites[name], number, number, 1, "nobody")
            self.ingress[name] = self.relays[number] = relay
            rows.append(f"{name} {relay.public} {latitude} {longitude} {number} {number}@{relay.trunk}\n")
        for name, (cluster, *_) in CLUSTERS.items():
            own = [Relay(self, self.sites[name], 10 * cluster + host, cluster, host, f"{name}-{host}") for host in (1, 2)]
            self.relays |= {relay.number: relay for relay in own}
            for host in (11, 12):
                transceiver = Transceiver(self, self.sites[name], 10 * cluster + host - 10, cluster, host, own[0].public)
                self.transceivers[transceiver.number] = transceiver
                members.append(f"id={transceiver.number} cluster={cluster} signaling={transceiver.signaling}\n")
            table = [f"{one.number} {one.trunk}\n" for one in self.transceivers.values() if one.cluster == cluster]
            for relay in own:
                relay.table.write_text("".join(table))
        lines = [f"{relay.number} {relay.cluster} {relay.trunk}\n" for relay in self.relays.values()]
        (self.folder / "relays").write_text("".join(lines))
        (self.folder / "ingresses").write_text("".join(rows))
        (self.folder / "members").write_text("".join(members))
        self.parts = [*self.relays.values(), *self.transceivers.values()]
        self.doors = {number: Door(transceiver) for number, transceiver in self.transceivers.items()}

    def _start_edge(self):
        ports = {door.transceiver.edge_port: door.transceiver.signaling for door in self.doors.values()}
        places = {f"10.77.{number}.1": f"{latitude},{longitude},{country}" for number, latitude, longitude, country, _ in PLACES.values()}
        self.edge = self.sites["edge"].start(
            sys.executable, pathlib.Path(__file__).with_name("edge.py"), f"10.77.{EDGE}.1",
            *(f"{port}={signaling}" for port, signaling in ports.items()), *(f"{ip}={place}" for ip, place in places.items()))
        self.others.append(self.edge)
        self.edge.wait_for("^edge ready")

    def skew(self, name, seconds):
        """Starts the programs of a site again with a clock that is wrong by so much; 0: right."""
        file = self.folder / f"shift-{name}"
        file.write_bytes(int(seconds).to_bytes(8, "little", signed=True))
        for part in self.parts:
            if part.site.name == name:
                part.environment = {"LD_PRELOAD": str(CLOCK_SHIFT), "CLOCK_SHIFT_FILE": str(file)} if seconds else {}
                part.kill()
                part.start()

    # Looking at it

    def carrier(self, cluster):
        """The relay of the cluster that frames go through now."""
        own = [relay for relay in self.relays.values() if relay.cluster == cluster and relay.is_alive]
        before = {relay.number: relay.passed_on() for relay in own}

        def growing():
            grown = [relay for relay in own if relay.passed_on() > before[relay.number] + 20]
            return grown[0] if len(grown) == 1 else None
        return wait_until(growing, "one relay of the cluster that passes frames on", 30)


class LabCall(AiortcCall):
    """A call of aiortc that notes when each packet of audio came."""

    def __init__(self, door, headers={}, **options):
        super().__init__(door, **options)
        self.headers = headers

    def _post(self, offer):
        self.posted = time.monotonic()
        response = self.server.request("POST", self.path, offer, {"Content-Type": "application/sdp", **self.headers})
        self.answered = time.monotonic()
        self.arrivals = self.note_arrivals()
        return response

    @property
    def ingresses(self):
        return self.response.headers["Swiftlet-Ingress"]

    @property
    def remote(self):
        """The relay's address that this call uses."""
        return self._nominated().remote_candidate.host


def browser(lab, *flags):
    """Chromium, to which the edge's pages are secure, so that they get a microphone."""
    origins = ",".join(door.url for door in lab.doors.values())
    return Chromium(f"--unsafely-treat-insecure-origin-as-secure={origins}", *flags, loopback=False)
