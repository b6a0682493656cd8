import Primitives
import SDP
import TestSupport

let ourUfrag = "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
let ourPassword = "AbCdEfGhIjKlMnOpQrStUvWx"
let ourFingerprint = "sha-256 " + Array(repeating: "0F", count: 32).joined(separator: ":")
let relayV6 = SocketAddress(IPAddress(high: 0x2001_0DB8_0000_0000, low: 1), port: 3478)
let relayV4 = SocketAddress(IPAddress(v4: 0xC000_0201), port: 3478)

func settings(setup: SDPSetup = .active, candidates: [SocketAddress] = [relayV6, relayV4], sessionID: UInt64 = 7) -> AnswerSettings {
    AnswerSettings(
        ufrag: ourUfrag, password: ourPassword, fingerprint: ourFingerprint, candidates: candidates, ssrc: 4711, cname: "swiftlet",
        sessionID: sessionID, setup: setup)
}

func offer(_ text: String, limits: SDPLimits = .standard) throws(SDPError) -> SDPOffer {
    let bytes = Array(text.utf8)
    return try SDPOffer(parsing: bytes.span.bytes, limits: limits)
}

func negotiated(_ text: String, setup: SDPSetup = .active) throws(SDPError) -> Negotiation {
    try negotiate(offer(text), settings(setup: setup))
}

func fragment(_ text: String) throws(SDPError) -> TrickleFragment {
    let bytes = Array(text.utf8)
    return try TrickleFragment(parsing: bytes.span.bytes)
}

/// What is wrong with an offer; nil where it is answered.
func refusal(_ text: String, limits: SDPLimits = .standard) -> SDPError? {
    do {
        _ = try negotiate(offer(text, limits: limits), settings())
        return nil
    } catch {
        return error
    }
}

/// A file of Tests/Corpus/sdp.
func corpus(_ name: String) -> String {
    guard let file = Corpus.files(in: "sdp").first(where: { $0.name == name }) else { fatalError("no \(name) in the corpus") }
    return String(decoding: file.bytes, as: UTF8.self)
}

/// The lines of an answer, in its sections: the session's first.
func sections(_ answer: String) -> [[String]] {
    var sections: [[String]] = [[]]
    for line in answer.split(separator: "\r\n", omittingEmptySubsequences: false) where !line.isEmpty {
        if line.hasPrefix("m=") { sections.append([]) }
        sections[sections.count - 1].append(String(line))
    }
    return sections
}

func occurrences(of line: String, in text: String) -> Int { text.split(separator: "\r\n").filter { $0 == line }.count }

extension String {
    /// The text with every line that begins with `prefix` taken out.
    func without(_ prefix: String) -> String {
        split(separator: "\r\n").filter { !$0.hasPrefix(prefix) }.map { $0 + "\r\n" }.joined()
    }

    func replacing(_ old: String, with new: String) -> String {
        var result = ""
        var rest = self[...]
        while let range = rest.firstRange(of: old) {
            result += rest[..<range.lowerBound] + new
            rest = rest[range.upperBound...]
        }
        return result + rest
    }
}

let theirFingerprint = "sha-256 " + Array(repeating: "AB", count: 32).joined(separator: ":")

/// A small offer with one audio section and what a test wants different.
func audioOffer(
    session: [String] = ["a=group:BUNDLE 0"], formats: String = "111", direction: String? = "a=sendrecv",
    setup: String? = "a=setup:actpass",
    mid: String? = "a=mid:0", extra: [String] = [], then more: [String] = []
) -> String {
    var lines = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0"] + session
    lines += ["m=audio 9 UDP/TLS/RTP/SAVPF \(formats)", "c=IN IP4 0.0.0.0"]
    lines += ["a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuv", "a=fingerprint:\(theirFingerprint)"]
    lines += [setup, mid, direction].compactMap(\.self)
    lines += ["a=rtcp-mux", "a=rtpmap:111 opus/48000/2"] + extra + more
    return lines.map { $0 + "\r\n" }.joined()
}

/// A data channel section for `audioOffer(then:)`.
func dataSection(mid: String = "1", port: Int = 9, extra: [String] = ["a=sctp-port:5000"]) -> [String] {
    ["m=application \(port) UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:\(mid)"] + [
        "a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuv", "a=fingerprint:\(theirFingerprint)", "a=setup:actpass",
    ] + extra
}
