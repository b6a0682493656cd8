"""A caller made of aiortc (https://aiortc.readthedocs.io): sends a tone, remembers the last second of what comes back."""

import asyncio
import collections
import fractions
import time
import urllib.parse

import aioice.ice
import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from harness import request, wait_until
from loops import BackgroundLoop
from tones import SAMPLE_RATE, TONE_HZ, dominant_frequency, is_tone, sine

FRAME_SAMPLES = SAMPLE_RATE // 50


def use_loopback():
    """aioice leaves loopback addresses out; the tests' servers have no others."""
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] * use_ipv4 + ["::1"] * use_ipv6


use_loopback()


class ToneTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self, frequency=TONE_HZ):
        super().__init__()
        self.frequency = frequency
        self.position = 0

    async def recv(self):
        if self.position == 0:
            self.started = time.monotonic()
        await asyncio.sleep(self.started + self.position / SAMPLE_RATE - time.monotonic())
        samples = (sine(FRAME_SAMPLES, self.position, self.frequency) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self.position
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self.position += FRAME_SAMPLES
        return frame


class AiortcCall:
    """One call, driven from ordinary code: the event loop runs in a thread of its own.

    `path` chooses the interface: "/v1/realtime/calls" is ended by `POST …/hangup`, "/whip" by `DELETE`.
    """

    def __init__(self, server, path="/v1/realtime/calls", data_channel=True, frequency=TONE_HZ, multipart=False):
        self.server = server
        self.path = path
        self.data_channel = data_channel
        self.frequency_sent = frequency
        self.multipart = multipart
        self.received = collections.deque(maxlen=50)    # frames: one second
        self.frame_count = 0
        self.location = None
        self.origin = None               # of a page on another server, if the call comes from one
        self.track_has_ended = False

    def __enter__(self):
        self.loop = BackgroundLoop()
        return self

    def __exit__(self, *failure):
        self.loop.run(self._close())
        self.loop.close()

    # The call

    def make_track(self):
        return ToneTrack(self.frequency_sent)

    def add_sections(self):
        """What else is to be offered: nothing."""

    def connect(self, timeout=20.0):
        offer = self.loop.run(self._make_offer())
        self.response = self._post(offer)
        if self.response.status != 201:
            raise AssertionError(f"the offer was answered with {self.response}")
        self.location = self.response.headers["Location"]
        self.answer = self.response.text
        self.loop.run(self._accept(self.answer))
        wait_until(lambda: self.state == "connected", lambda: f"connected, but {self.state}", timeout)

    @property
    def state(self):
        return self.peer.connectionState

    @property
    def call_id(self):
        return self.location.rstrip("/").rsplit("/", 1)[-1]

    @property
    def frequency(self):
        frames = list(self.received)
        return dominant_frequency(np.concatenate(frames)) if frames else None

    def wait_for_tone(self, timeout=15.0, frequency=None):
        if frequency is None:
            wait_until(lambda: is_tone(self.frequency), lambda: f"{TONE_HZ:g} Hz in the echo, but {self.frequency}", timeout)
        else:
            heard = lambda: self.frequency is not None and abs(self.frequency - frequency) < 12
            wait_until(heard, lambda: f"{frequency:g} Hz in the echo, but {self.frequency}", timeout)

    def hangup(self):
        location = urllib.parse.urljoin(self.server.url, self.location)
        if self.path == "/whip":
            return request(location, "DELETE", location)
        return request(location, "POST", f"{location}/hangup")

    def fall_silent(self, silent=True):
        """Keeps every datagram to itself, as a machine that sleeps would: audio, reports and checks."""
        self.loop.call(self._fall_silent, silent)

    def note_arrivals(self):
        """A list that gets the time of every packet of audio from now on, as it comes from the network."""
        receiver = self.peer.getReceivers()[0]
        handle, arrivals = receiver._handle_rtp_packet, []

        def note(packet, arrival_time_ms):
            arrivals.append(time.monotonic())
            return handle(packet, arrival_time_ms)

        receiver._handle_rtp_packet = note
        return arrivals

    @staticmethod
    def longest_gap(arrivals):
        """Seconds between two packets, at most."""
        return max((after - before for before, after in zip(arrivals, arrivals[1:])), default=0)

    def local_address(self):
        """(host, port) from which the nominated pair sends."""
        candidate = self._nominated().local_candidate
        return candidate.host, candidate.port

    # Inside the loop

    async def _make_offer(self):
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.track = self.make_track()
        self.peer.addTrack(self.track)
        if self.data_channel:
            self.channel = self.peer.createDataChannel("oai-events")
        self.peer.on("track", self._listen)
        self.add_sections()
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return self.peer.localDescription.sdp

    async def _accept(self, answer):
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def _listen(self, track):
        self.listening = asyncio.ensure_future(self._collect(track))   # held: the loop itself holds tasks only weakly

    async def _collect(self, track):
        try:
            while True:
                frame = await track.recv()
                samples = frame.to_ndarray().astype(float) / 32768
                channels = len(frame.layout.channels)
                if not frame.format.is_planar and channels > 1:
                    samples = samples.reshape(-1, channels).mean(axis=1)
                self.take(samples.mean(axis=0) if samples.ndim == 2 else samples)
                self.frame_count += 1
        except MediaStreamError:
            self.track_has_ended = True

    def take(self, samples):
        self.received.append(samples)

    def _nominated(self):
        return self.peer.getSenders()[0].transport.transport._connection._nominated[1]

    def _fall_silent(self, silent):
        for protocol in self.peer.getSenders()[0].transport.transport._connection._protocols:
            transport = protocol.transport
            if silent:
                transport.sendto = lambda data, address=None: None
            else:
                del transport.sendto    # the class's own shows again

    async def _close(self):
        if hasattr(self, "peer"):
            await self.peer.close()

    def _post(self, offer):
        headers = {"Origin": self.origin} if self.origin else {}
        if not self.multipart:
            return self.server.request("POST", self.path, offer, {**headers, "Content-Type": "application/sdp"})
        boundary = "----swiftlet-test"
        parts = [("sdp", "application/sdp", offer), ("session", "application/json", '{"type":"realtime","model":"echo"}')]
        body = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\n\r\n{text}\r\n'
            for name, kind, text in parts
        ) + f"--{boundary}--\r\n"
        return self.server.request("POST", self.path, body, {**headers, "Content-Type": f"multipart/form-data; boundary={boundary}"})
