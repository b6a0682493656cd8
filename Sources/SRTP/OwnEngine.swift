// RFC 3711 and RFC 7714 by ourselves: four ciphers, two tables of sources. Every verb has the same order: read the layout, find the
// source, guess the index and refuse what was seen, do the cryptography, and only then remember the index.

import Primitives

struct OwnEngine: ~Copyable {
    private let sendRTP: PacketCipher
    private let sendRTCP: PacketCipher
    private let receiveRTP: PacketCipher
    private let receiveRTCP: PacketCipher
    private var sent = StreamTable(limit: StreamLimit.outbound)
    private var received = StreamTable(limit: StreamLimit.inbound)
    private let profile: SRTPProfile

    init(profile: SRTPProfile, local: SRTPSessionKeys, remote: SRTPSessionKeys) {
        self.profile = profile
        sendRTP = PacketCipher(
            profile: profile, key: local.rtpKey, salt: local.rtpSalt, authenticationKey: local.rtpAuthenticationKey, encrypts: true)
        sendRTCP = PacketCipher(
            profile: profile, key: local.rtcpKey, salt: local.rtcpSalt, authenticationKey: local.rtcpAuthenticationKey, encrypts: true)
        receiveRTP = PacketCipher(
            profile: profile, key: remote.rtpKey, salt: remote.rtpSalt, authenticationKey: remote.rtpAuthenticationKey, encrypts: false)
        receiveRTCP = PacketCipher(
            profile: profile, key: remote.rtcpKey, salt: remote.rtcpSalt, authenticationKey: remote.rtcpAuthenticationKey, encrypts: false)
    }

    /// Sets what was sent last, as if it had been sent here: the tests begin near the end of the indices.
    mutating func noteSent(ssrc: UInt32, rtpIndex: UInt64?, rtcpIndex: UInt64?) throws(SRTPError) {
        let place = try sent.place(for: ssrc)
        sent.take(place, for: ssrc)
        if let rtpIndex { sent[place].rtp.accept(rtpIndex) }
        if let rtcpIndex { sent[place].rtcp.accept(rtcpIndex) }
    }
}

// RTP (RFC 3711 §3.1): header in the clear | payload encrypted | tag over both.
extension OwnEngine {
    mutating func protectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTPLayout(buffer, length: length, trailer: 0)
        let protected = length &+ profile.rtpOverhead
        guard protected <= longestPacket else { throw .tooLong }
        guard protected <= buffer.byteCount else { throw .noRoom }
        let place = try sent.place(for: packet.ssrc)
        let index = try sent[place].rtp.index(for: packet.sequence)
        // The same index twice under one key gives the key stream away: what we send is checked like what we receive.
        try sent[place].rtp.check(index)

        let text = packet.headerLength..<length
        if profile.isAEAD {
            sendRTP.seal(&buffer, ssrc: packet.ssrc, index: index, header: 0..<packet.headerLength, word: 0..<0, text: text)
        } else {
            sendRTP.apply(&buffer, ssrc: packet.ssrc, index: index, text: text)
            sendRTP.sign(&buffer, end: length, rollovers: UInt32(truncatingIfNeeded: index >> 16))
        }
        sent.take(place, for: packet.ssrc)
        sent[place].rtp.accept(index)
        return protected
    }

    mutating func unprotectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTPLayout(buffer, length: length, trailer: profile.rtpOverhead)
        let place = try received.place(for: packet.ssrc)
        let index = try received[place].rtp.index(for: packet.sequence)
        try received[place].rtp.check(index)

        let end = length &- profile.rtpOverhead
        let text = packet.headerLength..<end
        if profile.isAEAD {
            let isGenuine = receiveRTP.open(
                &buffer, ssrc: packet.ssrc, index: index, header: 0..<packet.headerLength, word: 0..<0, text: text)
            guard isGenuine else { throw .authentication }
        } else {
            let rollovers = UInt32(truncatingIfNeeded: index >> 16)
            guard receiveRTP.verifies(buffer, end: end, rollovers: rollovers) else { throw .authentication }
            receiveRTP.apply(&buffer, ssrc: packet.ssrc, index: index, text: text)
        }
        received.take(place, for: packet.ssrc)
        received[place].rtp.accept(index)
        return end
    }
}

// RTCP: eight bytes of header in the clear | the rest encrypted, then a word with the index and the E bit ("is encrypted") and the
// tag: the word before the tag with HMAC (RFC 3711 §3.4), behind it with AES-GCM (RFC 7714 §9.2).
extension OwnEngine {
    private static let encryptedBit: UInt32 = 0x8000_0000

    mutating func protectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTCPLayout(buffer, length: length, trailer: 0)
        let protected = length &+ profile.rtcpOverhead
        guard protected <= longestPacket else { throw .tooLong }
        guard protected <= buffer.byteCount else { throw .noRoom }
        let place = try sent.place(for: packet.ssrc)
        let index = sent[place].rtcp.isEmpty ? 0 : sent[place].rtcp.highest &+ 1
        guard index < ReplayWindow.rtcpIndices else { throw .keyExhausted }

        let word = Self.encryptedBit | UInt32(truncatingIfNeeded: index)
        let header = RTCPLayout.headerLength
        if profile.isAEAD {
            buffer.set(word, at: protected &- 4)
            sendRTCP.seal(
                &buffer, ssrc: packet.ssrc, index: index, header: 0..<header, word: protected &- 4..<protected, text: header..<length)
        } else {
            sendRTCP.apply(&buffer, ssrc: packet.ssrc, index: index, text: header..<length)
            buffer.set(word, at: length)
            sendRTCP.sign(&buffer, end: length &+ 4, rollovers: nil)
        }
        sent.take(place, for: packet.ssrc)
        sent[place].rtcp.accept(index)
        return protected
    }

    mutating func unprotectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTCPLayout(buffer, length: length, trailer: profile.rtcpOverhead)
        let end = length &- profile.rtcpOverhead
        let wordOffset = profile.isAEAD ? length &- 4 : end
        let word = buffer.u32(wordOffset)
        let isEncrypted = word & Self.encryptedBit != 0
        let index = UInt64(word & ~Self.encryptedBit)
        let place = try received.place(for: packet.ssrc)
        try received[place].rtcp.check(index)

        // A packet may be authenticated only: then all of it is header.
        let header = isEncrypted ? RTCPLayout.headerLength : end
        if profile.isAEAD {
            let isGenuine = receiveRTCP.open(
                &buffer, ssrc: packet.ssrc, index: index, header: 0..<header, word: wordOffset..<length, text: header..<end)
            guard isGenuine else { throw .authentication }
        } else {
            guard receiveRTCP.verifies(buffer, end: end &+ 4, rollovers: nil) else { throw .authentication }
            receiveRTCP.apply(&buffer, ssrc: packet.ssrc, index: index, text: header..<end)
        }
        received.take(place, for: packet.ssrc)
        received[place].rtcp.accept(index)
        return end
    }
}
