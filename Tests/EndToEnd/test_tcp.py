"""ICE over TCP: calls of clients that no UDP reaches, and what a relay bears on its TCP port."""

import os
import re
import signal
import socket
import struct
import time
import unittest

import streams
from aiortc_client import AiortcCall
from chromium import Chromium
from firefox import Firefox
from gstreamer_client import GStreamerCall
from harness import Swiftlet, wait_until
from relay_bench import Bench, free_port
from test_faults import Manager

PAIR = """
swiftlet.peer.getStats().then(stats => {
  const all = [...stats.values()];
  const pair = all.find(s => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded' && s.bytesReceived > 0);
  return pair ? [stats.get(pair.localCandidateId).protocol, stats.get(pair.remoteCandidateId).port] : null;
})
"""


def tcp(server):
    """(host, port) of its public TCP address."""
    text = "\n".join(server.output)
    found = re.search(r"([\d.]+):(\d+) \(TCP\)", text)
    return found[1], int(found[2])


def ended(server, reason):
    return server.metrics().total(rf'tcp_ended_total\{{reason="{reason}"')


def dropped(server, reason):
    return server.metrics().total(rf'relay_tcp_dropped_total\{{reason="{reason}"')


def worker(server):
    return next(pid for pid, name in server.processes().items() if name == "relay-worker")


class Client:
    """A connection that knows a call's credentials, and so can make authentic checks."""

    def __init__(self, server):
        # Somebody's offer; nobody of aiortc ever connects.
        self.call = AiortcCall(server)
        self.server = server

    def __enter__(self):
        self.call.__enter__()
        offer = self.call.loop.run(self.call._make_offer())
        response = self.call._post(offer)
        self.answer = response.text
        self.ours, self.password = streams.credentials(self.answer)
        self.theirs = re.search(r"a=ice-ufrag:(\S+)", offer)[1]
        self.place = tcp(self.server)
        self.connections = []
        return self

    def __exit__(self, *failure):
        for connection in self.connections:
            connection.close()
        self.call.__exit__(*failure)

    def check(self):
        return streams.check(self.ours, self.theirs, self.password)

    def connect(self, receive_buffer=None):
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(10)
        connection.connect(self.place)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.append(connection)
        return connection

    def answers(self, connection, count=1):
        frames, found = streams.Frames(), []
        while len(found) < count:
            data = connection.recv(65536)
            if not data:
                raise AssertionError(f"the connection ended after {len(found)} answers")
            found += frames.feed(data)
        return found


