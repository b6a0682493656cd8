"""Measures turns of a spoken conversation as the caller sees them. See conversation.sh."""

import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "Tests" / "EndToEnd"))

from harness import Swiftlet, wait_until  # noqa: E402
from speech import SpeakingCall  # noqa: E402

SILENCE_MS = 500


def row(name, values):
    ordered = sorted(values)
    print(f"{name:58} median {statistics.median(values):7.1f}   least {ordered[0]:7.1f}   most {ordered[-1]:7.1f}   n {len(values)}")


def first_packet_after(call, moment):
    return next((at for at, *_ in list(call.packets) if at > moment), None)


def answer(call, text, count):
    """One turn; milliseconds from the caller's last sample to the first packet of the answer, without the silence that ends a turn."""
    call.track.last_sample_at = None
    call.say(text)
    last_sample = wait_until(lambda: call.track.last_sample_at, "the end of the speech", 30)
    call.wait_for("output_audio_buffer.started", count)
    first = wait_until(lambda: first_packet_after(call, last_sample), "the answer's first packet")
    return (first - last_sample) * 1000 - SILENCE_MS


def interruption(call, count):
    """Milliseconds from the news of the interruption to the last packet of the answer; negative where that was there before the news."""
    call.say("This is a rather long sentence, so that there is time enough to interrupt the answer in the middle of it.")
    call.wait_for("output_audio_buffer.started", count)
    call.say("Wait, wait, stop it please.")
    cleared = len(call.of_type("output_audio_buffer.cleared")) + 1
    call.wait_for("output_audio_buffer.cleared", cleared)
    at = call.times("input_audio_buffer.speech_started")[-1]
    call.wait_for("output_audio_buffer.started", count + 1, timeout=30)
    resumed = next(packet_at for packet_at, _, _, marker in list(call.packets) if marker and packet_at > at)
    last = max(packet_at for packet_at, *_ in list(call.packets) if packet_at < resumed)
    return (last - at) * 1000


def main():
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    waits, stops = [], []
    for _ in range(turns):
        with Swiftlet(backend="embedded:parrot") as server, SpeakingCall(server) as call:
            call.connect()
            waits.append(answer(call, "One two three four.", 1))
            call.wait_for("output_audio_buffer.stopped")
            stops.append(interruption(call, 2))
    row("last sample → first packet of the answer, beyond 500 ms [ms]", waits)
    row("interruption → last packet of the answer [ms]", stops)


main()
