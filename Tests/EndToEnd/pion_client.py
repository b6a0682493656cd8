"""A caller made of Pion (Debian's packages of it): audio, and a data channel whose SCTP is Pion's own. `Tests/Peers/pion_peer.go` is its other half."""

import json
import pathlib
import subprocess
import threading

from harness import REPOSITORY, wait_until

SOURCE = REPOSITORY / "Tests" / "Peers" / "pion_peer.go"
PROGRAM = REPOSITORY / ".build" / "pion-peer"


def build():
    """The program; made when it is older than its source."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(exist_ok=True)
        subprocess.run([SOURCE.with_name("build-pion.sh"), SOURCE, PROGRAM], check=True)
    return PROGRAM


class PionCall:
    """A call with one channel for events; what comes over it is in `texts`."""

    def __init__(self, server, path="/v1/realtime/calls"):
        self.url = server.url + path
        self.texts, self.states, self.errors = [], [], []
        self.packets = 0
        self.is_open = False

    def __enter__(self):
        self.process = subprocess.Popen([build(), self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *failure):
        self.hangup()
        self.process.stdout.close()

    def hangup(self):
        """The peer closes: DTLS says goodbye, signaling does not."""
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)

    def connect(self, timeout=20.0):
        wait_until(lambda: "connected" in self.states and self.is_open, lambda: f"a connection and a channel: {self.states} {self.errors}", timeout)

    def send(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def _read(self):
        for line in self.process.stdout:
            for name, value in json.loads(line).items():
                if name == "text":
                    self.texts.append(value)
                elif name == "state":
                    self.states.append(value)
                elif name == "packets":
                    self.packets = value
                elif name == "open":
                    self.is_open = True
                else:
                    self.errors.append(value)
