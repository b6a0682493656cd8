"""Any transceiver answers for any call: requests reach the owner, whoever is asked, and a dead owner is told at once."""

import json
import signal
import socket
import time
import unittest

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from aiortc_client import AiortcCall
from fleet import Fleet
from harness import REPOSITORY, wait_until

CALLS = "/v1/realtime/calls"
OFFER = (REPOSITORY / "Tests" / "Corpus" / "sdp" / "chromium-156.sdp").read_bytes()
SDP = {"Content-Type": "application/sdp"}


def members(*more):
    def arguments(fleet):
        fleet.members = fleet.place / "members.txt"
        fleet.members.write_text("".join(
            f"id={i + 1} cluster=0 signaling=127.0.0.1:{port} capacity=100 load=0 state=serving\n"
            for i, port in enumerate(fleet.signalings)))
        return ["--members", f"file:{fleet.members}", *more]

    return arguments


class Owners(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.fleet = cls.enterClassContext(Fleet(2, members()))
        cls.owner, cls.door = cls.fleet.transceivers

    def call(self, path=CALLS):
        response = self.owner.request("POST", path, OFFER, SDP)
        self.assertEqual(response.status, 201, response)
        return response

    def test_hangup(self):
        location = self.call().headers["Location"]
        self.assertEqual(self.owner.metrics().calls, 1)
        response = self.door.request("POST", location + "/hangup")
        self.assertEqual(response.status, 200, response)
        self.owner.wait_for_no_calls()
        again = self.door.request("POST", location + "/hangup")
        self.assertEqual((again.status, again.json()["error"]["code"]), (404, "call_not_found"), again)

    def test_whip_delete_and_patch(self):
        answer = self.call("/whip")
        location = answer.headers["Location"]
        fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n"
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
        patched = self.door.request("PATCH", location, fragment, headers)
        self.assertEqual(patched.status, 200, patched)
        self.assertIn("a=candidate", patched.text)
        self.assertNotEqual(patched.headers["ETag"], answer.headers["ETag"])
        stale = self.door.request("PATCH", location, fragment, {**headers, "If-Match": '"old"'})
        self.assertEqual(stale.status, 412, stale)
        self.assertEqual(self.door.request("DELETE", location).status, 200)
        self.owner.wait_for_no_calls()

    def test_a_call_with_media_is_ended_through_the_other(self):
        with AiortcCall(self.owner) as call:
            call.connect()
            call.wait_for_tone()
            response = self.door.request("POST", call.location + "/hangup")
            self.assertEqual(response.status, 200, response)
            self.owner.wait_for_no_calls()

    def test_sideband(self):
        with AiortcCall(self.owner) as call:
            call.connect()
            self.listen_in(call.location)

    def listen_in(self, location):
        url = f"{self.door.url.replace('http', 'ws')}/v1/realtime?call_id={location.rsplit('/', 1)[1]}"
        with connect(url, subprotocols=["realtime"]) as socket:
            self.assertEqual(socket.subprotocol, "realtime")
            self.assertEqual(json.loads(socket.recv(5))["type"], "session.created")
            socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}}))
            self.assertEqual(json.loads(socket.recv(5))["type"], "session.updated")
            self.assertEqual(self.door.request("POST", location + "/hangup").status, 200)
            with self.assertRaises(ConnectionClosed) as closed:
                while True:
                    socket.recv(5)
            self.assertEqual(closed.exception.rcvd.code, 1000)
        with self.assertRaises(InvalidStatus) as refused:
            connect(url)
        self.assertEqual(refused.exception.response.status_code, 404)

    def test_pipelined_requests_keep_their_order(self):
        location = self.call().headers["Location"]
        host, port = self.door.url[7:].split(":")
        with socket.create_connection((host, int(port)), 5) as stream:
            head = f"POST {location}/hangup HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            stream.sendall((head + "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode())
            text = b""
            while chunk := stream.recv(65536):
                text += chunk
        self.assertEqual([line.split()[1] for line in text.split(b"\r\n") if line.startswith(b"HTTP/1.1")], [b"200", b"200"], text)
        self.assertTrue(text.endswith(b"ok\n"), text)

    def test_a_request_that_was_sent_on_is_not_sent_on_again(self):
        location = self.call().headers["Location"]
        response = self.door.request("POST", location + "/hangup", headers={"Swiftlet-Forwarded": "1"})
        self.assertEqual(response.status, 404, response)
        self.assertEqual(self.owner.request("POST", location + "/hangup").status, 200)

    def test_an_id_that_nobody_has_minted_goes_nowhere(self):
        before = self.door.metrics()
        for name in ("rtc_" + "A" * 32, "rtc_", "rtc_%2e%2e", "x"):
            self.assertEqual(self.door.request("POST", f"{CALLS}/{name}/hangup").status, 404)
        grown = self.door.metrics().growth_since(before)
        self.assertEqual([name for name in grown if "forwarded" in name], [])


