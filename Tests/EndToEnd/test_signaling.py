"""What signaling says to requests that are wrong, and to browsers that ask for permission first."""

import unittest

from aiortc_client import AiortcCall
from harness import Swiftlet

CALLS = "/v1/realtime/calls"
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = "application/trickle-ice-sdpfrag"


class Signaling(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(Swiftlet())

    def assertRefused(self, response, *statuses):
        """The status, and the JSON body that every refusal has. Its message must say something."""
        self.assertIn(response.status, statuses, response)
        self.assertEqual(response.headers.get_content_type(), "application/json", response)
        error = response.json()["error"]
        self.assertLessEqual({"message", "type", "code", "param"}, set(error), response)
        self.assertIsInstance(error["message"], str)
        self.assertGreater(len(error["message"].split()), 2, error)
        self.assertIsInstance(error["type"], str)
        for name in ("code", "param"):
            self.assertIsInstance(error[name], (str, type(None)))
        return error


class Refusals(Signaling):
    def test_wrong_content_type(self):
        error = self.assertRefused(self.server.request("POST", CALLS, "v=0", {"Content-Type": "text/plain"}), 415)
        self.assertIn("application/sdp", error["message"])

    def test_no_content_type(self):
        self.assertRefused(self.server.request("POST", CALLS, b"v=0"), 400, 415)

    def test_empty_offer(self):
        for path in (CALLS, "/whip"):
            with self.subTest(path):
                self.assertRefused(self.server.request("POST", path, b"", SDP), 400)

    def test_an_offer_that_is_no_sdp(self):
        for body in (b"hello", b"v=0\r\n", b"\x00" * 400, b"v=0\r\n" + b"a=x\r\n" * 2000):
            with self.subTest(body[:20]):
                self.assertRefused(self.server.request("POST", CALLS, body, SDP), 400, 422)

    def test_an_offer_without_audio(self):
        offer = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
        self.assertRefused(self.server.request("POST", CALLS, offer, SDP), 400, 422)

    def test_a_form_without_an_offer(self):
        body = '--x\r\nContent-Disposition: form-data; name="session"\r\n\r\n{}\r\n--x--\r\n'
        error = self.assertRefused(
            self.server.request("POST", CALLS, body, {"Content-Type": "multipart/form-data; boundary=x"}), 400)
        self.assertIn("sdp", error["message"])

    def test_a_body_of_64_kib_and_one_byte(self):
        self.assertRefused(self.server.request("POST", CALLS, b"a" * 65_537, SDP), 413)

    def test_a_body_of_64_kib_is_read(self):
        self.assertRefused(self.server.request("POST", CALLS, b"a" * 65_536, SDP), 400, 422)

    def test_a_header_that_is_too_long(self):
        response = self.server.request("GET", "/healthz", headers={f"X-{i}": "a" * 1000 for i in range(99)})
        self.assertEqual(response.status, 431, response)

    def test_unknown_call(self):
        self.assertRefused(self.server.request("POST", f"{CALLS}/rtc_0123456789abcdef/hangup"), 404)
        self.assertRefused(self.server.request("DELETE", "/whip/rtc_0123456789abcdef"), 404)
        self.assertRefused(self.server.request("PATCH", "/whip/rtc_0123456789abcdef", b"", {"Content-Type": FRAGMENT}), 404)

    def test_wrong_method(self):
        for method, path in (("GET", CALLS), ("PUT", CALLS), ("POST", "/healthz"), ("DELETE", "/metrics")):
            with self.subTest(f"{method} {path}"):
                response = self.server.request(method, path)
                self.assertRefused(response, 405)
                self.assertTrue(response.headers.get("Allow"), "405 must say what is allowed (RFC 9110, 15.5.6)")

    def test_unknown_path(self):
        for path in ("/nothing", "/v1/realtime/nothing", "/../etc/passwd", "/%2e%2e/etc/passwd", "/app.js/x"):
            with self.subTest(path):
                self.assertRefused(self.server.request("GET", path), 400, 404)

    def test_a_refused_offer_leaves_no_call_behind(self):
        self.server.request("POST", CALLS, b"hello", SDP)
        self.assertEqual(self.server.metrics().calls, 0)


class Calls(Signaling):
    def test_what_an_accepted_offer_is_answered_with(self):
        with AiortcCall(self.server) as call:
            call.connect()
            headers = call.response.headers
            self.assertEqual(headers.get_content_type(), "application/sdp")
            self.assertRegex(headers["Location"], r"/v1/realtime/calls/rtc_[A-Za-z0-9_-]+$")
            for line in ("a=ice-lite", "a=rtcp-mux", "a=setup:active", "a=end-of-candidates", "a=group:BUNDLE 0 1"):
                self.assertIn(line, call.answer.split("\r\n"))
            self.assertTrue(call.answer.endswith("\r\n"))
            ufrag = next(line for line in call.answer.split("\r\n") if line.startswith("a=ice-ufrag:"))
            self.assertEqual(len(ufrag.partition(":")[2]), 32, "a routing hint is 32 characters")
            self.assertIn(call.hangup().status, (200, 204))
            self.assertRefused(call.hangup(), 404)     # the second time there is nothing to end
        self.server.wait_for_no_calls()

    def test_whip_resources_have_tags_and_take_candidates(self):
        with AiortcCall(self.server, "/whip", data_channel=False) as call:
            call.connect()
            tag = call.response.headers["ETag"]
            self.assertRegex(tag, r'^"[^"]+"$')
            offer = call.peer.localDescription.sdp.split("\r\n")
            lines = [next(line for line in offer if line.startswith(start)) for start in
                     ("m=audio", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:")]
            fragment = "\r\n".join([*lines, "a=end-of-candidates", ""])
            patch = lambda tag: self.server.request("PATCH", call.location, fragment, {"Content-Type": FRAGMENT, "If-Match": tag})
            self.assertEqual(patch(tag).status, 204)
            self.assertRefused(patch('"somebody-elses"'), 412)
            self.assertRefused(self.server.request("PATCH", call.location, "x", {**SDP, "If-Match": tag}), 415)
            self.assertIn(call.hangup().status, (200, 204))
        self.server.wait_for_no_calls()


class Browsers(Signaling):
    """Cross-origin requests, as the Fetch standard makes them."""

    ORIGIN = "https://app.example"

    def preflight(self, path, method, headers):
        return self.server.request("OPTIONS", path, headers={
            "Origin": self.ORIGIN, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers,
        })

    def test_preflight_is_granted(self):
        cases = (
            (CALLS, "POST", "authorization,content-type"),
            ("/whip", "POST", "authorization,content-type"),
            ("/whip/rtc_0123456789abcdef", "PATCH", "content-type,if-match"),
            ("/whip/rtc_0123456789abcdef", "DELETE", "authorization"),
        )
        for path, method, headers in cases:
            with self.subTest(f"{method} {path}"):
                response = self.preflight(path, method, headers)
                self.assertIn(response.status, (200, 204), response)
                self.assertIn(response.headers["Access-Control-Allow-Origin"], ("*", self.ORIGIN))
                self.assertIn(method, names(response.headers["Access-Control-Allow-Methods"]))
                allowed = {name.lower() for name in names(response.headers["Access-Control-Allow-Headers"])}
                self.assertLessEqual(set(headers.split(",")), allowed)

    def test_the_answer_shows_its_location_to_scripts(self):
        with AiortcCall(self.server) as call:
            call.origin = self.ORIGIN
            call.connect()
            self.assertIn(call.response.headers["Access-Control-Allow-Origin"], ("*", self.ORIGIN))
            self.assertIn("location", {name.lower() for name in names(call.response.headers["Access-Control-Expose-Headers"])})
            call.hangup()
        self.server.wait_for_no_calls()

    def test_a_refusal_can_be_read_by_scripts(self):
        response = self.server.request("POST", CALLS, b"", {**SDP, "Origin": self.ORIGIN})
        self.assertRefused(response, 400)
        self.assertIn(response.headers["Access-Control-Allow-Origin"], ("*", self.ORIGIN))


class Health(Signaling):
    def test_probes(self):
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.server.request("GET", path).status, 200)

    def test_metrics_are_prometheus_text(self):
        response = self.server.request("GET", "/metrics")
        self.assertEqual(response.headers.get_content_type(), "text/plain")
        metrics = self.server.metrics()
        self.assertGreater(len(metrics.values), 10)
        for name in metrics.values:
            self.assertIn(metrics.family(name).removesuffix("_bucket").removesuffix("_sum").removesuffix("_count"),
                          {family.removesuffix("_count") for family in metrics.types}, f"{name} has no # TYPE")

    def test_the_page_and_its_files(self):
        for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")):
            response = self.server.request("GET", path)
            self.assertEqual((response.status, response.headers.get_content_type()), (200, kind))


def names(header):
    return {name.strip() for name in (header or "").split(",")}


if __name__ == "__main__":
    unittest.main()
