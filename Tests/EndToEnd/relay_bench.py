"""A relay by itself, and numbered packets through it: `swiftlet bench steady` is every client and the transceiver at once."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading

from harness import EXECUTABLE, START_TIMEOUT, wait_until

RELAY = EXECUTABLE.parent / "swiftlet-relay"


def free_port():
    """A port that is free for UDP and for TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Process:
    """A child whose standard output and error are kept, line by line."""

    def __init__(self, command, output=subprocess.PIPE, **options):
        """`output` is a file for what it says, which then is not kept."""
        self.command = [str(word) for word in command]
        self.output = []
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True, **options)
        self.pid = self.process.pid
        if self.process.stdout is None:
            self.reader = threading.Thread(target=lambda: None)
            self.reader.start()
            return
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip("\n"))

    def wait(self, timeout=30.0):
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self}") from None
        self.reader.join(2)
        return status

    def wait_for(self, pattern, timeout=START_TIMEOUT):
        """The first line that matches; what it has said when it ends before."""
        def found():
            for line in list(self.output):
                if re.search(pattern, line):
                    return line
            if self.process.poll() is not None:
                self.reader.join(2)
                for line in self.output:
                    if re.search(pattern, line):
                        return line
                raise AssertionError(f"it ended: {self}")
            return None
        return wait_until(found, lambda: f"'{pattern}' from {self}", timeout)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def metrics_url(self):
        """Where the kernel has put `--metrics 127.0.0.1:0`."""
        return re.search(r"http://\S+?(?=/metrics)", self.wait_for("metrics on http://"))[0]

    def __str__(self):
        return f"{' '.join(self.command)} (exit {self.process.poll()}):\n" + "\n".join(f"    {line}" for line in self.output[-40:])


class Bench:
    """A folder with keys and a table, addresses, and the processes that a test starts there."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="swiftlet-")
        self.path = pathlib.Path(self.folder.name)
        self.keys = self.path / "keys.json"
        subprocess.run([EXECUTABLE, "keys", "generate", "--out", self.keys], check=True, stderr=subprocess.DEVNULL)
        self.public, self.trunk, self.transceiver = (f"127.0.0.1:{free_port()}" for _ in range(3))
        (self.path / "transceivers").write_text(f"1 {self.transceiver}\n")
        self.started = []
        return self

    def __exit__(self, kind, error, trace):
        for process in self.started:
            if kind is not None:
                print(process)
            process.kill()
        self.folder.cleanup()

    @property
    def arguments(self):
        return ["--listen", self.public, "--trunk", self.trunk, "--key-file", self.keys, "--cluster", 1, "--relay-id", 1,
                "--transceivers", f"table:{self.path}/transceivers", "--workers", 2, "--flows", 16384]

    def relay(self, *arguments, folder=True, ready=True, launcher=(), **options):
        words = [RELAY, *self.arguments, *arguments]
        if folder:
            words += ["--runtime-folder", self.path / "run"]
        process = Process([*launcher, *words], **options)
        self.started.append(process)
        if ready:
            process.wait_for("^swiftlet-relay ready")
        return process

    def load(self, seconds, flows=200):
        """Packets of `flows` calls through the relay; it returns when they flow."""
        process = Process([EXECUTABLE, "bench", "steady", "--relay", self.public, "--trunk", self.transceiver,
                           "--key-file", self.keys, "--flows", flows, "--seconds", seconds])
        self.started.append(process)
        process.wait_for("^second 1 ")
        return process


class Report:
    """What `bench steady` has said."""

    def __init__(self, load):
        if load.wait(120) != 0:
            raise AssertionError(str(load))
        self.seconds = [self._numbers(line) for line in load.output if line.startswith("second ")]
        self.total = next(self._numbers(line) for line in load.output if line.startswith("total "))

    def gap(self, seconds):
        return max(self.seconds[second - 1]["gap"] for second in seconds)

    @staticmethod
    def _numbers(line):
        return {name: float(number) for name, number in re.findall(r"([a-z-]+) (-?[0-9.]+)", line)}


def child(keeper, name="relay-worker"):
    """The process id of the keeper's worker or spare; None while there is none."""
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            head, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        if int(fields[1]) == keeper.pid and head.partition("(")[2] == name and fields[0] not in "ZX":
            return int(entry.name)
    return None


def kill_worker(keeper):
    """Kills the worker, and waits until another has its place."""
    worker = wait_until(lambda: child(keeper), "a worker")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: child(keeper) not in (None, worker), "another worker")
    return worker
