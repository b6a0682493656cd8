"""Data channels of five implementations of SCTP: dcSCTP (Chromium), usrsctp (Firefox, libdatachannel), aiortc's own and Pion's.

The server sends nothing back as it came, so that what went up is asked for again as an item of the conversation: the message that brings it up and the one
that brings it down have the size in question. One byte goes up and is refused as no event; nothing that short can be said in JSON. The backend is the echo, because
another one would tell of the turns that it hears.
"""

import json
import unittest

from aiortc_client import AiortcCall
from chromium import Chromium
from datachannel_client import LibdatachannelCall
from firefox import Firefox
from harness import Swiftlet, wait_until
from pion_client import PionCall

SIZES = [65_536, 250 * 1024]
SMALL = 10_000
# What an offer may say of messages to us; what they say themselves (aiortc 64 KiB, though it takes any) would leave the large ones out.
LIMIT = "a=max-message-size:262144"


def item(name, size):
    """An event of exactly `size` bytes that makes an item, and the item's text."""
    event = lambda text: json.dumps(
        {"type": "conversation.item.create", "item": {"id": name, "type": "message", "role": "user",
                                                      "content": [{"type": "input_text", "text": text}]}})
    text = "".join(chr(97 + n * n % 26) for n in range(size - len(event(""))))
    return event(text), text


class FromPython(unittest.TestCase):
    def check(self, server, send, texts, sizes=SIZES):
        """`texts` is the list of messages that grows as they come."""
        events = lambda kind: [event for event in map(json.loads, list(texts)) if event["type"] == kind]
        wait_until(lambda: events("session.created"), "session.created", 20)
        send("x")
        wait_until(lambda: events("error"), "an error for one byte", 20)
        for number, size in enumerate(sizes):
            request, text = item(f"item{number}", size)
            self.assertEqual(len(request), size)
            send(request)
            send(json.dumps({"type": "conversation.item.retrieve", "item_id": f"item{number}"}))
            wait_until(lambda: len(events("conversation.item.retrieved")) == number + 1, f"{size} bytes back", 60)
            back = events("conversation.item.retrieved")[-1]["item"]["content"][0]["text"]
            self.assertTrue(back == text, f"{size} bytes came back changed")
        del texts[:]
        for number in range(SMALL):
            send(json.dumps({"type": "conversation.item.retrieve", "event_id": str(number), "item_id": "none"}))
        wait_until(lambda: len(texts) >= SMALL, lambda: f"{SMALL} answers, but {len(texts)}", 180)
        self.assertEqual([json.loads(text)["error"]["event_id"] for text in texts], [str(number) for number in range(SMALL)])
        self.assertEqual(server.metrics().calls, 1)

    def test_libdatachannel(self):
        with Swiftlet(backend="embedded:echo") as server:
            with LibdatachannelCall(server) as call:
                call.connect()
                self.check(server, call.send, call.texts)
            server.wait_for_no_calls()

    def test_pion(self):
        with Swiftlet(backend="embedded:echo") as server:
            with PionCall(server) as call:
                call.connect()
                # It takes no message of 64 KiB or more, and says so by saying nothing.
                self.check(server, call.send, call.texts, [60_000])
                wait_until(lambda: call.packets >= 100, lambda: f"two seconds of audio, but {call.packets} packets", 20)
            server.wait_for_no_calls()

    def test_aiortc(self):
        class Call(AiortcCall):
            async def _make_offer(self):
                offer = await super()._make_offer()
                self.texts = []
                self.channel.on("message", self.texts.append)
                return offer.replace("a=max-message-size:65536", LIMIT)

        with Swiftlet(backend="embedded:echo") as server, Call(server) as call:
            call.connect()
            wait_until(lambda: call.texts, "session.created", 20)
            self.check(server, lambda text: call.loop.call(call.channel.send, text), call.texts)
            call.hangup()
            server.wait_for_no_calls()


CALL = """
(async () => {
  const pc = new RTCPeerConnection();
  const channel = window.channel = { pc, texts: [] };
  pc.addTrack((await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks()[0]);
  const dc = pc.createDataChannel("oai-events");
  dc.onopen = () => { channel.isOpen = true; };
  dc.onmessage = ({ data }) => channel.texts.push(data);
  channel.of = (kind) => channel.texts.map((text) => JSON.parse(text)).filter((event) => event.type === kind);
  channel.send = (text) => dc.send(text);
  await pc.setLocalDescription(await pc.createOffer());
  const response = await fetch("/v1/realtime/calls", { method: "POST", body: pc.localDescription.sdp,
    headers: { "Content-Type": "application/sdp" } });
  await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
})()
"""

LARGE = """
(() => {
  const make = (text) => JSON.stringify({ type: "conversation.item.create", item: { id: "item%(number)d", type: "message", role: "user",
    content: [{ type: "input_text", text }] } });
  const text = Array.from({ length: %(size)d - make("").length }, (_, n) => String.fromCharCode(97 + n * n %% 26)).join("");
  channel.text = text;
  channel.send(make(text));
  channel.send(JSON.stringify({ type: "conversation.item.retrieve", item_id: "item%(number)d" }));
})()
"""

MANY = """
(() => {
  channel.texts.length = 0;
  for (let n = 0; n < %d; n++) channel.send(JSON.stringify({ type: "conversation.item.retrieve", event_id: String(n), item_id: "none" }));
})()
"""


class FromPages(unittest.TestCase):
    def check(self, browser):
        with Swiftlet(backend="embedded:echo") as server, browser:
            tab = browser.open(server.url)
            tab.evaluate(CALL)
            tab.wait_for("channel.isOpen && channel.of('session.created').length === 1")
            tab.evaluate("channel.send('x')")
            tab.wait_for("channel.of('error').length === 1")
            for number, size in enumerate(SIZES):
                tab.evaluate(LARGE % {"number": number, "size": size})
                tab.wait_for(f"channel.of('conversation.item.retrieved').length === {number + 1}", timeout=60)
                same = f"channel.of('conversation.item.retrieved')[{number}].item.content[0].text === channel.text"
                self.assertTrue(tab.evaluate(same), f"{size} bytes came back changed")
            tab.evaluate(MANY % SMALL)
            tab.wait_for(f"channel.texts.length >= {SMALL}", timeout=180)
            self.assertTrue(tab.evaluate("channel.texts.every((text, n) => JSON.parse(text).error.event_id === String(n))"))
            self.assertEqual(tab.evaluate("channel.texts.length"), SMALL)
            tab.evaluate("channel.pc.close()")
            server.wait_for_no_calls()

    def test_chromium(self):
        self.check(Chromium())

    def test_firefox(self):
        self.check(Firefox())


if __name__ == "__main__":
    unittest.main()
