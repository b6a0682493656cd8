// The frame layer of WebSocket (RFC 6455 §5): two to fourteen bytes of header, then a payload that a client masks.

import Primitives

/// What a frame carries (RFC 6455 §5.2).
enum WebSocketOpcode: UInt8, Sendable {
    case continuation = 0
    case text = 1
    case binary = 2
    case close = 8
    case ping = 9
    case pong = 10

    var isControl: Bool { rawValue >= 8 }
}

/// The four bytes that a client's payload is combined with (RFC 6455 §5.3).
struct WebSocketMask: Sendable, Equatable {
    /// The key as it stands on the wire, first byte highest.
    var key: UInt32

    /// Combines `bytes[start...]`, whose first byte is the payload's byte number `offset`, with the key.
    func apply(to bytes: inout [UInt8], from start: Int, offset: Int) {
        guard key != 0, start < bytes.count else { return }
        let turn = UInt32(truncatingIfNeeded: offset & 3) * 8
        let turned = turn == 0 ? key : key << turn | key >> (32 - turn)
        let wide = UInt64(turned) << 32 | UInt64(turned)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        var place = start
        while place + 8 <= raw.byteCount {
            raw.set(raw.bytes.u64(place) ^ wide, at: place)
            place += 8
        }
        var shift: UInt64 = 56
        while place < raw.byteCount {
            raw.set(raw.byte(place) ^ UInt8(truncatingIfNeeded: wide >> shift), at: place)
            place += 1
            shift -= 8
        }
    }
}

/// A frame's header.
struct WebSocketFrameHeader: Sendable, Equatable {
    var opcode: WebSocketOpcode
    var isFinal: Bool
    /// Bytes of payload.
    var length: Int
    var mask: WebSocketMask?

    init(_ opcode: WebSocketOpcode, isFinal: Bool = true, length: Int, mask: WebSocketMask? = nil) {
        self.opcode = opcode
        self.isFinal = isFinal
        self.length = length
        self.mask = mask
    }

    /// Takes a header off the front of `input`; nil while it is not all there. Everything that can be wrong is said as soon as it is seen.
    ///
    /// - Parameter masked: whether the peer must mask, which is to say whether it is the client.
    init?(from input: inout InputBuffer, masked: Bool) throws(WebSocketFailure) {
        guard input.count >= 1 else { return nil }
        let first = input[0]
        guard first & 0x70 == 0 else { throw .reservedBits }
        guard let opcode = WebSocketOpcode(rawValue: first & 0x0F) else { throw .unknownOpcode }
        isFinal = first & 0x80 != 0
        guard isFinal || !opcode.isControl else { throw .fragmentedControl }
        guard input.count >= 2 else { return nil }
        let second = input[1]
        guard (second & 0x80 != 0) == masked else { throw .wrongMasking }
        let short = Int(second & 0x7F)
        guard short <= 125 || !opcode.isControl else { throw .longControl }
        let extended = short == 127 ? 8 : short == 126 ? 2 : 0
        let size = 2 + extended + (masked ? 4 : 0)
        guard input.count >= size else { return nil }
        var value: UInt64 = 0
        for index in 2..<(2 + extended) { value = value << 8 | UInt64(input[index]) }
        if extended == 0 { value = UInt64(short) }
        // RFC 6455 §5.2: the shortest form, and the highest bit of the long one is zero.
        guard extended == 0 || value >= (extended == 2 ? 126 : 65_536), value <= UInt64(Int64.max) else { throw .badLength }
        var key: UInt32 = 0
        if masked { for index in (size - 4)..<size { key = key << 8 | UInt32(input[index]) } }
        self.opcode = opcode
        length = Int(value)
        mask = masked ? WebSocketMask(key: key) : nil
        input.removeFirst(size)
    }

    /// Appends the header as it goes over the wire.
    func write(to output: inout [UInt8]) {
        output.append((isFinal ? 0x80 : 0) | opcode.rawValue)
        let bit: UInt8 = mask == nil ? 0 : 0x80
        if length < 126 {
            output.append(bit | UInt8(truncatingIfNeeded: length))
        } else if length < 65_536 {
            output.append(bit | 126)
            for shift in [8, 0] { output.append(UInt8(truncatingIfNeeded: length >> shift)) }
        } else {
            output.append(bit | 127)
            for shift in stride(from: 56, through: 0, by: -8) { output.append(UInt8(truncatingIfNeeded: length >> shift)) }
        }
        if let mask { for shift: UInt32 in [24, 16, 8, 0] { output.append(UInt8(truncatingIfNeeded: mask.key >> shift)) } }
    }

    /// Appends a whole frame.
    static func write(_ opcode: WebSocketOpcode, _ payload: some Collection<UInt8>, mask: WebSocketMask?, to output: inout [UInt8]) {
        WebSocketFrameHeader(opcode, length: payload.count, mask: mask).write(to: &output)
        let start = output.count
        output += payload
        mask?.apply(to: &output, from: start, offset: 0)
    }
}

/// Checks text that comes in pieces (RFC 3629): fails at the first byte that no valid text can have at its place.
struct UTF8Check: Sendable {
    /// Continuation bytes that the character under way still needs.
    private var missing = 0
    /// What the next continuation byte may be: narrower than 80…BF after E0, ED, F0 and F4.
    private var low: UInt8 = 0x80
    private var high: UInt8 = 0xBF

    /// Between two characters.
    var isComplete: Bool { missing == 0 }

    /// False when `bytes` cannot go on from what came before.
    mutating func accept(_ bytes: ArraySlice<UInt8>) -> Bool {
        for byte in bytes {
            if missing == 0 {
                switch byte {
                case 0..<0x80: continue
                case 0xC2...0xDF: missing = 1
                case 0xE0...0xEF: missing = 2
                case 0xF0...0xF4: missing = 3
                default: return false
                }
                // No overlong forms, no surrogates, nothing beyond U+10FFFF.
                low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80
                high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF
            } else {
                guard byte >= low, byte <= high else { return false }
                missing -= 1
                low = 0x80
                high = 0xBF
            }
        }
        return true
    }
}
