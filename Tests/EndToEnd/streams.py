"""Clients that reach the relay over TCP (RFC 4571 frames): a bare one that makes authentic checks, and a bridge for clients that speak UDP."""

import hashlib
import hmac
import os
import re
import selectors
import socket
import struct
import threading
import zlib

COOKIE = 0x2112A442


def frame(datagram):
    return struct.pack("!H", len(datagram)) + datagram


class Frames:
    """Takes a stream apart."""

    def __init__(self):
        self.rest = b""

    def feed(self, data):
        self.rest += data
        while len(self.rest) >= 2:
            end = 2 + struct.unpack_from("!H", self.rest)[0]
            if len(self.rest) < end:
                return
            datagram, self.rest = self.rest[2:end], self.rest[end:]
            yield datagram


def credentials(answer):
    """The ufrag and the password of an answer."""
    return re.search(r"a=ice-ufrag:(\S+)", answer)[1], re.search(r"a=ice-pwd:(\S+)", answer)[1]


def tcp_candidate(answer):
    found = re.search(r"a=candidate:\S+ 1 tcp (\d+) (\S+) (\d+) typ host tcptype passive", answer)
    return (found[2], int(found[3])) if found else None


def check(ours, theirs, password):
    """A Binding request as a browser makes it. `theirs` is the ufrag of the offer."""
    def attribute(kind, value):
        return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)

    body = attribute(0x0006, f"{ours}:{theirs}".encode()) + attribute(0x0024, struct.pack("!I", 110 << 24 | 65535 << 8 | 255))
    body += attribute(0x802A, os.urandom(8)) + attribute(0x0025, b"")
    identifier = os.urandom(12)

    def head(length):
        return struct.pack("!HHI", 0x0001, length, COOKIE) + identifier

    body += attribute(0x0008, hmac.new(password.encode(), head(len(body) + 24) + body, hashlib.sha1).digest())
    message = head(len(body) + 8) + body
    return message + attribute(0x8028, struct.pack("!I", zlib.crc32(message) ^ 0x5354554E))


def mapped_address(answer):
    """XOR-MAPPED-ADDRESS of a Binding response: (host, port), or nothing."""
    offset = 20
    while offset + 4 <= len(answer):
        kind, length = struct.unpack_from("!HH", answer, offset)
        if kind == 0x0020:
            family, port = struct.unpack_from("!xBH", answer, offset + 4)
            address = answer[offset + 8:offset + 4 + length]
            mask = struct.pack("!I", COOKIE) + answer[8:20]
            plain = bytes(a ^ b for a, b in zip(address, mask))
            return socket.inet_ntop(socket.AF_INET if family == 1 else socket.AF_INET6, plain), port ^ COOKIE >> 16
        offset += 4 + (length + 3) // 4 * 4
    return None


def is_closed(connection, timeout=15.0):
    """Whether the other side ends the connection; what it sends before is thrown away."""
    connection.settimeout(timeout)
    try:
        while connection.recv(65536):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


class Bridge:
    """A UDP port whose datagrams travel on over TCP, one connection a client: how clients that know no TCP are made to use it. `port` is
    where clients send; `to` says where the relay listens. `pieces` cuts what is sent: 1 is byte by byte, and 0 holds datagrams back until
    some have come, so that one segment brings many."""

    def __init__(self, pieces=None):
        self.pieces = pieces

    def __enter__(self):
        self.outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outside.bind(("127.0.0.1", 0))
        self.port = self.outside.getsockname()[1]
        self.relay = None
        self.made = 0         # connections
        self.received = 0     # datagrams of the relay
        self.reads = True
        self.lock = threading.Lock()
        self.inside = {}      # client → [connection, frames, held back]
        self.is_running = True
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.outside, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.is_running = False
        self.thread.join(5)
        self.outside.close()
        for connection, _, _ in self.inside.values():
            connection.close()
        self.selector.close()

    def to(self, relay):
        self.relay = relay

    def cut(self):
        """Ends all connections; the next datagram of a client makes another one."""
        with self.lock:
            for client in list(self.inside):
                self._forget(client)

    def _run(self):
        while self.is_running:
            for key, _ in self.selector.select(0.1):
                with self.lock:
                    try:
                        self._up() if key.fileobj is self.outside else self._down(key.fileobj, key.data)
                    except OSError:
                        if key.data is not None:
                            self._forget(key.data)

    def _up(self):
        datagram, client = self.outside.recvfrom(65536)
        if self.relay is None:
            return
        if client not in self.inside:
            connection = socket.create_connection(self.relay, timeout=5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.inside[client] = [connection, Frames(), []]
            self.selector.register(connection, selectors.EVENT_READ, client)
            self.made += 1
        connection, _, held = self.inside[client]
        try:
            self._send(connection, held, datagram)
        except OSError:
            self._forget(client)

    def _send(self, connection, held, datagram):
        if self.pieces is None:
            return connection.sendall(frame(datagram))
        if self.pieces > 0:
            data = frame(datagram)
            for start in range(0, len(data), self.pieces):
                connection.sendall(data[start:start + self.pieces])
            return
        held.append(frame(datagram))
        # Only media is worth holding back: a handshake waits for its answers.
        if len(held) == 4 or not 128 <= datagram[0] < 192:
            connection.sendall(b"".join(held))
            held.clear()

    def _down(self, connection, client):
        if client not in self.inside or self.inside[client][0] is not connection:
            return
        data = connection.recv(65536)
        if not data:
            return self._forget(client)
        for datagram in self.inside[client][1].feed(data):
            self.received += 1
            self.outside.sendto(datagram, client)

    def _forget(self, client):
        connection, _, _ = self.inside.pop(client, (None, None, None))
        if connection is not None:
            self.selector.unregister(connection)
            connection.close()


class Blackhole:
    """A UDP port that swallows everything, as a firewall does: what answers may name when UDP shall be impossible."""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        return self

    def __exit__(self, *failure):
        self.socket.close()


def process_memory(pid):
    """Resident bytes."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
