// What a simulated client says to signaling and reads out of its answers.

import DTLS
import ICE
import Primitives

/// What a client reads out of an answer.
struct AnswerFacts {
    var remote: ICECredentials
    var fingerprint: DTLSFingerprint
    var weAreDTLSClient: Bool
    var relay: SocketAddress

    init?(_ sdp: String) {
        guard let remote = ICECredentials(in: sdp), let text = value(of: "fingerprint", in: sdp),
            let fingerprint = DTLSFingerprint(sdpText: text), let candidate = value(of: "candidate", in: sdp)
        else { return nil }
        let words = candidate.split(separator: " ")
        guard words.count > 5, let ip = IPAddress(String(words[4])), let port = UInt16(words[5]) else { return nil }
        self.remote = remote
        self.fingerprint = fingerprint
        weAreDTLSClient = value(of: "setup", in: sdp) == "passive"
        relay = SocketAddress(ip, port: port)
    }
}

extension ICECredentials {
    /// The first credentials of an answer, or of the fragment that answers a restart.
    init?(in text: String) {
        guard let ufrag = value(of: "ice-ufrag", in: text), let password = value(of: "ice-pwd", in: text) else { return nil }
        self.init(ufrag: ufrag, password: password)
    }
}

private func value(of name: String, in text: String) -> String? {
    let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("a=\(name):") }
    return line.map { String($0.dropFirst(name.count + 3)) }
}

/// The smallest offer of a call.
func simulatedOffer(_ credentials: ICECredentials, fingerprint: DTLSFingerprint, ssrc: UInt32) -> String {
    [
        "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0",
        "a=mid:0", "a=sendrecv", "a=rtcp-mux", "a=ice-ufrag:\(credentials.ufrag)", "a=ice-pwd:\(credentials.password)",
        "a=fingerprint:\(fingerprint.sdpText)", "a=setup:actpass", "a=rtpmap:111 opus/48000/2", "a=ssrc:\(ssrc) cname:simulated",
    ].map { $0 + "\r\n" }.joined()
}

/// The body of a PATCH that restarts ICE (RFC 9725 §4.3.3).
func simulatedRestart(_ credentials: ICECredentials) -> String {
    ["m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", "a=ice-ufrag:\(credentials.ufrag)", "a=ice-pwd:\(credentials.password)"]
        .map { $0 + "\r\n" }.joined()
}
