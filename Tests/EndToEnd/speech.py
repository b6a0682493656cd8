"""A caller with something to say: speech of espeak-ng at chosen moments, silence between, and a record of when answers came."""

import asyncio
import fractions
import functools
import io
import json
import subprocess
import time
import wave

import av
import numpy as np
from aiortc import MediaStreamTrack

from aiortc_client import FRAME_SAMPLES, AiortcCall
from harness import wait_until
from tones import SAMPLE_RATE


@functools.cache
def speech(text, voice="en"):
    """16-bit samples at 48 kHz, without the silence around them."""
    sound = subprocess.run(["espeak-ng", "-v", voice, "--stdout", text], check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(sound)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(float)
    count = len(samples) * SAMPLE_RATE // rate
    samples = np.interp(np.arange(count) * rate / SAMPLE_RATE, np.arange(len(samples)), samples)
    loud = np.flatnonzero(np.abs(samples) > 300)
    return samples[loud[0]:loud[-1] + 1].astype(np.int16)


def quiet(seconds):
    """Samples of a quiet room: not even a microphone in the desert gives zeros."""
    return np.random.default_rng(1).normal(0, 8, int(seconds * SAMPLE_RATE)).astype(np.int16)


def script(*parts):
    """Samples of texts, and of pauses given in seconds."""
    return np.concatenate([speech(part) if isinstance(part, str) else quiet(part) for part in parts])


class SpeechTrack(MediaStreamTrack):
    """Real time: 20 ms after 20 ms, of what `say` has queued, else of a quiet room."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.position = 0
        self.queue = np.zeros(0, np.int16)
        self.ended_at = None      # when the last frame with speech was handed over
        self.last_sample_at = None   # of speech: a frame is handed over when a microphone would have heard all of it
        self.noise = np.random.default_rng(1)

    def say(self, samples):
        self.queue = np.concatenate([self.queue, samples])

    async def recv(self):
        if self.position == 0:
            self.started = time.monotonic()
        await asyncio.sleep(self.started + self.position / SAMPLE_RATE - time.monotonic())
        frame = self.noise.normal(0, 8, FRAME_SAMPLES).astype(np.int16)
        spoken = self.queue[:FRAME_SAMPLES]
        if len(spoken):
            frame[:len(spoken)] = spoken
            self.queue = self.queue[FRAME_SAMPLES:]
            if not len(self.queue):
                self.ended_at = time.monotonic()
                self.last_sample_at = self.started + (self.position - FRAME_SAMPLES + len(spoken)) / SAMPLE_RATE
        av_frame = av.AudioFrame.from_ndarray(frame.reshape(1, -1), format="s16", layout="mono")
        av_frame.sample_rate = SAMPLE_RATE
        av_frame.pts = self.position
        av_frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self.position += FRAME_SAMPLES
        return av_frame


class SpeakingCall(AiortcCall):
    """A call that speaks and notes every event and every audio packet with the time at which it came."""

    patience = 1.5            # seconds

    def __init__(self, server):
        super().__init__(server)
        self.events = []      # (monotonic seconds, event)
        self.packets = []     # (monotonic seconds, payload bytes, RTP timestamp, marker)
        self.heard = []       # every decoded frame

    def account(self):
        """What happened when, for whoever has to find out why a test failed."""
        began = self.track.started
        lines = [
            f"{at - began:8.3f}  {event['type']} " + " ".join(f"{key}={value}" for key, value in event.items() if key.endswith("_ms"))
            for at, event in list(self.events)
        ]
        packets = [at - began for at, *_ in list(self.packets)]
        end = self.track.ended_at and self.track.ended_at - began
        return "\n".join([f"speech ended at {end}; {len(packets)} packets from {packets[:1]} to {packets[-1:]}", *lines])

    def loudness_of_answer(self):
        """Of the loudest frame that came back, root mean square of 16 bits."""
        return max(float(np.sqrt(np.mean((np.asarray(frame) * 32768) ** 2))) for frame in self.heard)

    def make_track(self):
        return SpeechTrack()

    def connect(self, timeout=20.0):
        super().connect(timeout)
        self.loop.call(self._watch_packets)
        wait_until(lambda: self.of_type("session.created"), "session.created", timeout)

    def be_patient(self):
        """Longer silence ends a turn: a client that this machine lets starve for half a second has not stopped speaking."""
        detection = {"type": "server_vad", "silence_duration_ms": int(self.patience * 1000)}
        self.send({"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}})
        self.wait_for("session.updated")

    def say(self, text):
        """Queues speech; how many seconds it lasts."""
        samples = speech(text)
        self.loop.call(self.track.say, samples)
        return len(samples) / SAMPLE_RATE

    def send(self, event):
        self.loop.call(self.channel.send, json.dumps(event))

    def of_type(self, kind):
        return [event for _, event in list(self.events) if event["type"] == kind]

    def times(self, kind):
        return [at for at, event in list(self.events) if event["type"] == kind]

    @property
    def types(self):
        return [event["type"] for _, event in list(self.events)]

    def wait_for(self, kind, count=1, timeout=20.0):
        wait_until(lambda: len(self.of_type(kind)) >= count, lambda: f"{count} × {kind}; there are {self.types}", timeout)
        return self.of_type(kind)[count - 1]

    def take(self, samples):
        super().take(samples)
        self.heard.append(samples)

    async def _make_offer(self):
        offer = await super()._make_offer()
        self.channel.on("message", lambda text: self.events.append((time.monotonic(), json.loads(text))))
        return offer

    def _watch_packets(self):
        receiver = self.peer.getReceivers()[0]
        handle = receiver._handle_rtp_packet

        async def noted(packet, arrival_time_ms):
            self.packets.append((time.monotonic(), len(packet.payload), packet.timestamp, packet.marker))
            await handle(packet, arrival_time_ms)

        receiver._handle_rtp_packet = noted
