"""One relay and several transceivers, each a process of its own, as an operator starts them on many machines."""

import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from harness import EXECUTABLE, START_TIMEOUT, STOP_TIMEOUT, Metrics, Server, request, wait_until

BIN = EXECUTABLE.parent


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """One process; its output as lines."""

    def __init__(self, name, *arguments):
        self.command = [str(BIN / name), *map(str, arguments)]
        self.output = []

    def start(self, ready):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: self.find(ready) or self._dead(), lambda: f"'{ready}' from {self.report()}", START_TIMEOUT)
        return self

    def find(self, pattern):
        return next((match for line in list(self.output) if (match := re.search(pattern, line))), None)

    def _dead(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended at start: {self.report()}")

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.output.append(line.rstrip("\n"))

    def stop(self, how=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.report()}") from None

    def report(self):
        return f"{' '.join(self.command)} (exit {self.process.poll()}):\n" + "\n".join(self.output[-40:])


class Transceiver(Program, Server):
    def __init__(self, *arguments):
        super().__init__("swiftlet-transceiver", *arguments)

    def start(self):
        super().start("transceiver ready")
        self.url = self.find(r"signaling (http://[^\s/]+)")[1]
        return self


class Fleet:
    """Transceivers 1… behind one relay; leaving the `with` ends them all. `place` is a folder for a test's own files."""

    def __init__(self, transceivers=1, arguments=(), relay_arguments=()):
        self.count = transceivers
        self.arguments = arguments
        self.relay_arguments = relay_arguments

    def __enter__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="swiftlet-fleet-"))
        keys = self.place / "keys.json"
        subprocess.run([str(EXECUTABLE), "keys", "generate", "--out", str(keys)], check=True, stdout=subprocess.DEVNULL)
        self.relay_port = free_port(socket.SOCK_DGRAM)
        self.trunks = [free_port(socket.SOCK_DGRAM) for _ in range(self.count)]
        self.signalings = [free_port(socket.SOCK_STREAM) for _ in range(self.count)]
        table = self.place / "transceivers.txt"
        table.write_text("".join(f"{i + 1} 127.0.0.1:{port}\n" for i, port in enumerate(self.trunks)))
        self.programs = []
        try:
            self.relay = Program(
                "swiftlet-relay", "--listen", f"127.0.0.1:{self.relay_port}", "--trunk", "127.0.0.1:0", "--key-file", keys,
                "--transceivers", f"table:{table}", "--workers", 1, "--relay-id", 7, *self.relay_arguments)
            self.programs.append(self.relay)
            self.relay.start("ready")
            extra = self.arguments(self) if callable(self.arguments) else self.arguments
            self.transceivers = []
            for number in range(1, self.count + 1):
                transceiver = Transceiver(
                    "--signaling", f"127.0.0.1:{self.signalings[number - 1]}", "--trunk", f"127.0.0.1:{self.trunks[number - 1]}",
                    "--advertise", f"127.0.0.1:{self.relay_port}", "--key-file", keys, "--id", number, "--workers", 1, "--backend",
                    "embedded:echo", *extra)
                self.programs.append(transceiver)
                self.transceivers.append(transceiver.start())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, error, trace):
        for program in reversed(self.programs):
            if getattr(program, "process", None):
                program.stop()
                if kind is not None:
                    print(program.report())
        shutil.rmtree(self.place, ignore_errors=True)
