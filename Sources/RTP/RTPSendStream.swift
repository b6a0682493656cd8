// One SSRC that we send: it numbers packets and knows what a sender report says about them.

import Primitives

@frozen public struct RTPSendStream: Sendable {
    public let ssrc: UInt32
    public let payloadType: UInt8
    public let clockRate: UInt32
    /// Packets and payload bytes written so far, as sender reports count them: they wrap.
    public private(set) var packetCount: UInt32 = 0
    public private(set) var octetCount: UInt32 = 0
    /// The number the next packet gets.
    public private(set) var nextSequenceNumber: UInt16
    private let firstTimestamp: UInt32
    private var lastTimestamp: UInt32
    private var lastInstant = Instant.zero

    /// - Parameters:
    ///   - firstSequence: random (RFC 3550 §5.1), best in the lower half: SRTP's rollover counter is then known to start at 0.
    ///   - firstTimestamp: random; all timestamps given later are relative to it.
    public init(ssrc: UInt32, payloadType: UInt8, clockRate: UInt32 = 48_000, firstSequence: UInt16, firstTimestamp: UInt32) {
        self.ssrc = ssrc
        self.payloadType = payloadType
        self.clockRate = clockRate
        self.firstTimestamp = firstTimestamp
        nextSequenceNumber = firstSequence
        lastTimestamp = firstTimestamp
    }

    /// Appends a packet to `output`. False, and nothing written, if it does not fit.
    /// - Parameters:
    ///   - timestamp: media ticks since the stream began; wraps.
    ///   - now: when the packet leaves; sender reports interpolate from the latest packet.
    @_lifetime(output: copy output)
    public mutating func writePacket(
        payload: RawSpan, timestamp: UInt32, marker: Bool, to output: inout OutputRawSpan, at now: Instant
    ) -> Bool {
        guard output.freeCapacity >= RTPHeader.fixedSize, payload.byteCount <= output.freeCapacity - RTPHeader.fixedSize else {
            return false
        }
        let absolute = firstTimestamp &+ timestamp
        writeRTPHeader(
            payloadType: payloadType, marker: marker, sequenceNumber: nextSequenceNumber, timestamp: absolute, ssrc: ssrc, to: &output)
        output.append(contentsOf: payload)
        note(octets: payload.byteCount, absolute, at: now)
        return true
    }

    /// Writes the header of a packet in place: `packet[0..<length]` holds `RTPHeader.fixedSize` bytes of room and the payload behind it.
    /// False, and nothing written, if `length` leaves no room or exceeds `packet`.
    public mutating func writeHeader(
        into packet: inout MutableRawSpan, length: Int, timestamp: UInt32, marker: Bool, at now: Instant
    ) -> Bool {
        guard length >= RTPHeader.fixedSize, length <= packet.byteCount else { return false }
        let absolute = firstTimestamp &+ timestamp
        packet.set(UInt8(0x80), at: 0)
        packet.set((marker ? 0x80 : 0) | payloadType & 0x7F, at: 1)
        packet.set(nextSequenceNumber, at: 2)
        packet.set(absolute, at: 4)
        packet.set(ssrc, at: 8)
        note(octets: length - RTPHeader.fixedSize, absolute, at: now)
        return true
    }

    private mutating func note(octets: Int, _ absolute: UInt32, at now: Instant) {
        nextSequenceNumber &+= 1
        packetCount &+= 1
        octetCount &+= UInt32(truncatingIfNeeded: octets)
        lastTimestamp = absolute
        lastInstant = now
    }

    /// What a sender report made at `now` says; nil before the first packet. `wall` is the same moment as `now`.
    public func senderInfo(at now: Instant, wall: NTPTime) -> RTCPSenderInfo? {
        guard packetCount > 0 || octetCount > 0 else { return nil }
        let elapsed = UInt64(max(0, (now - lastInstant).nanoseconds))
        return RTCPSenderInfo(
            ntp: wall, rtpTimestamp: lastTimestamp &+ ticksOf(elapsed, clockRate), packetCount: packetCount, octetCount: octetCount)
    }
}
