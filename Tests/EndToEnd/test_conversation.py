"""Spoken conversations with `embedded:parrot`: turns, answers, interruptions."""

import unittest

from chromium import Chromium
from harness import Swiftlet, wait_until
from speech import SpeakingCall

# The order in which the API documents the events of one answered turn; others may stand between them.
ANSWERED_TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "output_audio_buffer.started",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
    "output_audio_buffer.stopped",
]


def in_order(wanted, types):
    """The first of `wanted` that does not come in its place; None when all do."""
    rest = iter(types)
    return next((kind for kind in wanted if kind not in rest), None)


class Parrot(unittest.TestCase):
    def test_it_says_back_what_it_heard(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            seconds = call.say("The quick brown fox jumps over the lazy dog.")
            call.wait_for("output_audio_buffer.stopped")
            self.assertIsNone(in_order(ANSWERED_TURN, call.types), call.account())

            start = call.of_type("input_audio_buffer.speech_started")[0]["audio_start_ms"]
            end = call.of_type("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
            # 300 ms of padding before it, and the silence after it.
            self.assertAlmostEqual((end - start) / 1000, seconds + 0.3 + call.patience, delta=0.5, msg=call.account())
            packets = list(call.packets)
            self.assertGreater(len(packets) * 0.02, seconds)
            self.assertTrue(packets[0][3], "the first packet of a talkspurt has the marker")
            stamps = [stamp for _, _, stamp, _ in packets]
            self.assertEqual({(b - a) % 2**32 for a, b in zip(stamps, stamps[1:])}, {960})
            self.assertEqual(call.of_type("response.done")[0]["response"]["status"], "completed")
            self.assertGreater(call.loudness_of_answer(), 500)
            call.hangup()
            server.wait_for_no_calls()

    def test_the_second_answer_is_the_second_turn(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            first = call.say("One two three four five six seven eight nine ten.")
            call.wait_for("output_audio_buffer.stopped")
            before = len(call.packets)
            second = call.say("Stop.")
            call.wait_for("output_audio_buffer.stopped", 2)
            answers = before * 0.02, (len(call.packets) - before) * 0.02
            self.assertLess(answers[1], answers[0] - (first - second) / 2, call.account())
            # What the encoder still held of the first answer may come after the news of its end.
            first_of_second = next(index for index, packet in enumerate(call.packets) if index >= before and packet[3])
            self.assertLessEqual(first_of_second, before + 2)
            # Timestamps go on through the pause as time does.
            pause = call.packets[first_of_second][0] - call.packets[first_of_second - 1][0]
            stamps = (call.packets[first_of_second][2] - call.packets[first_of_second - 1][2]) % 2**32
            self.assertAlmostEqual(stamps / 48_000, pause, delta=0.5)

    def test_whoever_speaks_over_the_answer_silences_it(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            call.be_patient()
            call.say("This is a rather long sentence, so that there is time enough to interrupt the answer in the middle of it.")
            call.wait_for("output_audio_buffer.started")
            call.say("Wait, wait, stop it please.")
            cleared = call.wait_for("output_audio_buffer.cleared")
            at = call.times("output_audio_buffer.cleared")[0]
            response = call.of_type("response.created")[0]["response"]["id"]
            self.assertEqual(cleared["response_id"], response)
            cancelled = call.wait_for("response.done")["response"]
            self.assertEqual((cancelled["status"], cancelled["status_details"]["reason"]), ("cancelled", "turn_detected"))

            truncated = call.wait_for("conversation.item.truncated")
            self.assertEqual(truncated["item_id"], cancelled["output"][0]["id"])
            # What was played is what left: counted in packets on this side.
            call.wait_for("response.created", 2)
            # The event is faster than the packet.
            begins = lambda: next((index for index, packet in enumerate(call.packets) if index and packet[3]), None)
            second = wait_until(begins, "the first packet of the second answer")
            left = [packet for packet in call.packets[:second]]
            self.assertAlmostEqual(truncated["audio_end_ms"] / 1000, len(left) * 0.02, delta=0.1)
            # The fade-out and what the encoder still held may follow the decision, nothing else.
            self.assertLessEqual(len([packet for packet in left if packet[0] > at + 0.005]), 2)

            call.wait_for("output_audio_buffer.stopped")
            self.assertEqual(call.of_type("response.done")[1]["response"]["status"], "completed")

    def test_push_to_talk(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            call.send({"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}})
            call.wait_for("session.updated")
            call.send({"type": "input_audio_buffer.clear"})
            call.wait_for("input_audio_buffer.cleared")
            seconds = call.say("Nobody listens for the end of this.")
            wait_until(lambda: call.track.ended_at, "the end of the speech")
            self.assertEqual(call.of_type("response.created"), [])
            call.send({"type": "input_audio_buffer.commit"})
            call.wait_for("input_audio_buffer.committed")
            call.send({"type": "response.create"})
            call.wait_for("output_audio_buffer.stopped")
            self.assertEqual(call.of_type("input_audio_buffer.speech_started"), [])
            self.assertGreater(len(call.packets) * 0.02, seconds * 0.8)

    def test_text_is_answered_with_text(self):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            content = [{"type": "input_text", "text": "Good morning."}]
            call.send({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}})
            call.send({"type": "response.create", "response": {"output_modalities": ["text"]}})
            done = call.wait_for("response.done")["response"]
            self.assertIn("Good morning.", done["output"][0]["content"][0]["text"])


class Browsers(unittest.TestCase):
    def test_chromium_is_told_how_its_packets_came(self):
        # Only feedback about transport-wide sequence numbers lets Chromium estimate what the path carries.
        with Swiftlet(backend="embedded:parrot") as server, Chromium() as browser:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for("swiftlet.state === 'talking'")
            tab.evaluate(
                "window.bitrate = null; setInterval(async () => (await swiftlet.peer.getStats()).forEach(s => {"
                " if (s.type === 'candidate-pair' && s.nominated) window.bitrate = s.availableOutgoingBitrate ?? null;"
                " if (s.type === 'remote-inbound-rtp') window.reported = s.packetsLost; }), 200)"
            )
            tab.wait_for("window.reported === 0")
            tab.wait_for("window.bitrate > 0")
            tab.hangup()
