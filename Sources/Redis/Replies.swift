import CHiredis
import Glibc
import Primitives

/// A reply, reduced to what we tell apart.
public enum RedisReply: Sendable, Equatable {
    case string([UInt8])
    /// `READONLY …`, `WRONGTYPE …`: at most 200 bytes of it.
    case error(String)
    /// Integers and status lines: nothing that a value can be.
    case other
    case absent
    /// Of strings; what else was in it is an empty string.
    case array([[UInt8]])
}

/// How much a reply may be; a server that says more is not one that we asked.
public struct ReplyLimits: Sendable {
    /// Bytes without a whole reply.
    public var bytes = 65_536
    /// Elements of an array; 0: nothing that we ask is answered with one.
    public var elements = 0
    public init() {}
}

/// hiredis's reader: RESP in any pieces in, replies out.
struct ReplyReader: ~Copyable {
    enum Step {
        case reply(RedisReply)
        case incomplete
        case broken
    }

    private let reader: UnsafeMutablePointer<redisReader>?
    private let functions = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
    private let limits: ReplyLimits
    private var unfinished = 0

    init(_ limits: ReplyLimits) {
        self.limits = limits
        reader = redisReaderCreate()
        guard let reader else { return }
        // hiredis sets aside as many elements as the first line of an array claims, and older ones know no bound for that.
        reader.pointee.privdata = UnsafeMutableRawPointer(bitPattern: limits.elements)
        functions.initialize(to: reader.pointee.fn.pointee)
        functions.pointee.createArray = { task, count in
            guard let task = task?.pointee, task.parent == nil, count >= 0, Int(count) <= Int(bitPattern: task.privdata) else { return nil }
            // What `freeReplyObject` takes apart.
            guard let memory = calloc(1, MemoryLayout<redisReply>.size) else { return nil }
            let reply = memory.bindMemory(to: redisReply.self, capacity: 1)
            reply.pointee.type = REDIS_REPLY_ARRAY
            guard count > 0 else { return memory }
            guard let elements = calloc(Int(count), MemoryLayout<UnsafeMutablePointer<redisReply>?>.stride) else {
                free(memory)
                return nil
            }
            reply.pointee.element = elements.bindMemory(to: UnsafeMutablePointer<redisReply>?.self, capacity: Int(count))
            reply.pointee.elements = numericCast(count)
            return memory
        }
        reader.pointee.fn = functions
    }

    deinit {
        redisReaderFree(reader)
        functions.deallocate()
    }

    /// False when the bytes cannot be taken.
    mutating func feed(_ bytes: RawSpan) -> Bool {
        guard let reader else { return false }
        unfinished += bytes.byteCount
        guard unfinished <= limits.bytes else { return false }
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
            let first = UInt8(bitPattern: reader.pointee.buf[reader.pointee.pos])
            guard limits.elements > 0 || first != UInt8(ascii: "*") else { return .broken }
            // Sets, maps, pushes and attributes of RESP3, which nobody has asked for.
            guard !"~%>|".utf8.contains(first) else { return .broken }
        }
        var raw: UnsafeMutableRawPointer?
        guard redisReaderGetReply(reader, &raw) == REDIS_OK else { return .broken }
        guard let raw else { return .incomplete }
        unfinished = 0
        defer { freeReplyObject(raw) }
        let reply = raw.assumingMemoryBound(to: redisReply.self).pointee
        switch reply.type {
        case REDIS_REPLY_STRING: return .reply(.string(Self.bytes(of: reply)))
        case REDIS_REPLY_ERROR: return .reply(.error(String(decoding: Self.bytes(of: reply).prefix(200), as: UTF8.self)))
        case REDIS_REPLY_NIL: return .reply(.absent)
        case REDIS_REPLY_ARRAY: return .reply(.array(Self.elements(of: reply)))
        default: return .reply(.other)
        }
    }

    private static func bytes(of reply: redisReply) -> [UInt8] { Array(UnsafeRawBufferPointer(start: reply.str, count: reply.len)) }

    private static func elements(of reply: redisReply) -> [[UInt8]] {
        (0..<reply.elements).map { index in
            guard let element = reply.element?[index]?.pointee, element.type == REDIS_REPLY_STRING else { return [] }
            return bytes(of: element)
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
