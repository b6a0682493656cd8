"""A caller made of GStreamer's webrtcbin, in a process of the system's Python (gstreamer_peer.py)."""

import json
import os
import pathlib
import subprocess
import tempfile
import threading

import numpy as np

from harness import wait_until
from tones import SAMPLE_RATE, TONE_HZ, dominant_frequency, is_tone

PYTHON = "/usr/bin/python3"
PEER = pathlib.Path(__file__).with_name("gstreamer_peer.py")


class GStreamerCall:
    def __init__(self, server, path="/v1/realtime/calls"):
        self.url = server.url + path
        self.events = []

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="swiftlet-gstreamer-")
        self.file = pathlib.Path(self.directory.name, "heard.pcm")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment["GST_REGISTRY"] = str(pathlib.Path(tempfile.gettempdir(), "swiftlet-gstreamer-registry"))
        self.process = subprocess.Popen(
            [PYTHON, str(PEER), self.url, str(TONE_HZ), str(self.file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        self.errors = []
        self.threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.events, json.loads), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors, str.rstrip), daemon=True),
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *failure):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self.threads:
            thread.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        self.directory.cleanup()

    def connect(self, timeout=30.0):
        wait_until(lambda: self._check() and self.state == "connected", lambda: f"connected: {self._report()}", timeout)

    @property
    def state(self):
        states = [event["connection"] for event in self.events if event["event"] == "state"]
        return states[-1] if states else "new"

    @property
    def frequency(self):
        """Of the last second that was heard."""
        if not self.file.exists():
            return None
        return dominant_frequency(np.fromfile(self.file, dtype="<i2")[-SAMPLE_RATE:] / 32768)

    def wait_for_tone(self, timeout=20.0):
        wait_until(
            lambda: self._check() and is_tone(self.frequency),
            lambda: f"{TONE_HZ:g} Hz in the echo, but {self.frequency}: {self._report()}", timeout,
        )

    def hangup(self):
        """The status with which the server answered."""
        self.process.stdin.write("hangup\n")
        self.process.stdin.flush()
        found = lambda: next((event["status"] for event in self.events if event["event"] == "hangup"), None)
        return wait_until(found, lambda: f"an answer to the hangup: {self._report()}", 10)

    def _check(self):
        for event in self.events:
            if event["event"] == "error":
                raise AssertionError(f"GStreamer: {event['message']}")
        if self.process.poll() is not None:
            raise AssertionError(f"GStreamer ended with {self.process.returncode}: {self._report()}")
        return True

    def _report(self):
        facts = [event for event in self.events if event["event"] not in ("offer", "answer")]
        return f"{facts} {self.errors[-10:]}"

    def _read(self, stream, into, convert):
        for line in stream:
            into.append(convert(line))