class List(unittest.TestCase):
    def test_an_owner_that_has_left_the_list_still_ends_its_calls(self):
        with Fleet(2, members()) as fleet:
            owner, door = fleet.transceivers
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            fleet.members.write_text("# nobody\n")
            wait_until(lambda: door.find("0 members read"), door.report)
            self.assertEqual(door.request("POST", location + "/hangup").status, 200)
            fleet.members.write_text("id=1 cluster=0 signaling=somewhere\n")
            wait_until(lambda: door.find(r"line 1: signaling=somewhere is not .*; the members of before stay"), door.report)

    def test_an_owner_that_was_never_in_the_list_is_told_so(self):
        with Fleet(2, members()) as fleet:
            owner, door = fleet.transceivers
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            lines = fleet.members.read_text()
        with Fleet(1, lambda fleet: ["--members", "direct:10.0.0.0/8:1"]) as fleet:
            # Other keys: an id of theirs is no id here.
            response = fleet.transceivers[0].request("POST", location + "/hangup")
            self.assertEqual((response.status, response.json()["error"]["code"]), (404, "call_not_found"), lines)


class Deaths(unittest.TestCase):
    def refused_within_a_second(self, door, location, code="call_owner_unreachable"):
        began = time.monotonic()
        response = door.request("POST", location + "/hangup")
        self.assertLess(time.monotonic() - began, 1.5, "the owner's time is 0.9 s; the rest is this machine's")
        self.assertEqual((response.status, response.json()["error"]["code"]), (404, code), response)

    def test_a_dead_owner(self):
        with Fleet(2, members()) as fleet:
            owner, door = fleet.transceivers
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            owner.stop(signal.SIGKILL)
            self.refused_within_a_second(door, location)
            self.assertEqual(door.metrics().total('forwarded_total.*owner_dead'), 1)

    def test_an_owner_that_hangs(self):
        with Fleet(2, members()) as fleet:
            owner, door = fleet.transceivers
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            owner.process.send_signal(signal.SIGSTOP)
            try:
                self.refused_within_a_second(door, location)
                self.assertEqual(door.request("GET", "/healthz").status, 200)
            finally:
                owner.process.send_signal(signal.SIGCONT)

    def test_a_sideband_ends_with_its_owner(self):
        with Fleet(2, members()) as fleet:
            owner, door = fleet.transceivers
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            with connect(f"{door.url.replace('http', 'ws')}/v1/realtime?call_id={location.rsplit('/', 1)[1]}") as socket:
                socket.recv(5)
                owner.stop(signal.SIGKILL)
                with self.assertRaises(ConnectionClosed) as closed:
                    socket.recv(5)
                self.assertEqual(closed.exception.rcvd.code, 1001)


class Redirects(unittest.TestCase):
    def test_the_client_is_sent_to_the_owner_once(self):
        with Fleet(2, members("--owner", "redirect")) as fleet:
            owner, door = fleet.transceivers
            location = owner.request("POST", CALLS, OFFER, SDP).headers["Location"]
            response = door.request("POST", location + "/hangup")
            self.assertEqual(response.status, 307, response)
            self.assertEqual(response.headers["Location"], f"{owner.url}{location}/hangup?swiftlet-forwarded=1")
            # Whoever the list takes for the owner does not send it further.
            again = door.request("POST", location + "/hangup?swiftlet-forwarded=1")
            self.assertEqual(again.status, 404, again)
            self.assertEqual(owner.request("POST", response.headers["Location"]).status, 200)
