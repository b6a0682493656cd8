import Primitives

// The messages of Examples/backend/swiftlet.proto. We write what clients say and read what servers say, and nothing else of it.

/// A session in the words of the schema.
public struct GRPCSession: Sendable, Equatable {
    public var model = ""
    public var instructions = ""
    public var voice = ""
    public var isTextOnly = false
    /// The session object.
    public var json = ""
    public init() {}

    var message: ProtobufWriter {
        var message = ProtobufWriter()
        message.write(1, model)
        message.write(2, instructions)
        message.write(3, voice)
        message.write(4, isTextOnly)
        message.write(5, json)
        return message
    }
}

/// `ClientMessage`: what a backend is told. Positions count samples of the stream.
public enum GRPCClientMessage: Sendable, Equatable {
    case sessionStart(callID: String, GRPCSession, isResumed: Bool)
    case sessionUpdate(GRPCSession)
    case audio([Int16], position: UInt64, isConcealed: Bool)
    /// A stretch of `samples` as it came; without bytes nothing came, because it got lost or because the caller's Opus sends nothing in silence.
    case opus([UInt8], position: UInt64, samples: UInt64, isLost: Bool)
    case audioLost(position: UInt64, samples: UInt64)
    case turnStarted(position: UInt64)
    case turnCommitted(item: String)
    case inputCleared
    case itemCreated(id: String, role: String, text: String, json: String)
    case itemDeleted(id: String)
    case responseCreate(id: String, json: String, deadlineMilliseconds: UInt64)
    case responseCancel(id: String)
    case truncated(response: String, item: String, samples: UInt64)

    /// The message as it travels, without gRPC's prefix.
    public var encoded: [UInt8] {
        var inner = ProtobufWriter()
        let field: UInt64
        switch self {
        case .sessionStart(let call, let session, let isResumed):
            field = 1
            inner.write(1, call)
            inner.write(2, session.message)
            inner.write(3, isResumed)
        case .sessionUpdate(let session):
            field = 2
            inner.write(1, session.message)
        case .audio(let samples, let position, let isConcealed):
            field = 3
            inner.write(1, samples.span)
            inner.write(2, position)
            inner.write(3, isConcealed)
        case .opus(let bytes, let position, let samples, let isLost):
            field = 3
            inner.write(2, position)
            inner.write(3, isLost)
            inner.write(4, bytes)
            inner.write(5, samples)
        case .audioLost(let position, let samples):
            field = 4
            inner.write(1, position)
            inner.write(2, samples)
        case .turnStarted(let position):
            field = 5
            inner.write(1, position)
        case .turnCommitted(let item):
            field = 6
            inner.write(1, item)
        case .inputCleared: field = 7
        case .itemCreated(let id, let role, let text, let json):
            field = 8
            inner.write(1, id)
            inner.write(2, role)
            inner.write(3, text)
            inner.write(4, json)
        case .itemDeleted(let id):
            field = 9
            inner.write(1, id)
        case .responseCreate(let id, let json, let deadline):
            field = 10
            inner.write(1, id)
            inner.write(2, json)
            inner.write(3, deadline)
        case .responseCancel(let id):
            field = 11
            inner.write(1, id)
        case .truncated(let response, let item, let samples):
            field = 12
            inner.write(1, response)
            inner.write(2, item)
            inner.write(3, samples)
        }
        var message = ProtobufWriter()
        message.write(field, inner)
        return message.bytes
    }
}

/// `ServerMessage`: what a backend says.
public enum GRPCServerMessage: Sendable, Equatable {
    /// Samples a second, in and out.
    case ready(inputRate: Int, outputRate: Int, takesOpus: Bool)
    case responseStarted(response: String)
    /// 16-bit little-endian PCM, at this place of the message's own bytes; a whole number of samples.
    case audio(response: String, pcm: Range<Int>)
    case transcriptDelta(response: String, text: String)
    case textDelta(response: String, text: String)
    case functionCall(response: String, name: String, callID: String, arguments: String)
    /// An empty `error` is none.
    case responseDone(response: String, error: String)
    case interrupt
    case inputTranscript(String)
    case error(code: String, message: String)
    /// Of a later version of the schema, or empty.
    case unknown

