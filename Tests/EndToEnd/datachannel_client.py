"""A caller made of libdatachannel (PyPI `pylibdatachannel`): a data channel and no media; its SCTP is usrsctp, its ICE libjuice."""

import re
import threading

from pylibdatachannel import Description, DescriptionType, PeerConnection

from harness import wait_until


class LibdatachannelCall:
    """A call with one channel for events; what comes over it is in `texts`."""

    def __init__(self, server):
        self.server = server
        self.texts = []
        self.opened = threading.Event()

    def __enter__(self):
        self.peer = PeerConnection()
        self.channel = self.peer.create_data_channel("oai-events")
        self.channel.on_open(self.opened.set)
        self.channel.on_message(self.texts.append)
        return self

    def __exit__(self, *failure):
        self.channel.close()
        self.peer.close()

    def connect(self):
        offer = str(wait_until(self._offer, "the offer"))
        # Without candidates, as browsers send it: the server needs none.
        offer = re.sub(r"a=(candidate:.*|end-of-candidates)\r?\n", "", offer)
        answer = self.server.request("POST", "/v1/realtime/calls", offer, {"Content-Type": "application/sdp"})
        if answer.status != 201:
            raise AssertionError(f"the offer was answered with {answer}")
        self.peer.set_remote_description(Description(answer.text, DescriptionType.ANSWER))
        if not self.opened.wait(20):
            raise AssertionError(f"the channel did not open: {self.peer.state}")

    def _offer(self):
        return self.peer.local_description

    def send(self, text):
        self.channel.send(text)
