// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Primitives

/// Parsing never traps; ranges lie inside the packet; a header written again reads the same. The same bytes, taken as a series
/// of sequence numbers, never trap the receiver.
public func fuzzRTP(_ bytes: RawSpan) {
    fuzzReceiver(bytes)
    guard let header = try? RTPHeader(parsing: bytes) else { return }
    precondition(header.payload.upperBound <= bytes.byteCount && header.payload.lowerBound >= RTPHeader.fixedSize)
    for id in 0...UInt8.max where !header.extensions.isEmpty {
        guard let value = header.extensions.value(id: id, in: bytes) else { continue }
        precondition(value.lowerBound > header.extensions.range.lowerBound && value.upperBound <= header.extensions.range.upperBound)
        precondition(value.upperBound <= header.payload.lowerBound && id != 0)
    }
    var room = InlineArray<12, UInt8>(repeating: 0)
    var roomSpan = room.mutableSpan
    unsafe roomSpan.withUnsafeMutableBytes { buffer in
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        writeRTPHeader(
            payloadType: header.payloadType, marker: header.marker, sequenceNumber: header.sequenceNumber, timestamp: header.timestamp,
            ssrc: header.ssrc, to: &output)
        precondition(output.bytes.u16(0) & 0xFF == bytes.u16(0) & 0xFF && output.bytes.bytes(2..<12).elementsEqual(bytes.bytes(2..<12)))
        _ = unsafe output.finalize(for: buffer)
    }
}

private func fuzzReceiver(_ bytes: RawSpan) {
    guard var header = try? RTPHeader(parsing: bytes) else { return }
    var stream = RTPReceiveStream(ssrc: header.ssrc, clockRate: header.ssrc | 1)
    var now = Instant(nanoseconds: UInt64(header.timestamp) << 20)
    var offset = 12
    while offset + 6 <= bytes.byteCount {
        // Near the stream or anywhere, as the first bit says; forwards and backwards in time.
        let word = bytes.u16(offset)
        header.sequenceNumber = word & 0x8000 == 0 ? header.sequenceNumber &+ word % 200 &- 60 : word &* 31
        header.timestamp = bytes.u32(offset + 2)
        stream.note(header, at: now)
        now = Instant(nanoseconds: now.nanoseconds &+ UInt64(word) &* 0x1_0001_0001)
        if word % 7 == 0 {
            let block = stream.reportBlock(at: now)
            precondition(block.cumulativeLost >= -0x80_0000 && block.cumulativeLost <= 0x7F_FFFF)
        }
        offset += 6
    }
}

/// Reading never traps and ends; what was read and is written again reads the same.
public func fuzzRTCP(_ bytes: RawSpan) {
    guard var reader = try? RTCPReader(parsing: bytes) else { return }
    var random = SeededGenerator(seed: 1)
    let name = RTCPCanonicalName(random: &random)
    var stream = RTPReceiveStream(ssrc: 1)
    var scheduler = RTCPScheduler(startingAt: .zero, random: &random)
    var report: RTCPItem?
    var items = 0
    while let item = reader.next() {
        items += 1
        switch item {
        case .senderReport(_, let info):
            stream.noteSenderReport(info, at: .zero)
            report = item
        case .receiverReport: report = item
        case .reportBlock(let reporter, let block):
            scheduler.note(block, at: NTPTime(rawValue: UInt64(reporter) << 16))
            precondition(block.cumulativeLost >= -0x80_0000 && block.cumulativeLost <= 0x7F_FFFF)
            guard let report else { preconditionFailure("a block outside a report") }
            checkRewriting(report, block, name)
        case .canonicalName(_, let range): precondition(range.lowerBound >= 10 && range.upperBound <= bytes.byteCount)
        case .transportFeedback(_, _, let range): precondition(range.upperBound <= bytes.byteCount)
        case .bye, .nack, .ignored: break
        }
    }
    // Every item but an empty packet takes four bytes, and every packet has four.
    precondition(items <= bytes.byteCount / 4)
}

private func checkRewriting(_ report: RTCPItem, _ block: RTCPReportBlock, _ name: RTCPCanonicalName) {
    let ssrc: UInt32
    var sender: RTCPSenderInfo?
    switch report {
    case .senderReport(let source, let info): (ssrc, sender) = (source, info)
    case .receiverReport(let source): ssrc = source
    default: return
    }
    var room = InlineArray<88, UInt8>(repeating: 0)
    var roomSpan = room.mutableSpan
    unsafe roomSpan.withUnsafeMutableBytes { buffer in
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        let fitted = RTCPWriter(ssrc: ssrc, name: name).writeCompound(sender: sender, block: block, bye: true, to: &output)
        precondition(fitted, "a report of one block does not fit")
        guard var again = try? RTCPReader(parsing: output.bytes) else { preconditionFailure("our own report is malformed") }
        precondition(again.next() == report && again.next() == .reportBlock(reporter: ssrc, block), "a report changes when written again")
        guard case .canonicalName(ssrc, _)? = again.next(), again.next() == .bye(ssrc: ssrc), again.next() == nil else {
            preconditionFailure("name and BYE are missing")
        }
        _ = unsafe output.finalize(for: buffer)
    }
}