    /// Texts longer than this are refused.
    public static let textMax = 65_536
    /// Identifiers and names.
    private static let nameMax = 256

    /// nil: these bytes are no `ServerMessage`.
    public init?(parsing bytes: RawSpan) {
        do { self = try Self.parse(bytes) } catch { return nil }
    }

    private static func parse(_ bytes: RawSpan) throws(ProtobufError) -> GRPCServerMessage {
        var message = GRPCServerMessage.unknown
        var reader = ProtobufReader(bytes)
        // Of a `oneof` the last one counts.
        while let (number, value) = try reader.next() {
            guard (1...10).contains(number) else { continue }
            message = try parse(number, bytes, try value.range())
        }
        return message
    }

    private static func parse(_ field: UInt64, _ bytes: RawSpan, _ range: Range<Int>) throws(ProtobufError) -> GRPCServerMessage {
        let inner = bytes.bytes(range)
        // No message has more than four fields.
        var texts = (String(), String(), String(), String())
        var rates: (UInt64, UInt64) = (0, 0)
        var takesOpus: UInt64 = 0
        var pcm = range.lowerBound..<range.lowerBound
        var reader = ProtobufReader(inner)
        while let (number, value) = try reader.next() {
            switch (field, number) {
            case (1, 1): rates.0 = try value.number()
            case (1, 2): rates.1 = try value.number()
            case (1, 3): takesOpus = try value.number()
            case (3, 2):
                let place = try value.range()
                pcm = (range.lowerBound + place.lowerBound)..<(range.lowerBound + place.upperBound)
            case (2...7, 1), (10, 1): texts.0 = try value.text(inner, limit: nameMax)
            case (9, 1): texts.0 = try value.text(inner, limit: textMax)
            case (6, 2): texts.1 = try value.text(inner, limit: nameMax)
            case (4, 2), (5, 2), (7, 2), (10, 2): texts.1 = try value.text(inner, limit: textMax)
            case (6, 3): texts.2 = try value.text(inner, limit: nameMax)
            case (6, 4): texts.3 = try value.text(inner, limit: textMax)
            default: break
            }
        }
        switch field {
        case 1: return .ready(inputRate: try rate(rates.0), outputRate: try rate(rates.1), takesOpus: takesOpus != 0)
        case 2: return .responseStarted(response: texts.0)
        case 3:
            guard pcm.count.isMultiple(of: 2) else { throw .type }
            return .audio(response: texts.0, pcm: pcm)
        case 4: return .transcriptDelta(response: texts.0, text: texts.1)
        case 5: return .textDelta(response: texts.0, text: texts.1)
        case 6: return .functionCall(response: texts.0, name: texts.1, callID: texts.2, arguments: texts.3)
        case 7: return .responseDone(response: texts.0, error: texts.1)
        case 8: return .interrupt
        case 9: return .inputTranscript(texts.0)
        case 10: return .error(code: texts.0, message: texts.1)
        default: return .unknown
        }
    }

    private static func rate(_ value: UInt64) throws(ProtobufError) -> Int {
        switch value {
        case 0: return 24_000
        case 8_000, 16_000, 24_000, 48_000: return Int(value)
        default: throw .type
        }
    }
}

/// Whatever a backend sends is a message or none, and audio lies inside it.
public func fuzzGRPCMessage(_ bytes: RawSpan) {
    guard let message = GRPCServerMessage(parsing: bytes) else { return }
    if case .audio(_, let pcm) = message {
        precondition(pcm.lowerBound >= 0 && pcm.upperBound <= bytes.byteCount && pcm.count.isMultiple(of: 2), "audio outside its message")
    }
}