class Calls(unittest.TestCase):
    """UDP is made impossible by answers that name a UDP port which swallows everything."""

    def check_page(self, browser, *arguments):
        with streams.Blackhole() as nowhere, \
                Swiftlet("--listen-tcp", "127.0.0.1:0", "--advertise", nowhere.address, *arguments) as server, browser:
            tab = browser.open(server.url)
            tab.connect(30)
            tab.wait_for_tone()
            self.assertEqual(wait_until(lambda: tab.evaluate(PAIR), "statistics of the pair"), ["tcp", tcp(server)[1]])
            # Six seconds of audio each way.
            for way in ("received", "sent"):
                wait_until(lambda: server.metrics().total(f"tcp_datagrams_{way}_total") > 300, f"300 datagrams {way}", 30)
            tab.wait_for_tone()
            metrics = server.metrics()
            self.assertGreaterEqual(metrics.total("tcp_connections_authentic"), 1)
            self.assertEqual(metrics.total("tcp_dropped_total"), 0)
            tab.hangup()
            server.wait_for_no_calls()
            wait_until(lambda: server.metrics().total(r"relay_tcp_connections(\{|$)") == 0, "the end of the connections")
            self.assertEqual(tab.errors, [])

    def test_chromium(self):
        self.check_page(Chromium())

    def test_chromium_through_io_uring(self):
        self.check_page(Chromium(), "--io", "io_uring")

    def test_firefox(self):
        self.check_page(Firefox())

    def test_gstreamer(self):
        with streams.Blackhole() as nowhere, \
                Swiftlet("--listen-tcp", "127.0.0.1:0", "--advertise", nowhere.address) as server, GStreamerCall(server) as call:
            call.connect()
            call.wait_for_tone()
            wait_until(lambda: server.metrics().total("tcp_datagrams_sent_total") > 100, "two seconds of audio over TCP")
            self.assertIn(call.hangup(), (200, 204))
            server.wait_for_no_calls()

    def test_udp_is_preferred_where_there_is_both(self):
        with Swiftlet("--listen-tcp", "127.0.0.1:0") as server, Chromium() as browser:
            tab = browser.open(server.url)
            tab.connect()
            tab.wait_for_tone()
            self.assertEqual(wait_until(lambda: tab.evaluate(PAIR), "statistics of the pair")[0], "udp")
            tab.hangup()
            server.wait_for_no_calls()

    def check_bridge(self, pieces):
        with streams.Bridge(pieces) as bridge, \
                Swiftlet("--listen-tcp", "127.0.0.1:0", "--advertise", f"127.0.0.1:{bridge.port}") as server, \
                AiortcCall(server) as call:
            bridge.to(tcp(server))
            call.connect()
            call.wait_for_tone()
            wait_until(lambda: bridge.received > 100, "two seconds of audio over TCP")
            call.wait_for_tone()
            call.hangup()
            server.wait_for_no_calls()

    def test_byte_by_byte(self):
        self.check_bridge(1)

    def test_many_frames_in_one_segment(self):
        self.check_bridge(0)

    def test_a_connection_that_ends_takes_its_flow_along_and_the_next_one_carries_the_call_on(self):
        with streams.Bridge() as bridge, \
                Swiftlet("--listen-tcp", "127.0.0.1:0", "--advertise", f"127.0.0.1:{bridge.port}") as server, \
                AiortcCall(server) as call:
            bridge.to(tcp(server))
            call.connect()
            call.wait_for_tone()
            before = bridge.made
            bridge.cut()
            wait_until(lambda: server.metrics().total("flows_disconnected_total") >= 1, "the end of the flow")
            wait_until(lambda: bridge.made > before, "another connection")
            count = call.frame_count
            # aiortc checks every five seconds; only a check makes a flow.
            wait_until(lambda: call.frame_count > count + 50, "a second more of the call", 20)
            call.wait_for_tone()
            self.assertEqual(call.state, "connected")
            call.hangup()
            server.wait_for_no_calls()

    def test_a_worker_that_dies_takes_its_connections_along_and_the_next_one_listens(self):
        with streams.Bridge() as bridge, \
                Swiftlet("--listen-tcp", "127.0.0.1:0", "--advertise", f"127.0.0.1:{bridge.port}", workers=1) as server, \
                AiortcCall(server) as call:
            bridge.to(tcp(server))
            call.connect()
            call.wait_for_tone()
            first = worker(server)
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: any(name == "relay-worker" and pid != first for pid, name in server.processes().items()), "another worker")
            count = call.frame_count
            wait_until(lambda: call.frame_count > count + 50, "a second more of the call", 20)
            call.wait_for_tone()
            call.hangup()
            server.wait_for_no_calls()

    def test_browsers_connect_again_when_the_relay_has_lost_their_connection(self):
        for browser in (Chromium(), Firefox()):
            with self.subTest(type(browser).__name__), streams.Blackhole() as nowhere, \
                    Swiftlet("--listen-tcp", "127.0.0.1:0", "--advertise", nowhere.address, workers=1) as server, browser:
                tab = browser.open(server.url)
                tab.connect(30)
                tab.wait_for_tone()
                os.kill(worker(server), signal.SIGKILL)
                # Counters begin anew with the worker.
                wait_until(lambda: server.metrics().total("tcp_datagrams_sent_total") > 100, "audio from the next worker", 30)
                tab.wait_for_tone()
                tab.hangup()
                server.wait_for_no_calls()


