// The chunked transfer coding (RFC 9112 §7.1), decoded in place with a bound. No extensions and no trailer fields: nobody who
// talks to us sends them, and both have been used to smuggle.

import Primitives

struct ChunkedDecoder {
    private enum State { case size, data(left: Int), dataEnd, end }
    private var state = State.size
    private let limit: Int
    private(set) var body: [UInt8] = []

    init(limit: Int) { self.limit = limit }

    /// Takes what it can from `input`, starting at `place`; true once the last chunk was seen.
    mutating func consume(_ input: [UInt8], from place: inout Int) throws(HTTPFailure) -> Bool {
        while true {
            switch state {
            case .size:
                guard let (size, end) = try sizeLine(input, place) else { return false }
                guard size <= limit - body.count else { throw .bodyTooLarge }
                place = end
                state = size == 0 ? .end : .data(left: size)
            case .data(let left):
                let count = min(left, input.count - place)
                body += input[place..<(place + count)]
                place += count
                guard count == left else {
                    state = .data(left: left - count)
                    return false
                }
                state = .dataEnd
            case .dataEnd:
                guard try lineEnd(input, &place) else { return false }
                state = .size
            case .end: return try lineEnd(input, &place)
            }
        }
    }

    /// 1 to 8 hexadecimal digits and CR LF.
    private func sizeLine(_ input: [UInt8], _ place: Int) throws(HTTPFailure) -> (size: Int, end: Int)? {
        var size = 0
        var index = place
        while index < input.count, let digit = hexDigit(input[index]) {
            guard index - place < 8 else { throw .badChunk }
            size = size << 4 | Int(digit)
            index += 1
        }
        guard index < input.count else { return nil }
        guard index > place, input[index] == 0x0D else { throw .badChunk }
        guard index + 1 < input.count else { return nil }
        guard input[index + 1] == 0x0A else { throw .badChunk }
        return (size, index + 2)
    }

    private func lineEnd(_ input: [UInt8], _ place: inout Int) throws(HTTPFailure) -> Bool {
        if place < input.count, input[place] != 0x0D { throw .badChunk }
        guard place + 1 < input.count else { return false }
        guard input[place + 1] == 0x0A else { throw .badChunk }
        place += 2
        return true
    }
}
