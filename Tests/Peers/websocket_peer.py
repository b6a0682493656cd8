"""One end of a WebSocket on file descriptor 0, with the Python package `websockets`.

websocket_peer.py server   takes one connection and echoes every message until the client closes
websocket_peer.py client   connects, checks that everything comes back as it was sent, and closes with 1000 "all came back",
                           or with 4000 and what went wrong
"""

import socket
import sys

from websockets.sync.client import connect
from websockets.server import ServerProtocol
from websockets.http11 import Request
from websockets.frames import Opcode

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 250_000, 1 << 20]


def serve(stream):
    protocol = ServerProtocol(subprotocols=["realtime"])
    while True:
        data = stream.recv(65536)
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
                protocol.send_ping(b"from python")
            elif event.opcode is Opcode.TEXT:
                # Back in three pieces with a ping between them.
                third = len(event.data) // 3
                protocol.send_text(event.data[:third], fin=False)
                protocol.send_ping(b"between")
                protocol.send_continuation(event.data[third : 2 * third], fin=False)
                protocol.send_continuation(event.data[2 * third :], fin=True)
            elif event.opcode is Opcode.BINARY:
                protocol.send_binary(event.data)
        for piece in protocol.data_to_send():
            if piece:
                stream.sendall(piece)
            else:
                stream.shutdown(socket.SHUT_WR)
        if not data:
            return


def call(stream):
    with connect(
        "ws://test/v1/realtime?model=m",
        sock=stream,
        subprotocols=["realtime", "openai-insecure-api-key.k"],
        max_size=None,
    ) as connection:
        problem = "" if connection.subprotocol == "realtime" else "subprotocol"
        for size in SIZES:
            for message in (bytes(range(256)) * (size // 256) + b"x" * (size % 256), "ä" * (size // 2) + "x" * (size % 2)):
                connection.send(message)
                if connection.recv(timeout=20) != message:
                    problem = f"{type(message).__name__} of {size}"
        connection.send(iter(["in ", "pie", "ces"]))
        if connection.recv(timeout=20) != "in pieces":
            problem = "fragments"
        if not connection.ping().wait(20):
            problem = "ping"
        connection.close(4000 if problem else 1000, problem or "all came back")


with socket.socket(fileno=0) as stream:
    serve(stream) if sys.argv[1] == "server" else call(stream)
