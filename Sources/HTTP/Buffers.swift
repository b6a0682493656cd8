// Bytes between a socket and a machine. Taking from the front moves a mark, not the bytes: a peer that sends thousands of tiny
// requests at once costs no more than one that sends a large one.

import Primitives

/// Bytes that came from a socket and wait to be understood.
struct InputBuffer: Sendable {
    private(set) var bytes: [UInt8] = []
    /// Index in `bytes` of the first byte that was not taken. Moved forward by readers that take from `bytes` directly.
    var start = 0

    var count: Int { bytes.count - start }
    var isEmpty: Bool { count == 0 }

    subscript(index: Int) -> UInt8 { bytes[start + index] }

    func starts(with prefix: some Sequence<UInt8>) -> Bool { bytes[start...].starts(with: prefix) }

    /// Whether `byte` is among the first `limit` bytes.
    func contains(_ byte: UInt8, inFirst limit: Int) -> Bool { bytes[start...].prefix(limit).contains(byte) }

    mutating func append(_ more: RawSpan) {
        // Only here do bytes move, and only when at least half of them are behind the mark: constant cost per byte.
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: true)
            start = 0
        } else if start > 4_096, start > bytes.count / 2 {
            bytes.removeFirst(start)
            start = 0
        }
        unsafe more.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    }

    mutating func removeFirst(_ count: Int) { start += min(max(count, 0), self.count) }

    /// Removes and returns `count` bytes, or all when there are fewer.
    mutating func take(_ count: Int) -> [UInt8] {
        let taken = Array(bytes[start...].prefix(count))
        start += taken.count
        return taken
    }

    /// Removes and returns everything, and lets the memory go.
    mutating func takeAll() -> [UInt8] {
        let rest = take(count)
        self = InputBuffer()
        return rest
    }
}

/// Bytes on their way to a socket.
struct OutputBuffer: Sendable {
    private var bytes: [UInt8] = []
    private var sent = 0

    var count: Int { bytes.count - sent }

    var unsent: RawSpan {
        @_lifetime(borrow self)
        borrowing get { unsafe bytes.span.bytes.extracting(sent..<bytes.count) }
    }

    mutating func append(_ more: some Sequence<UInt8>) { bytes += more }

    /// Lets `write` append.
    mutating func append(_ write: (inout [UInt8]) -> Void) { write(&bytes) }

    /// Fields and the empty line that ends a head.
    mutating func append(_ headers: HTTPHeaders) {
        headers.write(to: &bytes)
        bytes += [0x0D, 0x0A]
    }

    mutating func discard(_ count: Int) {
        sent += min(max(count, 0), self.count)
        if sent == bytes.count {
            removeAll()
        } else if sent > 65_536, sent > bytes.count / 2 {
            bytes.removeFirst(sent)
            sent = 0
        }
    }

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: bytes.capacity <= 65_536)
        sent = 0
    }
}

/// Finds the empty line that ends a head, without looking at any byte twice however slowly the head comes.
struct HeadSearch: Sendable {
    private var searched = 0

    /// The count of bytes up to and with CR LF CR LF. A bare LF pair also ends the search: the parser then refuses it at once
    /// instead of letting the peer wait for its timeout.
    mutating func end(in input: InputBuffer) -> Int? {
        while searched < input.count {
            let index = searched
            searched += 1
            guard input[index] == 0x0A, index >= 1 else { continue }
            if input[index - 1] == 0x0A { return searched }
            if index >= 3, input[index - 1] == 0x0D, input[index - 2] == 0x0A { return searched }
        }
        return nil
    }
}
