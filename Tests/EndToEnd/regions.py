"""Two regions on one machine: an ingress relay of one cluster, two relays of another, and that one's transceiver. Real processes."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile

from harness import EXECUTABLE, Metrics, Server, request, wait_until
from relay_bench import Process, free_port

INGRESS_CLUSTER, CLUSTER = 1, 7


class Relay:
    def __init__(self, number, cluster):
        self.number = number
        self.cluster = cluster
        self.public = f"127.0.0.1:{free_port()}"
        self.trunk = f"127.0.0.1:{free_port()}"
        self.process = None

    def start(self, folder):
        # Each in a session of its own: its death is that of keeper and workers.
        table = "transceivers" if self.cluster == CLUSTER else "no-transceivers"
        self.process = Process([
            EXECUTABLE.parent / "swiftlet-relay", "--listen", self.public, "--trunk", self.trunk, "--metrics", "127.0.0.1:0",
            "--key-file", folder / "keys.json", "--cluster", self.cluster, "--relay-id", self.number, "--relays", folder / "relays",
            "--transceivers", f"table:{folder / table}", "--workers", 2, "--flows", 4096,
        ], start_new_session=True)
        self.process.wait_for("^swiftlet-relay ready")
        self.url = self.process.metrics_url()

    def kill(self):
        if self.process and self.process.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.process.wait()

    def metrics(self):
        return Metrics(request(self.url, "GET", "/metrics").text)

    def passed_on(self):
        return self.metrics().total("^swiftlet_relay_trunk_frames_passed_on_total")


class Regions(Server):
    """`ingress` is what clients are told; calls live behind `cluster`."""

    def __init__(self, *arguments):
        self.arguments = arguments
        self.ingress = Relay(1, INGRESS_CLUSTER)
        self.cluster = [Relay(11, CLUSTER), Relay(12, CLUSTER)]
        self.relays = [self.ingress, *self.cluster]

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="swiftlet-")
        self.folder = pathlib.Path(self.temporary.name)
        subprocess.run([EXECUTABLE, "keys", "generate", "--out", self.folder / "keys.json"], check=True, stderr=subprocess.DEVNULL)
        trunk = f"127.0.0.1:{free_port()}"
        signaling = f"127.0.0.1:{free_port()}"
        (self.folder / "transceivers").write_text(f"1 {trunk}\n")
        (self.folder / "no-transceivers").write_text("")
        (self.folder / "relays").write_text("".join(f"{relay.number} {relay.cluster} {relay.trunk}\n" for relay in self.relays))
        try:
            for relay in self.relays:
                relay.start(self.folder)
            self.transceiver = Process([
                EXECUTABLE.parent / "swiftlet-transceiver", "--signaling", signaling, "--trunk", trunk, "--advertise", self.ingress.public,
                "--key-file", self.folder / "keys.json", "--cluster", CLUSTER, "--id", 1, "--backend", "embedded:echo", "--workers", 2,
                *self.arguments,
            ], start_new_session=True)
            self.url = f"http://{signaling}"
            self.transceiver.wait_for("^swiftlet-transceiver ready")
        except BaseException:
            self.__exit__(True)
            raise
        return self

    def __exit__(self, kind=None, *failure):
        for relay in self.relays:
            if kind is not None and relay.process:
                print(relay.process)
            relay.kill()
        if hasattr(self, "transceiver"):
            if kind is not None:
                print(self.transceiver)
            self.transceiver.kill()
        self.temporary.cleanup()

    def carrier(self):
        """The relay of the cluster that frames go through now."""
        before = {relay.number: relay.passed_on() for relay in self.alive()}

        def growing():
            grown = [relay for relay in self.alive() if relay.passed_on() > before[relay.number] + 20]
            return grown[0] if len(grown) == 1 else None
        return wait_until(growing, "one relay of the cluster that passes frames on")

    def rotate_trunk_key(self, step):
        """`swiftlet keys trunk STEP`, then SIGHUP to one program after the other; yields after each."""
        subprocess.run([EXECUTABLE, "keys", "trunk", step, "--key-file", self.folder / "keys.json"], check=True)
        for process in [self.transceiver, *(relay.process for relay in self.relays)]:
            before = len(process.output)
            process.process.send_signal(signal.SIGHUP)
            wait_until(lambda: any(re.search(r"read again: |hint keys.* read from", line) for line in process.output[before:]),
                       lambda: f"other keys in {process}")
            yield

    def frames_with_wrong_tags(self):
        relays = sum(relay.metrics().total(r'^swiftlet_relay_dropped_total\{[^}]*reason="trunk_tag"') for relay in self.relays)
        return relays + self.metrics().total(r'^swiftlet_transceiver_dropped_total\{what="frame",reason="wrong_tag"')

    def frames_under_the_accepted_key(self):
        """Of the transceiver, the ingress relay, and both relays of the cluster."""
        name = "trunk_frames_accepted_key_total"
        relays = [relay.metrics().total(f"^swiftlet_relay_{name}") for relay in self.relays]
        return self.metrics().total(f"^swiftlet_transceiver_{name}"), relays[0], relays[1] + relays[2]

    def alive(self):
        return [relay for relay in self.cluster if relay.process.process.poll() is None]
