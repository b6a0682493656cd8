"""Real clients call the real servers and hear themselves: the product's first promise, once for each kind of client."""

import time
import unittest

import restarts
from aiortc_client import AiortcCall
from chromium import Chromium
from firefox import Firefox
from gstreamer_client import GStreamerCall
from harness import Swiftlet, outside_addresses, wait_until
from test_page import STEPS

CALLS = "/v1/realtime/calls"


class Pages(unittest.TestCase):
    def check_page(self, browser, **server):
        with Swiftlet(**server) as server, browser:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for_tone()
            self.assertCountEqual(tab.evaluate("swiftlet.timeline"), STEPS)
            self.assertRegex(tab.evaluate("swiftlet.callID"), r"^rtc_")
            self.assertGreater(server.metrics().calls, 0)
            tab.hangup()
            server.wait_for_no_calls()
            self.assertEqual(tab.errors, [])

    def test_chromium(self):
        self.check_page(Chromium())

    def test_firefox(self):
        self.check_page(Firefox())

    @unittest.skipUnless(outside_addresses(), "this machine has no address but loopback")
    def test_chromium_as_a_person_has_it(self):
        """Without the flag that lets it use loopback: the answer must name an address that a plain browser can reach."""
        self.check_page(Chromium(loopback=False), listen="0.0.0.0:0")

    @unittest.skipUnless(outside_addresses(), "this machine has no address but loopback")
    def test_firefox_as_a_person_has_it(self):
        self.check_page(Firefox(loopback=False), listen="0.0.0.0:0")

    def test_leaving_the_page_ends_the_call(self):
        for browser in (Chromium(), Firefox()):
            with self.subTest(type(browser).__name__), Swiftlet() as server, browser:
                tab = browser.open(server.url)
                tab.connect()
                tab.navigate("about:blank")
                server.wait_for_no_calls()

    def test_stopping_the_servers_ends_the_call_on_the_page(self):
        for browser in (Chromium(), Firefox()):
            with self.subTest(type(browser).__name__), browser:
                with Swiftlet() as server:
                    tab = browser.open(server.url)
                    tab.connect()
                    tab.wait_for_tone()
                tab.wait_for("swiftlet.state === 'idle'", 5)
                self.assertEqual(tab.evaluate("document.getElementById('status').textContent"), "The server ended the call.")

    def test_two_tabs_of_one_browser(self):
        with Swiftlet() as server, Chromium() as browser:
            tabs = [browser.open(server.url) for _ in range(2)]
            for tab in tabs:
                tab.connect()
            for tab in tabs:
                tab.wait_for_tone()
            tabs[0].hangup()
            time.sleep(1)
            tabs[1].wait_for_tone()
            tabs[1].hangup()
            server.wait_for_no_calls()


class Aiortc(unittest.TestCase):
    def check_call(self, server, **options):
        with AiortcCall(server, **options) as call:
            call.connect()
            call.wait_for_tone()
            self.assertGreater(server.metrics().calls, 0)
            self.assertIn(call.hangup().status, (200, 204))
            server.wait_for_no_calls()

    def test_over_the_call_interface(self):
        with Swiftlet() as server:
            self.check_call(server)

    def test_over_the_call_interface_as_a_form(self):
        with Swiftlet() as server:
            self.check_call(server, multipart=True)

    def test_audio_alone(self):
        with Swiftlet() as server:
            self.check_call(server, data_channel=False)

    def test_over_whip(self):
        with Swiftlet() as server:
            self.check_call(server, path="/whip", data_channel=False)

    def test_over_ipv6(self):
        with Swiftlet(signaling="[::1]:0", listen="[::1]:0") as server, AiortcCall(server) as call:
            call.connect()
            self.assertEqual(call.local_address()[0], "::1")
            call.wait_for_tone()
            call.hangup()
            server.wait_for_no_calls()

    def test_two_calls_at_once_from_one_address(self):
        with Swiftlet() as server, AiortcCall(server, frequency=440) as low, AiortcCall(server, frequency=880) as high:
            low.connect()
            high.connect()
            self.assertNotEqual(low.call_id, high.call_id)
            self.assertEqual(low.local_address()[0], high.local_address()[0])
            low.wait_for_tone(frequency=440)     # each hears itself and not the other
            high.wait_for_tone(frequency=880)
            low.hangup()
            count = high.frame_count
            wait_until(lambda: high.frame_count > count + 50, "a second more of the call that goes on")
            high.wait_for_tone(frequency=880)
            high.hangup()
            server.wait_for_no_calls()

    def test_a_client_that_leaves_without_a_word_on_signaling_is_noticed(self):
        with Swiftlet() as server:
            with AiortcCall(server) as call:
                call.connect()
                call.wait_for_tone()
            server.wait_for_no_calls()

    def test_a_goodbye_of_dtls_alone_ends_a_call_that_is_audio_alone(self):
        """No BYE and no word on signaling: what is left of DTLS after the handshake still knows the client's close_notify."""
        with Swiftlet() as server, AiortcCall(server, data_channel=False) as call:
            call.connect()
            call.wait_for_tone()
            call.loop.run(call.peer.getSenders()[0].transport.stop())
            server.wait_for_no_calls(5)

    def test_hanging_up_tells_the_client(self):
        with Swiftlet() as server, AiortcCall(server) as call:
            call.connect()
            call.wait_for_tone()
            call.hangup()
            wait_until(lambda: call.track_has_ended or call.state == "closed", lambda: f"an end, but {call.state}", 10)

    def test_a_client_that_is_silent_for_20_seconds_goes_on(self):
        with Swiftlet() as server, AiortcCall(server) as call:
            call.connect()
            call.wait_for_tone()
            call.fall_silent()
            time.sleep(20)
            self.assertGreater(server.metrics().calls, 0)
            call.fall_silent(False)
            call.received.clear()
            count = call.frame_count
            wait_until(lambda: call.frame_count > count + 50, "a second of audio after the silence")
            call.wait_for_tone()
            call.hangup()
            server.wait_for_no_calls()


