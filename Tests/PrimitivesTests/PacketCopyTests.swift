// The inlined copy of packets: every length that it treats by itself, and what lies around.
import Primitives
import Testing

@Suite struct PacketCopyTests {
    /// What 512 bytes of 0xEE are after `body`.
    func changed(by body: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: 512)
        bytes.withUnsafeMutableBytes { body($0.baseAddress!) }
        return bytes
    }

    @Test func `a packet of any length arrives whole, and nothing around it changes`() {
        let packet = (0..<300).map { UInt8(truncatingIfNeeded: $0 * 7 + 1) }
        for length in 0...300 {
            for start in [0, 1, 24] {
                let bytes = changed { $0.copyPacket(packet.span.bytes.bytes(0..<length), from: start, to: start + length) }
                var wanted = [UInt8](repeating: 0xEE, count: 512)
                wanted.replaceSubrange(start..<start + length, with: packet[..<length])
                #expect(bytes == wanted, "\(length) bytes to \(start)")
            }
        }
    }

    @Test func `zeroes reach the end, and no more than 63 bytes further`() {
        for length in 0...200 {
            let bytes = changed { $0.zeroBlocks(from: 5, to: 5 + length) }
            #expect(bytes[..<5].allSatisfy { $0 == 0xEE } && bytes[(5 + length + 63)...].allSatisfy { $0 == 0xEE })
            #expect(bytes[5..<5 + length].allSatisfy { $0 == 0 })
        }
    }
}
