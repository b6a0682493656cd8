import CHiredis
import Primitives

/// A reply, reduced to what the cache tells apart.
enum Reply {
    case string([UInt8])
    case error
    /// Integers and status lines: nothing that a flow's value can be.
    case other
    case absent
}

/// hiredis's reader: RESP in any pieces in, replies out.
struct ReplyReader: ~Copyable {
    enum Step {
        case reply(Reply)
        case incomplete
        case broken
    }

    /// Our replies are tens of bytes; whoever sends more without finishing one is not a Redis that we asked.
    private static let unfinishedMax = 65_536

    private let reader: UnsafeMutablePointer<redisReader>?
    private var unfinished = 0

    init() {
        reader = redisReaderCreate()
    }

    deinit { redisReaderFree(reader) }

    /// False when the bytes cannot be taken.
    mutating func feed(_ bytes: RawSpan) -> Bool {
        guard let reader else { return false }
        unfinished += bytes.byteCount
        guard unfinished <= Self.unfinishedMax else { return false }
        return bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return true }
            return redisReaderFeed(reader, base.assumingMemoryBound(to: CChar.self), buffer.count) == REDIS_OK
        }
    }

    mutating func next() -> Step {
        guard let reader else { return .broken }
        if reader.pointee.ridx < 0 {
            // hiredis begins a reply when it is asked for one, not when its first byte comes: then we would not see that byte.
            guard reader.pointee.pos < reader.pointee.len else { return .incomplete }
            // Nothing that we ask is answered with an array, and hiredis would allocate as many elements as the first line claims.
            guard reader.pointee.buf[reader.pointee.pos] != CChar(UInt8(ascii: "*")) else { return .broken }
        }
        var raw: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &raw) == REDIS_OK else { return .broken }
        guard let raw else { return .incomplete }
        unfinished = 0
        defer { freeReplyObject(raw) }
        let reply = raw.assumingMemoryBound(to: redisReply.self).pointee
        switch reply.type {
        case REDIS_REPLY_STRING:
            let bytes = UnsafeRawBufferPointer(start: reply.str, count: reply.len)
            return .reply(.string(Array(bytes)))
        case REDIS_REPLY_ERROR: return .reply(.error)
        case REDIS_REPLY_NIL: return .reply(.absent)
        default: return .reply(.other)
        }
    }
}

/// Appends one command in RESP, formatted by hiredis.
func formatCommand(_ arguments: [[UInt8]], into output: inout [UInt8]) {
    var flat: [CChar] = []
    for argument in arguments { flat += argument.map { CChar(bitPattern: $0) } }
    var lengths = arguments.map(\.count)
    var text: UnsafeMutablePointer<CChar>?
    let count = flat.withUnsafeBufferPointer { bytes in
        var start = 0
        var pointers: [UnsafePointer<CChar>?] = []
        for length in lengths {
            pointers.append(bytes.baseAddress.map { $0 + start })
            start += length
        }
        return redisFormatCommandArgv(&text, CInt(arguments.count), &pointers, &lengths)
    }
    precondition(count > 0 && text != nil, "hiredis formats what we give it unless memory is gone")
    output += UnsafeRawBufferPointer(start: text, count: Int(count))
    redisFreeCommand(text)
}
