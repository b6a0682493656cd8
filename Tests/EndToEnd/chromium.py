"""Headless Chromium through its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

from websockets.sync.client import connect as connect_websocket

from harness import wait_until
from page import BrowserError, Tab
from tones import write_samples, write_wave

EXECUTABLE = shutil.which("chromium") or shutil.which("google-chrome")


class Chromium:
    """A browser with a profile of its own. Its microphone is a file with the tone, which repeats; or `speech`, which does not:
    16-bit samples at 48 kHz, heard from when a page opens the microphone."""

    def __init__(self, *flags, microphone=True, loopback=True, speech=None):
        self.flags = [*flags, "--allow-loopback-in-peer-connection"] if loopback else flags
        self.microphone = microphone
        self.speech = speech

    def __enter__(self):
        if not EXECUTABLE:
            raise AssertionError("Chromium is not installed: apt-get install chromium")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="swiftlet-chromium-"))
        sound = self.directory / "microphone.wav"
        if self.speech is None:
            write_wave(sound)
        else:
            write_samples(sound, self.speech)
        media = ["--use-fake-ui-for-media-stream"]
        if self.microphone:
            once = "" if self.speech is None else "%noloop"
            media += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={sound}{once}"]
        self.log = open(self.directory / "log", "wb")
        self.process = subprocess.Popen(
            [
                EXECUTABLE, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                f"--user-data-dir={self.directory / 'profile'}", "--remote-debugging-port=0",
                "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-sync",
                "--disable-component-update", "--disable-default-apps", "--mute-audio",
                "--autoplay-policy=no-user-gesture-required",
                # A tab in the background must not be slowed down: two calls run in two tabs.
                "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
                "--disable-backgrounding-occluded-windows",
                *media, *self.flags, "about:blank",
            ],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
        )
        port_file = self.directory / "profile" / "DevToolsActivePort"
        self.tabs = []
        try:
            wait_until(lambda: port_file.exists() and "\n" in port_file.read_text(), "Chromium's DevTools port", 60)
            self.port = int(port_file.read_text().split("\n")[0])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure):
        for tab in self.tabs:
            tab.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def open(self, url):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=20) as response:
            target = json.load(response)
        tab = ChromiumTab(target["webSocketDebuggerUrl"])
        self.tabs.append(tab)
        tab.navigate(url)
        return tab


class ChromiumTab(Tab):
    def __init__(self, address):
        self.resources = contextlib.ExitStack()
        self.socket = self.resources.enter_context(connect_websocket(address, max_size=None))
        self.last_id = 0
        self.console = []
        for domain in ("Runtime", "Log", "Page"):
            self.command(f"{domain}.enable")

    def command(self, method, timeout=30.0, **parameters):
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": parameters}))
        deadline = time.monotonic() + timeout
        while True:
            message = json.loads(self.socket.recv(timeout=max(0, deadline - time.monotonic())))
            if message.get("id") == self.last_id:
                if "error" in message:
                    raise BrowserError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.note(message)

    def note(self, event):
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.console.append(f"{parameters['entry']['text']} ({parameters['entry'].get('url')})")

    def navigate(self, url):
        result = self.command("Page.navigate", url=url)
        if result.get("errorText"):
            raise BrowserError(f"{url}: {result['errorText']}")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression, timeout=30.0):
        result = self.command(
            "Runtime.evaluate", timeout,
            expression=expression, awaitPromise=True, returnByValue=True, userGesture=True,
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return result["result"].get("value")

    def view(self, width, height, dark=False):
        """The window's size in CSS pixels, and the colours that its person likes."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def screenshot(self, path, width=900, height=1000, dark=False):
        self.view(width, height, dark)
        picture = self.command("Page.captureScreenshot", format="png")
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    @property
    def errors(self):
        self.evaluate("0")   # collects what has arrived since
        return list(self.console)

    def close(self):
        self.resources.close()
