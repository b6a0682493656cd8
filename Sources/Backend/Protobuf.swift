import Primitives

// The wire format of Protocol Buffers (protobuf.dev/programming-guides/encoding), as far as swiftlet.proto has it: varints and lengths.

/// Why bytes are no message.
enum ProtobufError: Error, Equatable {
    /// A value goes beyond the message's end.
    case truncated
    /// More than ten bytes, or more than 64 bits.
    case varint
    /// Field number 0 or beyond 2²⁹ - 1, or a wire type that there is not; groups among them.
    case tag
    /// A known field of another wire type than the schema's.
    case type
    /// A text that is not UTF-8, or longer than we take.
    case text
}

/// Reads one message field by field. Fields that nobody knows are passed over, as the format wants it.
struct ProtobufReader: ~Escapable {
    enum Value {
        case varint(UInt64)
        /// Where in `bytes`.
        case bytes(Range<Int>)
        /// 4 or 8 bytes, which no field of ours has.
        case fixed
    }

    let bytes: RawSpan
    private var position = 0

    @_lifetime(copy bytes)
    init(_ bytes: RawSpan) { self.bytes = bytes }

    /// The next field's number and value; nil at the end.
    mutating func next() throws(ProtobufError) -> (number: UInt64, value: Value)? {
        guard position < bytes.byteCount else { return nil }
        let tag = try varint()
        let number = tag >> 3
        guard (1..<(1 << 29)).contains(number) else { throw .tag }
        switch tag & 7 {
        case 0: return (number, .varint(try varint()))
        case 1:
            _ = try take(8)
            return (number, .fixed)
        case 2:
            let length = try varint()
            guard length <= UInt64(bytes.byteCount - position) else { throw .truncated }
            return (number, .bytes(try take(Int(length))))
        case 5:
            _ = try take(4)
            return (number, .fixed)
        default: throw .tag
        }
    }

    private mutating func take(_ count: Int) throws(ProtobufError) -> Range<Int> {
        guard count <= bytes.byteCount - position else { throw .truncated }
        defer { position += count }
        return position..<(position + count)
    }

    private mutating func varint() throws(ProtobufError) -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard position < bytes.byteCount else { throw .truncated }
            let byte = bytes.byte(position)
            position += 1
            guard shift < 63 || byte <= 1 else { throw .varint }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
        }
        throw .varint
    }
}

extension ProtobufReader.Value {
    /// The range of a text or a message inside.
    func range() throws(ProtobufError) -> Range<Int> {
        guard case .bytes(let range) = self else { throw .type }
        return range
    }

    func number() throws(ProtobufError) -> UInt64 {
        guard case .varint(let number) = self else { throw .type }
        return number
    }

    /// - Parameter limit: of bytes.
    func text(_ bytes: RawSpan, limit: Int) throws(ProtobufError) -> String {
        let range = try range()
        guard range.count <= limit, let text = String(validating: bytes.bytes(range).array, as: UTF8.self) else { throw .text }
        return text
    }
}

/// Writes one message. Fields of their default value are left out, as proto3 wants it.
struct ProtobufWriter {
    private(set) var bytes: [UInt8] = []

    mutating func write(_ field: UInt64, _ value: UInt64) {
        guard value != 0 else { return }
        varint(field << 3)
        varint(value)
    }

    mutating func write(_ field: UInt64, _ value: Bool) { write(field, value ? 1 as UInt64 : 0) }

    mutating func write(_ field: UInt64, _ text: String) {
        guard !text.isEmpty else { return }
        lengthed(field, text.utf8.count)
        bytes += text.utf8
    }

    mutating func write(_ field: UInt64, _ data: [UInt8]) {
        guard !data.isEmpty else { return }
        lengthed(field, data.count)
        bytes += data
    }

    /// 16-bit little-endian PCM.
    mutating func write(_ field: UInt64, _ samples: Span<Int16>) {
        guard !samples.isEmpty else { return }
        lengthed(field, 2 * samples.count)
        for index in samples.indices {
            bytes.append(UInt8(truncatingIfNeeded: samples[index]))
            bytes.append(UInt8(truncatingIfNeeded: samples[index] >> 8))
        }
    }

    /// A message inside, even an empty one: in a `oneof` its presence is what it says.
    mutating func write(_ field: UInt64, _ message: ProtobufWriter) {
        lengthed(field, message.bytes.count)
        bytes += message.bytes
    }

    private mutating func lengthed(_ field: UInt64, _ length: Int) {
        varint(field << 3 | 2)
        varint(UInt64(length))
    }

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
}
