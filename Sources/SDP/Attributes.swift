// The attributes of an offer, one by one.

import Primitives

extension SDPOffer {
    mutating func read(_ name: String, _ value: SDPText, _ line: Int, _ limits: SDPLimits) throws(SDPError) {
        switch name {
        case "ice-lite": iceLite = true
        case "group":
            let fields = value.fields
            guard let semantics = fields.first, semantics.elementsEqual("BUNDLE".utf8) else { return }
            guard bundleGroups.count < limits.mediaSections else { return }
            bundleGroups.append(fields.dropFirst().prefix(limits.mediaSections).map { $0.string })
        case "sendrecv", "sendonly", "recvonly", "inactive": direction = SDPDirection(rawValue: name)
        case "extmap": extensions.read(value)
        default: _ = try transport.read(name, value, line, limits)
        }
    }

    /// Checks what only shows when a section is complete.
    mutating func finishSection(_ limits: SDPLimits) throws(SDPError) {
        guard let section = media.last else { return }
        if let mid = section.mid, media.dropLast().contains(where: { $0.mid == mid }) { throw SDPError(.duplicateMid, line: section.line) }
        let payloadTypes = section.codecs.map { String($0.payloadType) }
        let inOrder = section.formats.compactMap { format in
            section.codecs.indices.first { !section.codecs[$0].name.isEmpty && payloadTypes[$0] == format }.map { section.codecs[$0] }
        }
        media[media.count - 1].codecs = inOrder
    }
}

extension SDPMediaSection {
    /// `m=<media> <port>[/<count>] <protocol> <format> …`
    init(_ line: SDPLine, _ limits: SDPLimits) throws(SDPError) {
        let fields = line.value.fields
        guard fields.count >= 4, fields[0].isToken, fields[2].isProtocol,
            let port = fields[1].cut(at: UInt8(ascii: "/")).0.decimal(upTo: 65_535)
        else { throw SDPError(.badMedia, line: line.number) }
        guard fields.count - 3 <= limits.formats else { throw SDPError(.tooManyFormats(limit: limits.formats), line: line.number) }
        guard fields[3...].allSatisfy({ $0.isToken }) else { throw SDPError(.badMedia, line: line.number) }
        self.line = line.number
        kind = fields[0].string
        self.port = UInt16(port)
        transportProtocol = fields[2].string
        formats = fields[3...].map { $0.string }
    }

    mutating func read(_ name: String, _ value: SDPText, _ line: Int, _ limits: SDPLimits) throws(SDPError) {
        switch name {
        case "mid":
            guard value.isToken else { throw SDPError(.badMid, line: line) }
            mid = value.string
        case "sendrecv", "sendonly", "recvonly", "inactive": direction = SDPDirection(rawValue: name)
        case "rtpmap": readRTPMap(value)
        case "fmtp": readFormatParameters(value)
        case "rtcp-fb": readFeedback(value)
        case "rtcp-mux": rtcpMux = true
        case "rtcp-rsize": rtcpReducedSize = true
        case "bundle-only": bundleOnly = true
        case "extmap": extensions.read(value)
        case "candidate":
            guard let candidate = SDPCandidate(value) else { return }
            candidates.append(candidate)
        case "end-of-candidates": endOfCandidates = true
        case "sctp-port":
            guard let port = value.decimal(upTo: 65_535) else { throw SDPError(.badSCTPPort, line: line) }
            sctpPort = UInt16(port)
        case "max-message-size":
            guard let size = value.decimal(upTo: .max) else { throw SDPError(.badMaxMessageSize, line: line) }
            maxMessageSize = size
        case "sctp-init": sctpInit = Base64.decode(value.string)
        case "sctpmap": hasSCTPMap = true
        case "msid": if msid == nil { msid = value.string }
        case "ssrc": readSource(value)
        default: _ = try transport.read(name, value, line, limits)
        }
    }

    /// `<payload type or *> <value>`; the first 64 count.
    private mutating func readFeedback(_ value: SDPText) {
        let fields = value.fields
        guard fields.count >= 2, feedback.count < 64 else { return }
        let text = fields[1...].map { $0.string }.joined(separator: " ")
        if fields[0].string == "*" {
            feedback.append(SDPFeedback(payloadType: nil, value: text))
        } else if let type = fields[0].decimal(upTo: 127) {
            feedback.append(SDPFeedback(payloadType: UInt8(type), value: text))
        }
    }

    /// Whether `value` may be sent as feedback about `payloadType`.
    func offersFeedback(_ value: String, of payloadType: UInt8) -> Bool {
        feedback.contains { $0.value == value && ($0.payloadType ?? payloadType) == payloadType }
    }

    /// `<payload type> <name>/<clock rate>[/<channels>]`. The first line of a payload type counts; malformed lines and types that
    /// the `m=` line does not have are passed over.
    private mutating func readRTPMap(_ value: SDPText) {
        let fields = value.fields
        guard fields.count == 2, let payloadType = fields[0].decimal(upTo: 127), formats.contains(String(payloadType)) else { return }
        let parts = fields[1].split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard (2...3).contains(parts.count), parts[0].isToken, let clockRate = parts[1].decimal(upTo: UInt64(UInt32.max)),
            let channels = parts.count == 3 ? parts[2].decimal(upTo: 255) : 1
        else { return }
        let codec = SDPCodec(
            payloadType: UInt8(payloadType), name: parts[0].string, clockRate: UInt32(clockRate), channels: UInt8(channels),
            parameters: "")
        guard let index = codecs.firstIndex(where: { $0.payloadType == codec.payloadType }) else { return codecs.append(codec) }
        // Firefox writes a=fmtp before a=rtpmap: the parameters waited here under a name that no codec has.
        if codecs[index].name.isEmpty {
            let parameters = codecs[index].parameters
            codecs[index] = codec
            codecs[index].parameters = parameters
        }
    }

