// DTLS records as they lie in a datagram (RFC 6347 §4.1), before any of them reaches OpenSSL.

import Primitives

/// One record's place in a datagram.
struct DTLSRecord {
    static let headerSize = 13

    /// 20 change_cipher_spec, 21 alert, 22 handshake, 23 application data.
    var contentType: UInt8
    /// 0 before the keys change, 1 after: there is no renegotiation.
    var epoch: UInt16
    /// Header and fragment.
    var range: Range<Int>

    /// Reads the record at `offset`; nil when what is there is not a whole DTLS 1.0 or 1.2 record.
    init?(in datagram: RawSpan, at offset: Int) {
        guard datagram.byteCount - offset >= Self.headerSize, datagram.byte(offset + 1) == 0xFE else { return nil }
        contentType = datagram.byte(offset)
        epoch = datagram.u16(offset + 3)
        let end = offset + Self.headerSize + Int(datagram.u16(offset + 11))
        guard (20...23).contains(contentType), end <= datagram.byteCount else { return nil }
        range = offset..<end
    }
}

/// Which records OpenSSL gets to see. It keeps a 16 kB buffer for every handshake record of the epoch to come, up to a hundred of
/// them: a flood of those is stopped here, and so is all plaintext once the handshake is over.
struct DTLSRecordFilter {
    /// The handshake is over: epoch 1 only.
    var isEstablished = false
    private var earlyRecords = 0

    /// A Finished may overtake its flight, and does so again with every retransmission.
    private static let earlyRecordsMax = 16
    /// Explicit nonce and tag of AES-GCM (RFC 5288 §3); ChaCha20-Poly1305 has a tag alone (RFC 7905 §2).
    static let overheadOfGCM = 24
    static let overheadOfChaCha = 16

    /// - Parameters:
    ///   - keysChanged: OpenSSL already reads epoch 1, so that a record of it is opened or dropped at once.
    ///   - overhead: bytes that the cipher adds to every record. OpenSSL 3.0 ends the association over a shorter one, whoever has sent it.
    mutating func passes(_ record: DTLSRecord, keysChanged: Bool, overhead: Int) -> Bool {
        switch record.epoch {
        case 0: return !isEstablished && record.contentType != 23
        case 1:
            guard record.range.count - DTLSRecord.headerSize >= overhead else { return false }
            // Application data that comes too early is not kept by OpenSSL.
            if isEstablished || keysChanged || record.contentType == 23 { return true }
            earlyRecords = min(earlyRecords + 1, Self.earlyRecordsMax + 1)
            return earlyRecords <= Self.earlyRecordsMax
        default: return false
        }
    }
}
