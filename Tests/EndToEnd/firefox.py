"""Headless Firefox through its Marionette protocol: JSON arrays over TCP, each behind its length and a colon
(https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html)."""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

from harness import wait_until
from page import BrowserError, Tab
from tones import TONE_HZ

EXECUTABLE = shutil.which("firefox-esr") or shutil.which("firefox")

PREFERENCES = {
    "marionette.port": 0,                             # any free one; Firefox writes it into the profile
    # The microphone: granted unasked, and a sine of our frequency.
    "media.navigator.permission.disabled": True,
    "permissions.default.microphone": 1,              # without a permission ICE gets no addresses but the default route's
    "media.navigator.streams.fake": True,
    "media.navigator.audio.fake_frequency": int(TONE_HZ),
    "media.cubeb.force_mock_context": True,           # a sound card that does not exist; with none, Web Audio stands still
    "media.autoplay.default": 0,                      # allowed
    "media.autoplay.blocking_policy": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # A test's browser talks to the test's server and to nobody else.
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage": "about:blank",
    "browser.startup.page": 0,
    "browser.newtabpage.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "media.gmp-manager.updateEnabled": False,
    "dom.disable_beforeunload": True,
}


class Firefox:
    def __init__(self, loopback=True):
        self.preferences = PREFERENCES | {"media.peerconnection.ice.loopback": loopback}

    def __enter__(self):
        if not EXECUTABLE:
            raise AssertionError("Firefox is not installed: apt-get install firefox-esr")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="swiftlet-firefox-"))
        profile = self.directory / "profile"
        profile.mkdir()
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in self.preferences.items()]
        (profile / "user.js").write_text("\n".join(lines) + "\n")
        self.log = open(self.directory / "log", "wb")
        # HOME of its own: a Firefox of root refuses a home that belongs to somebody else.
        environment = os.environ | {"HOME": str(self.directory), "MOZ_HEADLESS": "1"}
        self.process = subprocess.Popen(
            [EXECUTABLE, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile", str(profile)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, env=environment,
        )
        port_file = profile / "MarionetteActivePort"
        self.connection = None
        try:
            wait_until(lambda: port_file.exists() and port_file.read_text().strip(), "Firefox's Marionette port", 60)
            self.connection = Marionette(int(port_file.read_text()))
            self.connection.command("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {"acceptInsecureCerts": True}}})
            self.connection.command("WebDriver:SetTimeouts", {"script": 30_000, "pageLoad": 30_000})
            self.first_tab_is_free = True
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure):
        if self.connection:
            self.connection.close()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def open(self, url):
        if self.first_tab_is_free:
            self.first_tab_is_free = False
            handle = self.connection.command("WebDriver:GetWindowHandle")["value"]
        else:
            handle = self.connection.command("WebDriver:NewWindow", {"type": "tab"})["handle"]
        tab = FirefoxTab(self.connection, handle)
        tab.navigate(url)
        return tab


class Marionette:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.stream = self.socket.makefile("rb")
        self.last_id = 0
        self.handle = None
        self.receive()      # the greeting

    def command(self, name, parameters=None):
        self.last_id += 1
        text = json.dumps([0, self.last_id, name, parameters or {}]).encode()
        self.socket.sendall(b"%d:%s" % (len(text), text))
        _, number, error, result = self.receive()
        assert number == self.last_id, "Marionette answers in order"
        if error:
            raise BrowserError(f"{name}: {error['message']}")
        return result

    def receive(self):
        length = b""
        while (character := self.stream.read(1)) != b":":
            if not character:
                raise BrowserError("Firefox closed its Marionette connection")
            length += character
        return json.loads(self.stream.read(int(length)))

    def close(self):
        self.stream.close()
        self.socket.close()


class FirefoxTab(Tab):
    def __init__(self, connection, handle):
        self.connection = connection
        self.handle = handle

    def command(self, name, parameters=None):
        if self.connection.handle != self.handle:
            self.connection.command("WebDriver:SwitchToWindow", {"handle": self.handle, "focus": True})
            self.connection.handle = self.handle
        return self.connection.command(name, parameters)

    def navigate(self, url):
        self.command("WebDriver:Navigate", {"url": url})

    def evaluate(self, expression):
        # Promises are waited for by the asynchronous form only; it hands the result to its last argument.
        script = (
            "const done = arguments[0];"
            f"(async () => (\n{expression}\n))()"
            ".then((value) => done({value: value === undefined ? null : value}), (error) => done({error: String(error)}));"
        )
        result = self.command("WebDriver:ExecuteAsyncScript", {"script": script, "args": [], "sandbox": None})
        value = result["value"]
        if "error" in value:
            raise BrowserError(f"{expression}: {value['error']}")
        return value["value"]

    def screenshot(self, path):
        picture = self.command("WebDriver:TakeScreenshot", {"full": False})
        pathlib.Path(path).write_bytes(base64.b64decode(picture["value"]))

    @property
    def errors(self):
        """The browser console's errors that come from pages, not from Firefox's own code."""
        self.connection.command("Marionette:SetContext", {"value": "chrome"})
        try:
            script = (
                "return Services.console.getMessageArray()"
                ".filter((m) => m instanceof Ci.nsIScriptError && !(m.flags & Ci.nsIScriptError.warningFlag)"
                " && m.sourceName.startsWith('http'))"
                ".map((m) => `${m.errorMessage} (${m.sourceName}:${m.lineNumber})`);"
            )
            return self.connection.command("WebDriver:ExecuteScript", {"script": script, "args": []})["value"]
        finally:
            self.connection.command("Marionette:SetContext", {"value": "content"})
