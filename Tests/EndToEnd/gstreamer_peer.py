"""A caller made of GStreamer's webrtcbin. It is a program, not a module: PyGObject belongs to the system's Python, while
the tests run in an environment of their own. See gstreamer_client.py for the other side.

    gstreamer_peer.py OFFERS_URL FREQUENCY PCM_FILE

It writes one JSON object a line to standard output, {"event": …}, and what it hears to PCM_FILE: mono, 48 kHz, 16-bit
little-endian. The line "hangup" on standard input ends the call; so does the end of standard input.
"""

import json
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC   # noqa: E402

PIPELINE = (
    "webrtcbin name=rtc bundle-policy=max-bundle "
    "audiotestsrc is-live=true wave=sine volume=0.4 freq={frequency} ! audio/x-raw,rate=48000,channels=1 ! audioconvert "
    "! opusenc frame-size=20 ! rtpopuspay pt=96 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=96 ! rtc."
)
LISTENER = (
    "rtpopusdepay ! opusdec ! audioconvert ! audioresample "
    "! audio/x-raw,format=S16LE,rate=48000,channels=1 ! filesink buffer-mode=unbuffered sync=false location={file}"
)


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


class Call:
    def __init__(self, url, frequency, file):
        self.url = url
        self.file = file
        self.location = None
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch(PIPELINE.format(frequency=frequency))
        self.rtc = self.pipeline.get_by_name("rtc")
        self.allow_loopback()
        self.rtc.connect("on-negotiation-needed", self.make_offer)
        self.rtc.connect("notify::ice-gathering-state", self.gathering_changed)
        self.rtc.connect("notify::connection-state", self.state_changed)
        self.rtc.connect("notify::ice-connection-state", self.state_changed)
        self.rtc.connect("pad-added", self.hear)
        self.posted = False

    def allow_loopback(self):
        """libnice leaves loopback out while there is any other interface; naming addresses is the way to include it."""
        # Kept, because the bindings take over the only reference: letting go of it here would free the agent.
        self.agent = self.rtc.get_property("ice-agent")
        for address in ("127.0.0.1", "::1"):
            self.agent.emit("add-local-ip-address", address)

    def run(self):
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", lambda _, message: self.fail(str(message.parse_error()[0])))
        threading.Thread(target=self.read_commands, daemon=True).start()
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)

    def fail(self, message):
        say("error", message=message)
        self.loop.quit()

    def read_commands(self):
        for line in sys.stdin:
            if line.strip() == "hangup":
                break
        GLib.idle_add(self.hang_up)

    # Negotiation

    def make_offer(self, rtc):
        rtc.emit("create-offer", None, Gst.Promise.new_with_change_func(self.offer_made, None, None))

    def offer_made(self, promise, *_):
        # The reply owns the offer, which the bindings do not copy: it must live as long as the offer is used.
        reply = promise.get_reply()
        self.rtc.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def gathering_changed(self, rtc, _):
        if rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE and not self.posted:
            self.posted = True
            GLib.idle_add(self.post_offer)

    def post_offer(self):
        offer = self.rtc.get_property("local-description").sdp.as_text()
        say("offer", sdp=offer)
        post = urllib.request.Request(self.url, offer.encode(), {"Content-Type": "application/sdp"}, method="POST")
        try:
            with urllib.request.urlopen(post, timeout=10) as response:
                answer = response.read()
                self.location = urllib.parse.urljoin(self.url, response.headers["Location"])
        except urllib.error.HTTPError as error:
            self.fail(f"{error.code}: {error.read().decode(errors='replace')}")
            return
        say("answer", sdp=answer.decode(), location=self.location)
        _, message = GstSdp.SDPMessage.new_from_text(answer.decode())
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.rtc.emit("set-remote-description", description, Gst.Promise.new())

    def state_changed(self, rtc, _):
        state = rtc.get_property("connection-state").value_nick
        say("state", connection=state, ice=rtc.get_property("ice-connection-state").value_nick)

    def hear(self, rtc, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        listener = Gst.parse_bin_from_description(LISTENER.format(file=self.file), True)
        self.pipeline.add(listener)
        listener.sync_state_with_parent()
        pad.link(listener.get_static_pad("sink"))
        say("audio")

    def hang_up(self):
        if self.location:
            end = urllib.request.Request(f"{self.location}/hangup", b"", method="POST")
            try:
                with urllib.request.urlopen(end, timeout=10) as response:
                    say("hangup", status=response.status)
            except urllib.error.HTTPError as error:
                say("hangup", status=error.code)
            except OSError as error:
                say("error", message=f"hangup: {error}")
        self.loop.quit()


Gst.init(None)
Call(sys.argv[1], float(sys.argv[2]), sys.argv[3]).run()
