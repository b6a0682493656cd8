// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// The key of the vectors and of the corpus: 00 01 … 0f.
public let wellKnownTrunkKey = SipKey(k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908)

/// Reading never traps; a frame that is read and written again is the same frame up to its padding.
public func fuzzTrunk(_ bytes: RawSpan) {
    checkRewriting(bytes)
    // The same bytes with the right tag, so that mutations get past it.
    guard bytes.byteCount >= 24, bytes.byteCount <= 2048 else { return }
    var copy = InlineArray<2048, UInt8>(repeating: 0)
    var span = copy.mutableSpan
    var target = unsafe span.mutableBytes
    target.copy(bytes, to: 0)
    let length = bytes.byteCount
    // Only frames whose records lie inside can have a tag at all.
    let key = TrunkKey(wellKnownTrunkKey)
    guard let (tag, _) = TrunkFrame.tag(of: bytes, recordCount: Int(bytes.byte(11)), key: key) else { return }
    target.set(tag, at: 16)
    checkRewriting(target.bytes.bytes(0..<length))
}

private func checkRewriting(_ bytes: RawSpan) {
    guard bytes.byteCount <= 2048, var frame = try? TrunkFrame(parsing: bytes, key: wellKnownTrunkKey) else { return }
    _ = frame.probe
    var again = InlineArray<4096, UInt8>(repeating: 0)
    var span = again.mutableSpan
    var buffer = unsafe span.mutableBytes
    var writer = TrunkWriter(limit: 4096)
    let header = frame.header
    var count = 0
    while let record = frame.nextRecord() {
        let fitted = writer.append(client: record.client, session: record.session, payload: record.payload, to: &buffer)
        precondition(fitted, "a frame that was read does not fit")
        count += 1
    }
    precondition(count == frame.recordCount && writer.length <= bytes.byteCount)
    writer.finish(header, key: wellKnownTrunkKey, in: &buffer)
    // Reserved bytes 13–15 are not kept: a future sender may fill them.
    guard bytes.byte(13) == 0, bytes.u16(14) == 0 else { return }
    precondition(buffer.bytes.bytes(0..<writer.length).elementsEqual(bytes.bytes(0..<writer.length)), "a frame changes when written again")
}
