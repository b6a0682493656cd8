// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// Whatever comes from the network never traps and, with keys that nobody knows, never passes; whatever we can protect, we read back.
/// The first byte chooses the profile, the rest is the packet.
public func fuzzSRTP(_ bytes: RawSpan) {
    guard bytes.byteCount >= 1, bytes.byteCount <= 2048 else { return }
    let profile = SRTPProfile.allCases[Int(bytes.byte(0)) % SRTPProfile.allCases.count]
    let master = SRTPMasterKey(
        key: [UInt8](repeating: 0x5A, count: profile.keyLength), salt: [UInt8](repeating: 0xA5, count: profile.saltLength))
    guard var context = try? SRTPContext(profile: profile, local: master, remote: master, engine: .own) else {
        fatalError("keys of the right length are rejected")
    }
    let packet = bytes.bytes(1..<bytes.byteCount)
    let count = packet.byteCount

    // As it is, twice: the second time finds what the first one left.
    for _ in 0..<2 {
        accept(packet) { (buffer: inout MutableRawSpan) throws(SRTPError) in try context.unprotectRTP(&buffer, length: count) }
        accept(packet) { (buffer: inout MutableRawSpan) throws(SRTPError) in try context.unprotectRTCP(&buffer, length: count) }
    }

    // As a plain packet of ours.
    var storage = InlineArray<2112, UInt8>(repeating: 0)
    var elements = storage.mutableSpan
    var buffer = elements.mutableBytes
    if count > 0 { buffer.copy(packet, to: 0) }
    if let protected = try? context.protectRTP(&buffer, length: count) {
        precondition(protected == count + profile.rtpOverhead, "a protected packet has another length")
        precondition((try? context.unprotectRTP(&buffer, length: protected)) == count, "what we protect we do not read")
        precondition(buffer.bytes.bytes(0..<count).elementsEqual(packet), "what we read is not what we protected")
    }
    if count > 0 { buffer.copy(packet, to: 0) }
    if let protected = try? context.protectRTCP(&buffer, length: count) {
        precondition(protected == count + profile.rtcpOverhead, "a protected packet has another length")
        precondition((try? context.unprotectRTCP(&buffer, length: protected)) == count, "what we protect we do not read")
        precondition(buffer.bytes.bytes(0..<count).elementsEqual(packet), "what we read is not what we protected")
    }
}

/// Runs a verb over a copy of `packet`; a result must be shorter than the packet.
private func accept(_ packet: RawSpan, _ verb: (inout MutableRawSpan) throws(SRTPError) -> Int) {
    var storage = InlineArray<2112, UInt8>(repeating: 0)
    var elements = storage.mutableSpan
    var buffer = elements.mutableBytes
    if packet.byteCount > 0 { buffer.copy(packet, to: 0) }
    if let plain = try? verb(&buffer) { precondition(plain >= 8 && plain < packet.byteCount, "a plain packet is longer than it was") }
}
