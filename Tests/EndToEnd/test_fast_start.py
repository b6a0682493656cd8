"""A data channel without its own round trips: INIT chunks in offer and answer (SNAP), and a channel whose id was agreed on (`?dcid=`)."""

import unittest

from chromium import Chromium
from firefox import Firefox
from harness import Swiftlet

CALL = """
(async () => {
  const pc = new RTCPeerConnection();
  const steps = window.steps = { pc, events: [] };
  pc.addTrack((await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks()[0]);
  const dc = %s ? pc.createDataChannel("oai-events", { negotiated: true, id: 6 }) : pc.createDataChannel("oai-events");
  dc.onopen = () => { steps.isOpen = true; steps.id = dc.id; };
  dc.onmessage = ({ data }) => steps.events.push(JSON.parse(data));
  await pc.setLocalDescription(await pc.createOffer());
  steps.offer = pc.localDescription.sdp;
  const response = await fetch("/v1/realtime/calls%s", { method: "POST", body: steps.offer, headers: { "Content-Type": "application/sdp" } });
  steps.answer = await response.text();
  await pc.setRemoteDescription({ type: "answer", sdp: steps.answer });
  steps.send = (event) => dc.send(JSON.stringify(event));
})()
"""


class FastStart(unittest.TestCase):
    def check(self, browser, snap, agreed):
        with Swiftlet(backend="embedded:parrot") as server, browser:
            tab = browser.open(server.url)
            tab.evaluate(CALL % ("true" if agreed else "false", "?dcid=6" if agreed else ""))
            self.assertEqual("a=sctp-init:" in tab.evaluate("steps.offer"), snap)
            self.assertEqual("a=sctp-init:" in tab.evaluate("steps.answer"), snap)
            tab.wait_for("steps.isOpen && steps.events.some(e => e.type === 'session.created')")
            if agreed:
                self.assertEqual(tab.evaluate("steps.id"), 6)
            tab.evaluate("steps.send({type: 'session.update', session: {type: 'realtime', instructions: 'x'.repeat(20000)}})")
            tab.wait_for("steps.events.some(e => e.type === 'session.updated' && e.session.instructions.length === 20000)")
            tab.evaluate("steps.pc.close()")
            server.wait_for_no_calls()

    def test_chromium_with_init_chunks_in_offer_and_answer(self):
        self.check(Chromium("--enable-features=WebRtcSctpSnap"), snap=True, agreed=False)

    def test_chromium_with_both(self):
        self.check(Chromium("--enable-features=WebRtcSctpSnap"), snap=True, agreed=True)

    def test_chromium_with_an_agreed_channel(self):
        self.check(Chromium(), snap=False, agreed=True)

    def test_firefox_with_an_agreed_channel(self):
        self.check(Firefox(), snap=False, agreed=True)


if __name__ == "__main__":
    unittest.main()
