"""The data channel of a call: the client's own channel carries events of the Realtime API."""

import asyncio
import json
import unittest

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from chromium import Chromium
from firefox import Firefox
from harness import Swiftlet, wait_until

SDP = {"Content-Type": "application/sdp"}


class Pages(unittest.TestCase):
    def check_events(self, browser):
        with Swiftlet() as server, browser:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for("swiftlet.channelState === 'open'")
            tab.wait_for("swiftlet.events.some(e => e.type === 'session.created')")
            tab.evaluate("void swiftlet.send({type: 'session.update', session: {type: 'realtime', instructions: 'Sing.'}})")
            tab.wait_for("swiftlet.events.some(e => e.type === 'session.updated' && e.session.instructions === 'Sing.')")
            tab.evaluate("void swiftlet.send({type: 'session.sing', event_id: 'mine'})")
            tab.wait_for("swiftlet.events.some(e => e.type === 'error' && e.error.event_id === 'mine')")
            # An event's error is no reason to end the call.
            tab.wait_for_tone()
            tab.hangup()
            server.wait_for_no_calls()

    def test_chromium(self):
        self.check_events(Chromium())

    def test_firefox(self):
        self.check_events(Firefox())


class Aiortc(unittest.TestCase):
    async def converse(self, server, texts, wanted):
        """Opens a call with a channel, sends `texts` and returns the first `wanted` events."""
        peer = RTCPeerConnection()
        peer.addTrack(AudioStreamTrack())
        channel = peer.createDataChannel("oai-events")
        events = []
        channel.on("message", lambda text: events.append(json.loads(text)))
        channel.on("open", lambda: [channel.send(text) for text in texts])
        await peer.setLocalDescription(await peer.createOffer())
        answer = server.request("POST", "/v1/realtime/calls", peer.localDescription.sdp, SDP)
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        try:
            for _ in range(300):
                if len(events) >= wanted:
                    return events
                await asyncio.sleep(0.05)
            raise AssertionError(f"{len(events)} of {wanted} events: {[event['type'] for event in events]}")
        finally:
            await peer.close()

    def test_what_is_no_event_is_answered_with_an_error(self):
        with Swiftlet() as server:
            texts = ["", "{", "[]", '{"type": 7}', "[" * 60_000, json.dumps({"type": "response.create", "response": 3})]
            events = asyncio.run(self.converse(server, texts, 2 + len(texts)))
            self.assertEqual(
                [event["type"] for event in events], ["session.created", "conversation.created"] + ["error"] * len(texts))
            self.assertTrue(all(event["error"]["message"] for event in events[2:]))

    def test_a_thousand_events_each_get_their_answer_in_order(self):
        with Swiftlet() as server:
            texts = [
                json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": f"number {n} " + "x" * (n % 3000)}})
                for n in range(1000)
            ]
            events = asyncio.run(self.converse(server, texts, 1002))
            numbers = [event["session"]["instructions"].split()[1] for event in events[2:1002]]
            self.assertEqual(numbers, [str(n) for n in range(1000)])
            wait_until(lambda: server.metrics().calls == 0, "the end of the call", 40)
