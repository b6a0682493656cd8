"""A TLS server on file descriptor 0, with Python's ssl module and certificates made here.

tls_peer.py CASE FILE   writes the authority's certificate to FILE, sends one "!" to say so, and serves one connection:

echo tls12 wrong-name expired not-yet unknown-authority self-signed wildcard partial-wildcard address not-a-server
              what comes goes back, until the client's goodbye, which is answered
old           nothing newer than TLS 1.1
goodbye       "bye", TLS's own end, and a plain "done" once the client has ended it too
abrupt        "half" and the end of the stream, without goodbye
plain         an answer that is no TLS
client-certificate    asks for a certificate that the client does not have
realtime      a WebSocket that speaks enough of the Realtime API for one turn
"""

import base64
import datetime
import ipaddress
import json
import os
import socket
import ssl
import sys
import tempfile
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(text):
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name(text)).issuer_name(name(text)).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2)).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def leaf(issuer, names, begins=-1, ends=1, usage=ExtendedKeyUsageOID.SERVER_AUTH):
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    issuer_key, issuer_name = (issuer[0], issuer[1].subject) if issuer else (key, name("leaf"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name("leaf")).issuer_name(issuer_name).public_key(key.public_key()).serial_number(2)
        .not_valid_before(now + datetime.timedelta(days=begins)).not_valid_after(now + datetime.timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return key, certificate


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def context_for(case, ours):
    good = [x509.DNSName("backend.example")]
    key, certificate = {
        "wrong-name": lambda: leaf(ours, [x509.DNSName("other.example")]),
        "expired": lambda: leaf(ours, good, begins=-2, ends=-1),
        "not-yet": lambda: leaf(ours, good, begins=1, ends=2),
        "unknown-authority": lambda: leaf(authority("somebody else"), good),
        "self-signed": lambda: leaf(None, good),
        "wildcard": lambda: leaf(ours, [x509.DNSName("*.voice.example")]),
        "partial-wildcard": lambda: leaf(ours, [x509.DNSName("b*.example")]),
        "address": lambda: leaf(ours, [x509.IPAddress(ipaddress.ip_address("192.0.2.7"))]),
        "not-a-server": lambda: leaf(ours, good, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
    }.get(case, lambda: leaf(ours, good))()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "leaf.pem")
        with open(path, "wb") as file:
            file.write(pem(certificate))
            file.write(key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        context.load_cert_chain(path)
    if case == "tls12":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if case == "old":
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    if case == "client-certificate":
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if case == "echo":
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def echo(stream):
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.unwrap()


def realtime(stream):
    from websockets.frames import Opcode
    from websockets.http11 import Request
    from websockets.server import ServerProtocol

    protocol = ServerProtocol()
    heard = bytearray()

    def say(**event):
        protocol.send_text(json.dumps(event).encode())

    while data := stream.recv(65536):
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                accepted = event.headers.get("Authorization") == "Bearer sk-1" and event.path == "/v1/realtime?model=m"
                protocol.send_response(protocol.accept(event) if accepted else protocol.reject(401, "no\n"))
                if accepted:
                    say(type="session.created", event_id="e", session={})
            elif event.opcode is Opcode.TEXT:
                message = json.loads(event.data)
                if message["type"] == "input_audio_buffer.append":
                    heard += base64.b64decode(message["audio"])
                elif message["type"] == "response.create":
                    say(type="response.created", response={"id": "r"})
                    for place in range(0, len(heard), 9_601):
                        delta = base64.b64encode(heard[place : place + 9_601]).decode()
                        say(type="response.output_audio.delta", response_id="r", item_id="i", delta=delta)
                    say(type="response.output_audio_transcript.delta", response_id="r", delta="Grüß Gott")
                    say(type="response.done", response={"id": "r", "status": "completed"})
        for piece in protocol.data_to_send():
            if piece:
                stream.sendall(piece)


def main(case, path):
    ours = authority("the authority of this test")
    context = context_for(case, ours)
    with open(path, "wb") as file:
        file.write(pem(ours[1]))
    with socket.socket(fileno=0) as raw:
        raw.sendall(b"!")
        if case == "plain":
            raw.recv(65536)
            raw.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        try:
            stream = context.wrap_socket(raw, server_side=True)
        except (ssl.SSLError, ConnectionError, OSError):
            return
        with stream:
            if case == "abrupt":
                stream.sendall(b"half")
            elif case == "goodbye":
                stream.sendall(b"bye")
                with stream.unwrap() as plain:
                    plain.sendall(b"done")
            elif case == "realtime":
                realtime(stream)
            else:
                try:
                    echo(stream)
                except (ssl.SSLError, OSError):
                    pass


main(*sys.argv[1:])
