import Primitives
import Testing

@Suite struct FrameRingTests {
    private struct Frame: Equatable {
        var bytes: [UInt8]
        var stamp: UInt64
        var tag: UInt64
    }

    /// The model is an array. Frames and their headers wrap around everywhere; what does not fit is refused, and only that.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `frames come out as they went in`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let capacity = 700 + Int(seed)
        var ring = FrameRing(byteCapacity: capacity)
        var model: [Frame] = []
        for _ in 0..<20_000 {
            let used = model.reduce(0) { $0 + 18 + $1.bytes.count }
            if Bool.random(using: &random) {
                let bytes = (0..<Int.random(in: 0...300, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                let frame = Frame(bytes: bytes, stamp: random.next() >> 1, tag: random.next())
                let isTaken = ring.append(bytes.span.bytes, stamp: Instant(nanoseconds: frame.stamp), tag: frame.tag)
                #expect(isTaken == (used + 18 + bytes.count <= capacity))
                if isTaken { model.append(frame) }
            } else {
                let found = Self.removeFirst(from: &ring, room: 2048)
                #expect(found == model.first)
                if !model.isEmpty { model.removeFirst() }
            }
            let (count, next) = (ring.count, ring.nextStamp)
            #expect(count == model.count)
            #expect(next.nanoseconds == model.first?.stamp ?? .max)
        }
    }

    @Test func `a frame that is longer than the room is cut off and lost`() {
        var ring = FrameRing(byteCapacity: 100)
        let bytes: [UInt8] = [1, 2, 3, 4, 5]
        let isTaken = ring.append(bytes.span.bytes, stamp: .zero, tag: 7)
        #expect(isTaken)
        let found = Self.removeFirst(from: &ring, room: 3)
        #expect(found == Frame(bytes: [1, 2, 3], stamp: 0, tag: 7))
        let isEmpty = ring.isEmpty
        #expect(isEmpty)
    }

    private static func removeFirst(from ring: inout FrameRing, room: Int) -> Frame? {
        var memory = ByteSlab(count: 1, slotSize: 2048)
        var header: FrameRing.Header?
        let length = memory.write(0, 0..<room) { header = ring.removeFirst(into: &$0) }
        return header.map { Frame(bytes: memory.bytes(0, length).array, stamp: $0.stamp.nanoseconds, tag: $0.tag) }
    }
}