class Port(unittest.TestCase):
    """What the port bears, one client after the other."""

    def check_answers(self, *arguments):
        with Swiftlet("--listen-tcp", "127.0.0.1:0", *arguments) as server, Client(server) as client:
            self.assertEqual(streams.tcp_candidate(client.answer), tcp(server))
            for send in (
                lambda connection, data: connection.sendall(data),
                lambda connection, data: [connection.sendall(data[i:i + 1]) for i in range(len(data))],
            ):
                connection = client.connect()
                send(connection, streams.frame(client.check()))
                answer = client.answers(connection)[0]
                self.assertEqual(struct.unpack_from("!H", answer)[0], 0x0101)
                self.assertEqual(streams.mapped_address(answer), connection.getsockname())
            # Empty frames are nothing, before the first check and behind it; many frames of one segment are many answers.
            connection = client.connect()
            connection.sendall(streams.frame(b"") * 3 + streams.frame(client.check()) * 5 + streams.frame(b"") + streams.frame(client.check()))
            self.assertEqual(len(client.answers(connection, 6)), 6)
            # Half a check, and the rest later.
            connection = client.connect()
            data = streams.frame(client.check())
            connection.sendall(data[:31])
            time.sleep(0.3)
            connection.sendall(data[31:])
            client.answers(connection)
            self.assertEqual(server.metrics().total("tcp_authenticated_total"), 4)

    def test_checks_are_answered_with_the_clients_address(self):
        self.check_answers()

    def test_checks_are_answered_through_io_uring(self):
        self.check_answers("--io", "io_uring")

    def test_what_is_no_ice_is_closed_at_once_and_counted(self):
        cases = [
            ("too_long", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("too_long", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)),
            ("too_long", struct.pack("!H", 2049)),
            ("too_long", b"\xff\xff"),
            ("not_ice", streams.frame(b"\x80" + bytes(40))),
            ("not_ice", streams.frame(b"\x16\xfe\xfd" + bytes(40))),
            ("not_ice", streams.frame(b"\x00\x01" + bytes(40))),
            ("not_ice", streams.frame(struct.pack("!HHI", 0x0101, 0, streams.COOKIE) + bytes(12))),
            ("not_ice", streams.frame(b"hello")),
        ]
        with Swiftlet("--listen-tcp", "127.0.0.1:0") as server:
            for reason, data in cases:
                with self.subTest(data[:12]):
                    before = ended(server, reason)
                    with socket.create_connection(tcp(server), timeout=10) as connection:
                        connection.sendall(data)
                        self.assertTrue(streams.is_closed(connection, 5))
                    wait_until(lambda: ended(server, reason) == before + 1, f"one more of {reason}")
            self.assertEqual(server.metrics().total("relay_flows_made_total"), 0)

    def test_a_client_that_leaves_in_the_middle_of_a_frame(self):
        with Swiftlet("--listen-tcp", "127.0.0.1:0") as server, Client(server) as client:
            connection = client.connect()
            connection.sendall(streams.frame(client.check())[:40])
            connection.close()
            wait_until(lambda: ended(server, "closed_by_client") == 1, "the end of the connection")
            connection = client.connect()
            connection.sendall(streams.frame(client.check()))
            client.answers(connection)
            connection.close()
            wait_until(lambda: server.metrics().total("flows_disconnected_total") == 1, "the end of the flow")

    def test_a_forged_check_keeps_a_connection_ten_seconds_at_most(self):
        with Swiftlet("--listen-tcp", "127.0.0.1:0") as server, Client(server) as client:
            client.password = "x" * 24
            connection = client.connect()
            connection.sendall(streams.frame(client.check()))
            started = time.monotonic()
            self.assertTrue(streams.is_closed(connection, 30))
            self.assertGreater(time.monotonic() - started, 9)
            self.assertEqual(ended(server, "unauthenticated"), 1)
            self.assertEqual(server.metrics().total(r'dropped_total\{reason="wrong_integrity"'), 1)

    def test_a_reader_that_stops_reading_is_bounded_and_dropped_while_others_talk(self):
        with Swiftlet("--listen-tcp", "127.0.0.1:0", workers=1) as server, Client(server) as client, AiortcCall(server) as call:
            call.connect()
            call.wait_for_tone()
            memory = streams.process_memory(worker(server))
            connection = client.connect(receive_buffer=4096)
            check = streams.frame(client.check())

            def flood():
                """Asks for answers and reads none; what is asked cannot all be sent once the relay has closed the door."""
                try:
                    connection.sendall(check * 200)
                    return ended(server, "stalled") == 1
                except OSError:
                    return True

            wait_until(flood, lambda: f"the end of it: {server.metrics().growth_since(type(server.metrics())())}", 40, 0.02)
            wait_until(lambda: ended(server, "stalled") == 1, "its reason")
            self.assertGreater(dropped(server, "buffer_full"), 100)
            self.assertLess(streams.process_memory(worker(server)) - memory, 8 << 20)
            count = call.frame_count
            wait_until(lambda: call.frame_count > count + 50, "a second more of the other call")
            call.wait_for_tone()
            call.hangup()

    def test_a_thousand_idle_connections_cost_little_and_have_to_go(self):
        os.environ["SWIFTLET_TCP_PER_ADDRESS"] = "2000"
        try:
            server = Swiftlet("--listen-tcp", "127.0.0.1:0", workers=1)
            server.__enter__()
        finally:
            del os.environ["SWIFTLET_TCP_PER_ADDRESS"]
        connections = []
        try:
            memory = streams.process_memory(worker(server))
            for _ in range(1000):
                connection = socket.create_connection(tcp(server), timeout=10)
                # The first byte of a length, so that each has something to keep.
                connection.sendall(b"\0")
                connections.append(connection)
            wait_until(lambda: server.metrics().total(r"tcp_accepted_total") == 1000, "a thousand connections")
            self.assertLess(streams.process_memory(worker(server)) - memory, 12 << 20)
            with AiortcCall(server) as call:
                call.connect()
                call.wait_for_tone()
                call.hangup()
            wait_until(lambda: ended(server, "unauthenticated") == 1000, lambda: f"{ended(server, 'unauthenticated')} have gone", 30)
            self.assertEqual(server.metrics().total(r"relay_tcp_connections(\{|$)"), 0)
        finally:
            for connection in connections:
                connection.close()
            server.__exit__(None, None, None)

    def test_one_address_gets_so_many_connections_and_no_more(self):
        with Swiftlet("--listen-tcp", "127.0.0.1:0", workers=1) as server, Client(server) as client:
            connections = [socket.create_connection(tcp(server), timeout=10) for _ in range(300)]
            try:
                wait_until(lambda: ended(server, "source_full") == 44, lambda: f"44 refused, but {ended(server, 'source_full')}")
                self.assertEqual(server.metrics().total(r"relay_tcp_connections(\{|$)"), 256)
                connections.pop(0).close()
                wait_until(lambda: ended(server, "closed_by_client") == 1, "room for one")
                connection = client.connect()
                connection.sendall(streams.frame(client.check()))
                client.answers(connection)
            finally:
                for connection in connections:
                    connection.close()

    def test_without_the_option_there_is_no_port_and_no_candidate(self):
        with Swiftlet() as server, AiortcCall(server) as call:
            call.connect()
            self.assertIsNone(streams.tcp_candidate(call.answer))
            self.assertFalse([name for name in server.metrics().values if "relay_tcp_" in name])
            # Signaling and metrics; nothing else.
            self.assertEqual(len([one for one in server.sockets() if one[0] == "tcp"]), 2)
            call.hangup()


