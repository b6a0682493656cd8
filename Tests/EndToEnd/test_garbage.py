"""Rubbish on every port while a call runs: everybody stays alive, the call is unharmed, and counters say what was dropped."""

import os
import random
import re
import socket
import struct
import unittest
import zlib

from aiortc_client import AiortcCall
from harness import Swiftlet, wait_until

SEED = int(os.environ.get("SWIFTLET_TEST_SEED", "7"))
COOKIE = 0x2112A442
DATAGRAMS_PER_PORT = 3000


def stun(generator, attributes=b"", kind=0x0001, length=None, cookie=COOKIE):
    length = len(attributes) if length is None else length
    return struct.pack("!HHI", kind, length & 0xFFFF, cookie) + generator.randbytes(12) + attributes


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def binding_request(generator, username, fingerprint=True):
    """A well-formed check with a MESSAGE-INTEGRITY that nobody's key made."""
    body = attribute(0x0006, username) + attribute(0x0024, bytes(4)) + attribute(0x0008, generator.randbytes(20))
    if not fingerprint:
        return stun(generator, body)
    message = stun(generator, body, length=len(body) + 8)
    return message + attribute(0x8028, struct.pack("!I", zlib.crc32(message) ^ 0x5354554E))


def datagrams(generator, username):
    """Endless rubbish: nothing, noise, and things that look like each protocol up to some point."""
    def noise():
        return generator.randbytes(generator.choice((0, 1, 3, 19, 20, 21, 100, 1200, 1472)))

    def truncated_stun():
        message = binding_request(generator, username)
        return message[:generator.randrange(len(message))]

    def overrunning_attribute():
        return stun(generator, struct.pack("!HH", generator.choice((6, 8, 0x8028)), generator.randrange(4, 65536)) + bytes(4))

    def lying_length():
        return stun(generator, attribute(6, username), length=generator.randrange(65536))

    def forged_check():
        forged = bytes(generator.choice(b"ABCDEFghijkl0123456789+/") for _ in range(32))
        return binding_request(generator, forged + b":abcd", generator.random() < 0.5)

    def stolen_hint():
        return binding_request(generator, username, generator.random() < 0.5)

    def wrong_cookie():
        return stun(generator, attribute(6, username), cookie=generator.getrandbits(32))

    def mutated_check():
        message = bytearray(binding_request(generator, username))
        for _ in range(generator.randrange(1, 6)):
            message[generator.randrange(len(message))] = generator.randrange(256)
        return bytes(message)

    def like_dtls():
        return struct.pack("!BHHIHH", generator.randrange(20, 64), 0xFEFD, 0, 0, generator.randrange(65536),
                           generator.randrange(65536)) + noise()

    def like_rtp():
        return bytes((generator.randrange(128, 192), generator.randrange(256))) + generator.randbytes(generator.randrange(300))

    kinds = (noise, truncated_stun, overrunning_attribute, lying_length, forged_check, stolen_hint, wrong_cookie, mutated_check,
             like_dtls, like_rtp)
    while True:
        yield generator.choice(kinds)()


def http_rubbish(generator):
    return [
        b"",
        b"\r\n" * 500,
        b"GET",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + generator.randbytes(500),     # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nothing\r\n\r\n",
        b"GET / HTTP/1.1\r\nX:\x00\r\n\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nthe rest never comes",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=\r\nContent-Length: 4\r\n\r\n--\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" * 50,
        *(generator.randbytes(generator.randrange(1, 5000)) for _ in range(30)),
    ]


def metrics_if_served(server):
    try:
        return server.metrics()
    except ConnectionError:
        return None


class Garbage(unittest.TestCase):
    def throw_datagrams(self, generator, username, targets):
        for host, port in targets:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            source = datagrams(generator, username)
            # Several sources: to the relay each is a stranger of its own.
            senders = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(20)]
            for number in range(DATAGRAMS_PER_PORT):
                senders[number % len(senders)].sendto(next(source), (host, port))
            for sender in senders:
                sender.close()

    def throw_requests(self, generator, targets):
        """Leaves some connections open, half said, until the end of the test."""
        for host, port in targets:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            for rubbish in http_rubbish(generator):
                connection = socket.create_connection((host, port), timeout=5)
                self.addCleanup(connection.close)
                try:
                    connection.sendall(rubbish)
                    if generator.random() < 0.5:
                        connection.shutdown(socket.SHUT_WR)
                        connection.settimeout(2)
                        while connection.recv(65_536):
                            pass
                except OSError:
                    pass     # refusing to listen any longer is a fine answer

    def test_garbage_to_every_port_leaves_a_call_unharmed(self):
        generator = random.Random(SEED)
        with Swiftlet() as server, AiortcCall(server) as call:
            call.connect()
            call.wait_for_tone()
            before = server.metrics()
            frames = call.frame_count
            username = next(line for line in call.answer.split("\r\n") if line.startswith("a=ice-ufrag:"))[12:].encode() + b":abcd"

            sockets = server.sockets()
            datagram_targets = sorted({(host, port) for protocol, host, port in sockets if protocol == "udp"})
            stream_targets = sorted({(host, port) for protocol, host, port in sockets if protocol == "tcp"})
            self.assertGreaterEqual(len(datagram_targets), 2, f"expected a public and a trunk port in {sockets}")
            self.assertGreaterEqual(len(stream_targets), 1)
            self.throw_datagrams(generator, username, datagram_targets)
            self.throw_requests(generator, stream_targets)

            self.assertEqual(server.serving(), server.pids, "the same processes as before")
            self.assertEqual(server.request("GET", "/readyz").status, 200)
            wait_until(lambda: call.frame_count > frames + 100, "audio of the call going on")
            call.received.clear()
            wait_until(lambda: len(call.received) == 50, "a second of audio after the rubbish")
            call.wait_for_tone()

            # The half said requests hold the few connections that a page of counters has, until its patience ends.
            growth = wait_until(lambda: metrics_if_served(server), "the counters").growth_since(before)
            dropped = {name: value for name, value in growth.items() if "drop" in name or "reject" in name or "refus" in name}
            relay = {name: value for name, value in dropped.items() if "relay" in name}
            self.assertGreaterEqual(len(relay), 3, f"reasons that the relay counted: {growth}")
            self.assertGreater(sum(relay.values()), DATAGRAMS_PER_PORT / 2, f"seed {SEED}: {growth}")
            # Every datagram has exactly one outcome. A few of the call pass between the two looks at the counters.
            total = lambda pattern: sum(value for name, value in growth.items() if re.search(pattern, name))
            outcomes = total("relay_forwarded_datagrams") + total(r'relay_dropped.*reason="(?!trunk)')
            self.assertAlmostEqual(outcomes, total("relay_public_datagrams"), delta=10, msg=f"seed {SEED}: {growth}")

            self.assertIn(call.hangup().status, (200, 204))
            server.wait_for_no_calls()
            # And a new caller is served as if nothing had been.
            with AiortcCall(server) as next_call:
                next_call.connect()
                next_call.wait_for_tone()
                next_call.hangup()
            server.wait_for_no_calls()

    def test_a_half_open_connection_does_not_keep_others_waiting(self):
        with Swiftlet() as server:
            host, port = server.url.removeprefix("http://").rsplit(":", 1)
            for _ in range(100):
                connection = socket.create_connection((host, int(port)))
                self.addCleanup(connection.close)
                connection.sendall(b"POST /v1/realtime/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nv=0")
            self.assertEqual(server.request("GET", "/healthz").status, 200)
            with AiortcCall(server) as call:
                call.connect()
                call.hangup()


if __name__ == "__main__":
    unittest.main()