GREEDY_CALL = """
(async () => {
  const pc = window.pc = new RTCPeerConnection(%s);
  pc.addTrack((await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks()[0]);
  pc.addTransceiver("video");
  pc.addTransceiver("audio", { direction: "recvonly" });
  await pc.setLocalDescription(await pc.createOffer());
  const response = await fetch("/v1/realtime/calls", { method: "POST", body: pc.localDescription.sdp,
    headers: { "Content-Type": "application/sdp" } });
  await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
})()
"""
HEARD = """
(async () => {
  let packets = 0;
  (await pc.getStats()).forEach((row) => { if (row.type === "inbound-rtp" && row.kind === "audio") packets += row.packetsReceived; });
  return pc.connectionState === "connected" && packets > 50;
})()
"""


class OffersOfMore(unittest.TestCase):
    """Video and a second audio beside the call's own: nobody uses them here, and the call stands all the same."""

    def check_browser(self, browser):
        for policy in ["{}", "{ bundlePolicy: 'max-bundle' }"]:
            with self.subTest(policy), Swiftlet() as server, browser() as opened:
                tab = opened.open(server.url)
                tab.evaluate(GREEDY_CALL % policy)
                wait_until(lambda: tab.evaluate(HEARD), lambda: f"a second of echo, but {tab.evaluate('pc.connectionState')}", 20)
                tab.evaluate("pc.close()")
                server.wait_for_no_calls()

    def test_chromium(self):
        self.check_browser(Chromium)

    def test_firefox(self):
        self.check_browser(Firefox)

    def test_aiortc(self):
        class Call(AiortcCall):
            def add_sections(self):
                self.peer.addTransceiver("video", direction="recvonly")
                self.peer.addTransceiver("audio", direction="recvonly")

        with Swiftlet() as server, Call(server) as call:
            call.connect()
            call.wait_for_tone()
            call.hangup()
            server.wait_for_no_calls()


class GStreamer(unittest.TestCase):
    def test_webrtcbin(self):
        with Swiftlet() as server, GStreamerCall(server) as call:
            call.connect()
            call.wait_for_tone()
            self.assertGreater(server.metrics().calls, 0)
            self.assertIn(call.hangup(), (200, 204))
            server.wait_for_no_calls()


class OtherEngine(unittest.TestCase):
    """The second SRTP engine, with the two clients that choose different profiles: AES-256-GCM and AES-128-CM with SHA-1."""

    def test_calls_over_libsrtp(self):
        with Swiftlet("--srtp", "libsrtp") as server, AiortcCall(server) as first, GStreamerCall(server) as second:
            for call in (first, second):
                call.connect()
                call.wait_for_tone()
                call.hangup()
            server.wait_for_no_calls()


class IceRestart(restarts.RestartCase):
    """Over WHIP: PATCH with new credentials moves a call to new sockets while it goes on."""

    def check_restart(self, browser):
        with Swiftlet() as server, browser:
            tab = browser.open(server.url)
            self.restart_during_a_call(tab)
            server.wait_for_no_calls()

    def test_chromium(self):
        self.check_restart(Chromium())

    def test_firefox(self):
        self.check_restart(Firefox())


if __name__ == "__main__":
    unittest.main()