class Keepers(unittest.TestCase):
    """What listens outlives the processes that read it."""

    def place(self, relay):
        found = re.search(r", tcp ([\d.]+):(\d+)[, ]", relay.wait_for("^swiftlet-relay ready"))
        return found and (found[1], int(found[2]))

    def assert_served(self, place):
        """Somebody looks at what comes, and finds that it is no ICE."""
        with socket.create_connection(place, timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.assertTrue(streams.is_closed(connection, 10))

    def test_takeover_hands_listeners_on(self):
        with Bench() as bench:
            first = bench.relay("--listen-tcp", "127.0.0.1:0")
            place = self.place(first)
            self.assert_served(place)
            with socket.create_connection(place) as waiting:
                second = bench.relay("--listen-tcp", "127.0.0.1:0", "--takeover")
                self.assertEqual(first.wait(), 0)
                self.assertTrue(streams.is_closed(waiting, 5))     # with its worker
            self.assertEqual(self.place(second), place)
            self.assert_served(place)
            # One that wants none, one that wants others, and one that wants the same again.
            third = bench.relay("--takeover")
            self.assertEqual(second.wait(), 0)
            self.assertIsNone(self.place(third))
            self.assertRaises(ConnectionRefusedError, socket.create_connection, place)
            wanted = f"127.0.0.1:{free_port()}"
            fourth = bench.relay("--listen-tcp", wanted, "--listen-tcp", "127.0.0.1:0", "--takeover")
            self.assertEqual(third.wait(), 0)
            self.assertIn(f", tcp {wanted} 127.0.0.1:", fourth.wait_for("^swiftlet-relay ready"))
            self.assert_served(self.place(fourth))
            fourth.process.send_signal(signal.SIGTERM)
            self.assertEqual(fourth.wait(), 0)

    def test_two_relays_do_not_share_a_port(self):
        with Bench() as bench, Bench() as other:
            place = self.place(bench.relay("--listen-tcp", "127.0.0.1:0"))
            beside = other.relay("--listen-tcp", f"127.0.0.1:{place[1]}", ready=False)
            self.assertEqual(beside.wait(), 2)
            beside.wait_for(f"--listen-tcp 127.0.0.1:{place[1]}: ")

    def test_the_service_manager_keeps_listeners(self):
        os.environ["SWIFTLET_LISTEN_TCP"] = "127.0.0.1:0"
        try:
            with Bench() as bench, Manager(bench) as manager:
                relay = manager.start()
                place = self.place(relay)
                self.assertEqual(sum(name.startswith("stream-") for name in manager.kept), 2)
                relay.kill()
                again = manager.start()
                self.assertEqual(self.place(again), place)
                self.assert_served(place)
                again.kill()
                # Without the option they are of no use any more.
                del os.environ["SWIFTLET_LISTEN_TCP"]
                last = manager.start()
                self.assertIsNone(self.place(last))
                manager.poll()
                self.assertFalse([name for name in manager.kept if name.startswith("stream-")])
                last.kill()
        finally:
            os.environ.pop("SWIFTLET_LISTEN_TCP", None)


if __name__ == "__main__":
    unittest.main()