    private mutating func readFormatParameters(_ value: SDPText) {
        let (format, parameters) = value.cut(at: UInt8(ascii: " "))
        guard let payloadType = format.decimal(upTo: 127), let parameters else { return }
        if let index = codecs.firstIndex(where: { $0.payloadType == UInt8(payloadType) }) {
            if codecs[index].parameters.isEmpty { codecs[index].parameters = parameters.trimmed.string }
        } else if formats.contains(String(payloadType)) {
            codecs.append(
                SDPCodec(payloadType: UInt8(payloadType), name: "", clockRate: 0, channels: 0, parameters: parameters.trimmed.string))
        }
    }

    /// `<ssrc> cname:<name>` or `<ssrc> <any other attribute>`.
    private mutating func readSource(_ value: SDPText) {
        let (number, attribute) = value.cut(at: UInt8(ascii: " "))
        guard let ssrc = number.decimal(upTo: UInt64(UInt32.max)) else { return }
        var index = sources.firstIndex { $0.ssrc == UInt32(ssrc) }
        if index == nil, sources.count < 16 {
            index = sources.count
            sources.append(SDPSource(ssrc: UInt32(ssrc)))
        }
        guard let index, let (name, content) = attribute?.cut(at: UInt8(ascii: ":")), name.elementsEqual("cname".utf8) else { return }
        sources[index].cname = content?.string
    }
}

extension [SDPExtension] {
    /// `<id>[/<direction>] <uri> [attributes]`; malformed ones and ids that are taken are passed over.
    fileprivate mutating func read(_ value: SDPText) {
        let fields = value.fields
        guard fields.count >= 2, count < 64 else { return }
        let (digits, restriction) = fields[0].cut(at: UInt8(ascii: "/"))
        guard let id = digits.decimal(upTo: UInt64(UInt16.max)), let direction = SDPDirection(rawValue: restriction?.string ?? "sendrecv"),
            !contains(where: { $0.id == UInt16(id) })
        else { return }
        append(SDPExtension(id: UInt16(id), uri: fields[1].string, direction: direction))
    }
}

extension SDPTransport {
    /// Reads one of the ICE and DTLS attributes; false where it is none.
    mutating func read(_ name: String, _ value: SDPText, _ line: Int, _ limits: SDPLimits) throws(SDPError) -> Bool {
        switch name {
        case "ice-ufrag":
            guard value.isICE(4...256) else { throw SDPError(.badUfrag, line: line) }
            ufrag = value.string
        case "ice-pwd":
            guard value.isICE(22...256) else { throw SDPError(.badPassword, line: line) }
            password = value.string
        case "ice-options": iceOptions = value.fields.prefix(16).map { $0.string }
        case "setup":
            guard let role = SDPSetup(rawValue: value.string) else { throw SDPError(.badSetup, line: line) }
            setup = role
        case "fingerprint":
            guard fingerprints.count < limits.fingerprints else {
                throw SDPError(.tooManyFingerprints(limit: limits.fingerprints), line: line)
            }
            if let fingerprint = try SDPFingerprint(value, line), !fingerprints.contains(fingerprint) { fingerprints.append(fingerprint) }
        default: return false
        }
        return true
    }
}

extension SDPFingerprint {
    /// `<hash> XX:XX:…`; nil for a hash that is not of SHA-2 (RFC 8122 §5 leaves SHA-1 and older to the past).
    init?(_ value: SDPText, _ line: Int) throws(SDPError) {
        let fields = value.fields
        guard fields.count == 2 else { throw SDPError(.badFingerprint, line: line) }
        let algorithm = fields[0].lowercasedString
        let count: Int
        switch algorithm {
        case "sha-224": count = 28
        case "sha-256": count = 32
        case "sha-384": count = 48
        case "sha-512": count = 64
        default: return nil
        }
        guard let bytes = Self.bytes(fields[1], count) else { throw SDPError(.badFingerprint, line: line) }
        self.init(algorithm: algorithm, bytes: bytes)
    }

    /// `count` pairs of hexadecimal digits with colons between them.
    private static func bytes(_ text: SDPText, _ count: Int) -> [UInt8]? {
        func digit(_ byte: UInt8) -> UInt8? {
            switch byte {
            case 0x30...0x39: byte - 0x30
            case 0x41...0x46: byte - 0x41 + 10
            case 0x61...0x66: byte - 0x61 + 10
            default: nil
            }
        }
        let span = text.span
        guard span.count == 3 * count - 1 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        for place in stride(from: 0, to: span.count, by: 3) {
            guard place == 0 || span[place - 1] == UInt8(ascii: ":"), let high = digit(span[place]), let low = digit(span[place + 1]) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        return bytes
    }
}
