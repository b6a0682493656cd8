"""The network between clients and a relay, on loopback: it forwards datagrams, gives clients new source ports as a NAT does, and sees what
each client gets. RTP headers are in the clear, so it knows which packets of audio are missing, which came twice, and how long none came.
"""

import selectors
import socket
import struct
import threading
import time


def is_audio(data):
    """RTP (RFC 7983), and no RTCP (RFC 5761)."""
    return len(data) >= 12 and 0x80 <= data[0] <= 0xBF and not 64 <= data[1] & 0x7F < 96


class Listening:
    """What one client got since it was last asked."""

    def __init__(self):
        self.last = None
        self.gap = 0.0
        self.highest = None
        self.seen = set()
        self.twice = 0

    def note(self, data, now):
        number = struct.unpack_from(">H", data, 2)[0]
        if self.highest is not None:
            # Of 16 bits: near the highest so far.
            number = self.highest + (number - self.highest + 0x8000) % 0x10000 - 0x8000
        if number in self.seen:
            self.twice += 1
            return
        self.seen.add(number)
        self.highest = number if self.highest is None else max(number, self.highest)
        if self.last is not None:
            self.gap = max(self.gap, now - self.last)
        self.last = now

    def restart(self, now):
        """Forgets all but where it is; the longest gap in milliseconds, packets that are missing, packets that came twice."""
        gap = max(self.gap, now - self.last if self.last is not None else 0.0)
        missing = max(self.seen) - min(self.seen) + 1 - len(self.seen) if self.seen else 0
        twice = self.twice
        self.gap, self.twice, self.seen = 0.0, 0, {self.highest} if self.seen else set()
        return gap * 1000, missing, twice


class Wire:
    """Clients send to `address`; all of it goes to `relay`."""

    def __init__(self, relay):
        self.relay = relay
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.front.bind(("127.0.0.1", 0))
        self.front.setblocking(False)
        self.address = "127.0.0.1:%d" % self.front.getsockname()[1]
        self.lock = threading.Lock()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.front, selectors.EVENT_READ)
        self.backs = {}      # client → socket towards the relay
        self.clients = {}    # that socket → client
        self.listening = {}  # client → Listening
        self.runs = True

    def __enter__(self):
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.runs = False
        self.thread.join()
        for one in [self.front, *self.clients]:
            one.close()
        self.selector.close()

    def rebind(self):
        """Every client sends from another port from now on, and nothing that is sent to the old one arrives."""
        with self.lock:
            for client, old in list(self.backs.items()):
                self._forget(old)
                self._open(client)

    def measure(self, seconds):
        """Listens for a while, then tells the longest gap in milliseconds that a client of this while had."""
        self.restart()
        time.sleep(seconds)
        return self.restart()

    def restart(self):
        """(gap in milliseconds, packets missing, packets that came twice) since the last time, of whoever fared worst."""
        with self.lock:
            now = time.monotonic()
            told = [one.restart(now) for one in self.listening.values() if one.last is not None]
        return max((gap for gap, _, _ in told), default=0.0), sum(m for _, m, _ in told), sum(t for _, _, t in told)

    def forget(self):
        """Clients that were there are of no interest any more."""
        with self.lock:
            self.listening.clear()
            for back in list(self.clients):
                self._forget(back)

    # In the thread

    def _run(self):
        while self.runs:
            for key, _ in self.selector.select(0.2):
                with self.lock:
                    self._forward(key.fileobj)

    def _forward(self, source):
        for _ in range(64):
            try:
                data, sender = source.recvfrom(4096)
            except (BlockingIOError, ConnectionRefusedError):
                return
            except OSError:      # closed meanwhile
                return
            try:
                if source is self.front:
                    back = self.backs.get(sender) or self._open(sender)
                    back.send(data)
                    continue
                client = self.clients.get(source)
                if client is None:
                    return
                if is_audio(data):
                    self.listening.setdefault(client, Listening()).note(data, time.monotonic())
                self.front.sendto(data, client)
            except OSError:      # nobody listens there now
                pass

    def _open(self, client):
        back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        back.bind(("127.0.0.1", 0))
        host, port = self.relay.rsplit(":", 1)
        back.connect((host, int(port)))
        back.setblocking(False)
        self.backs[client] = back
        self.clients[back] = client
        self.selector.register(back, selectors.EVENT_READ)
        return back

    def _forget(self, back):
        client = self.clients.pop(back)
        if self.backs.get(client) is back:
            del self.backs[client]
        self.selector.unregister(back)
        back.close()
