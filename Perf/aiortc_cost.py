"""What a call costs a server made of aiortc, in the figures of `swiftlet bench calls`: for a comparison of kinds, not of languages.

    .build/venv/bin/python Perf/aiortc_cost.py [CALLS] [SECONDS]

A server in one process answers the offers of callers in another (aiortc too), over loopback: audio that is played back as it came, and a data channel. CPU is
the server's own. aiortc always decodes and encodes, so that its speaking is to be compared with mode `converse`, not with `echo`.
"""

import asyncio
import multiprocessing
import resource
import sys
import time

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay
from aiortc.mediastreams import AudioStreamTrack

WARM_UP = 4


def use_loopback():
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] * use_ipv4


def processor_time():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident():
    """KiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


async def serve(pipe):
    use_loopback()
    loop = asyncio.get_running_loop()
    peers = []
    while True:
        kind, value = await loop.run_in_executor(None, pipe.recv)
        if kind == "offer":
            peer = RTCPeerConnection()
            peers.append(peer)
            peer.on("datachannel", lambda channel: channel.on("message", channel.send))
            relay = MediaRelay()
            peer.on("track", lambda track, peer=peer, relay=relay: peer.addTrack(relay.subscribe(track)))
            await peer.setRemoteDescription(RTCSessionDescription(value, "offer"))
            await peer.setLocalDescription(await peer.createAnswer())
            pipe.send(peer.localDescription.sdp)
        elif kind == "cost":
            pipe.send((processor_time(), resident(), time.monotonic()))
        else:
            await asyncio.gather(*(peer.close() for peer in peers))
            peers.clear()
            pipe.send(None)
            if kind == "quit":
                return


class SilentTrack(AudioStreamTrack):
    """Says nothing at all until it may."""

    def __init__(self, may_speak):
        super().__init__()
        self.may_speak = may_speak

    async def recv(self):
        await self.may_speak.wait()
        return await super().recv()


async def call(pipe, may_speak):
    peer = RTCPeerConnection()
    peer.addTrack(SilentTrack(may_speak))
    channel = peer.createDataChannel("oai-events")
    opened = asyncio.Event()
    channel.on("open", opened.set)
    await peer.setLocalDescription(await peer.createOffer())
    pipe.send(("offer", peer.localDescription.sdp))
    answer = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.wait_for(opened.wait(), 30)
    return peer


def ask(pipe, kind):
    pipe.send((kind, None))
    return pipe.recv()


async def measure(pipe, calls, seconds):
    use_loopback()
    may_speak = asyncio.Event()
    for peer in [await call(pipe, may_speak) for _ in range(WARM_UP)]:
        await peer.close()
    ask(pipe, "close")
    await asyncio.sleep(1)
    start = ask(pipe, "cost")
    peers = [await call(pipe, may_speak) for _ in range(calls)]
    connected = ask(pipe, "cost")
    await asyncio.sleep(3)
    idle = ask(pipe, "cost")
    may_speak.set()
    await asyncio.sleep(2)
    begin = ask(pipe, "cost")
    await asyncio.sleep(seconds)
    end = ask(pipe, "cost")
    print(f"aiortc, {calls} calls with audio and a data channel")
    print(f"  set-up      {(connected[0] - start[0]) / calls * 1000:.1f} ms of processor time per call")
    print(f"  memory      {(idle[1] - start[1]) / calls:.0f} KiB per idle call, {(end[1] - start[1]) / calls:.0f} KiB while speaking")
    print(f"  speaking    {(end[0] - begin[0]) / (end[2] - begin[2]) / calls * 100:.2f} % of a core per call (it decodes and encodes)")
    await asyncio.gather(*(peer.close() for peer in peers))
    ask(pipe, "quit")


def main():
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=lambda: asyncio.run(serve(theirs)), daemon=True)
    server.start()
    asyncio.run(measure(ours, calls, seconds))
    server.join(10)


main()
