"""What a call survives: the death of its relay, and an operator who wants the machine back."""

import os
import signal
import socket
import time
import unittest

from chromium import Chromium
from firefox import Firefox
from harness import Swiftlet, wait_until

RECEIVED = """(async () => {
    let packets = 0;
    (await swiftlet.peer.getStats()).forEach(r => { if (r.type === 'inbound-rtp') packets = r.packetsReceived; });
    return packets;
})()"""


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Survival(unittest.TestCase):
    def check_dead_relay(self, browser):
        """The next connectivity check rebuilds what the dead relay knew: 2.5 s in Chromium, 6 s in Firefox at the latest."""
        # A relay that comes back must find its clients' port again: not one that the kernel chooses anew.
        with Swiftlet(listen=f"127.0.0.1:{free_port()}") as server, browser:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for_tone()
            relays = [pid for pid, name in server.processes().items() if name == "swiftlet-relay"]
            self.assertEqual(len(relays), 1)
            os.kill(relays[0], signal.SIGKILL)
            wait_until(lambda: relays[0] not in server.processes(), "the end of the relay")
            time.sleep(0.5)  # what was on its way has arrived
            before = tab.evaluate(RECEIVED)
            wait_until(lambda: tab.evaluate(RECEIVED) > before + 50, "audio through the new relay", 20)
            tab.wait_for_tone()
            self.assertEqual(tab.evaluate("swiftlet.peer.connectionState"), "connected")
            tab.hangup()

    def test_chromium_survives_the_death_of_the_relay(self):
        self.check_dead_relay(Chromium())

    def test_firefox_survives_the_death_of_the_relay(self):
        self.check_dead_relay(Firefox())

    def test_sigterm_lets_calls_finish(self):
        with Chromium() as browser, Swiftlet() as server:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for_tone()
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: server.request("GET", "/readyz").status == 503, "/readyz turning away")
            refused = server.request("POST", "/v1/realtime/calls", b"v=0\r\n", {"Content-Type": "application/sdp"})
            self.assertEqual((refused.status, refused.json()["error"]["code"]), (503, "draining"))
            before = tab.evaluate(RECEIVED)
            wait_until(lambda: tab.evaluate(RECEIVED) > before + 50, "audio while draining")
            tab.hangup()
            # Nothing is left to wait for: all of it ends well, and by itself.
            self.assertEqual(server.process.wait(15), 0)
            server.ended_by_itself = True
