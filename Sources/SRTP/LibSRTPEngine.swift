// The same through libsrtp2. Packets pass our own layout checks and tables of sources first, so that a context has the same limits
// whichever engine it uses; indices and replay windows are the library's.
//
// The distribution's build does its cryptography with NSS: 0.6 µs a packet with one call, 10 to 25 µs with two thousand.

import CSRTP2
import Primitives

@safe struct LibSRTPEngine: ~Copyable {
    private let sender: srtp_t
    private let receiver: srtp_t
    private var sent = StreamTable(limit: StreamLimit.outbound)
    private var received = StreamTable(limit: StreamLimit.inbound)
    private let profile: SRTPProfile

    /// The keys are as long as the profile wants them.
    init(profile: SRTPProfile, local: SRTPMasterKey, remote: SRTPMasterKey) {
        precondition(Self.libraryIsReady)
        self.profile = profile
        sender = Self.makeSession(profile, local, ssrc_any_outbound)
        receiver = Self.makeSession(profile, remote, ssrc_any_inbound)
    }
    deinit {
        srtp_dealloc(sender)
        srtp_dealloc(receiver)
    }

    private static let libraryIsReady: Bool = srtp_init() == srtp_err_status_ok

    private static func makeSession(_ profile: SRTPProfile, _ master: SRTPMasterKey, _ type: srtp_ssrc_type_t) -> srtp_t {
        var policy = srtp_policy_t()
        for path in [\srtp_policy_t.rtp, \srtp_policy_t.rtcp] {
            switch profile {
            case .aes128CMHMACSHA1_80: srtp_crypto_policy_set_rtp_default(&policy[keyPath: path])
            case .aeadAES128GCM: srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy[keyPath: path])
            case .aeadAES256GCM: srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy[keyPath: path])
            }
        }
        policy.ssrc.type = type
        policy.window_size = UInt(ReplayWindow.size)
        var key = master.key + master.salt
        defer { wipe(&key) }
        var session: srtp_t?
        let status = key.withUnsafeMutableBufferPointer { key in
            policy.key = key.baseAddress
            return srtp_create(&session, &policy)
        }
        guard status == srtp_err_status_ok, let session else { fatalError("srtp_create: status \(status.rawValue)") }
        return session
    }

    private static func error(_ status: srtp_err_status_t) -> SRTPError {
        switch status {
        case srtp_err_status_replay_fail: .replayed
        case srtp_err_status_replay_old, srtp_err_status_pkt_idx_old: .tooOld
        case srtp_err_status_key_expired: .keyExhausted
        case srtp_err_status_bad_param, srtp_err_status_parse_err: .malformed
        default: .authentication
        }
    }
}

extension LibSRTPEngine {
    mutating func protectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTPLayout(buffer, length: length, trailer: 0)
        try checkRoom(buffer, length &+ profile.rtpOverhead)
        let place = try sent.place(for: packet.ssrc)
        let protected = try run(srtp_protect, sender, &buffer, length)
        sent.take(place, for: packet.ssrc)
        return protected
    }

    mutating func protectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTCPLayout(buffer, length: length, trailer: 0)
        try checkRoom(buffer, length &+ profile.rtcpOverhead)
        let place = try sent.place(for: packet.ssrc)
        let protected = try run(srtp_protect_rtcp, sender, &buffer, length)
        sent.take(place, for: packet.ssrc)
        return protected
    }

    mutating func unprotectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTPLayout(buffer, length: length, trailer: profile.rtpOverhead)
        let place = try received.place(for: packet.ssrc)
        let plain = try run(srtp_unprotect, receiver, &buffer, length)
        received.take(place, for: packet.ssrc)
        return plain
    }

    mutating func unprotectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        let packet = try RTCPLayout(buffer, length: length, trailer: profile.rtcpOverhead)
        let place = try received.place(for: packet.ssrc)
        let plain = try run(srtp_unprotect_rtcp, receiver, &buffer, length)
        received.take(place, for: packet.ssrc)
        return plain
    }

    private func checkRoom(_ buffer: borrowing MutableRawSpan, _ protected: Int) throws(SRTPError) {
        guard protected <= longestPacket else { throw .tooLong }
        guard protected <= buffer.byteCount else { throw .noRoom }
    }

    private typealias Verb = @convention(c) (srtp_t?, UnsafeMutableRawPointer?, UnsafeMutablePointer<CInt>?) -> srtp_err_status_t

    @inline(__always) private func run(
        _ verb: Verb, _ session: srtp_t, _ buffer: inout MutableRawSpan, _ length: Int
    ) throws(SRTPError) -> Int {
        var count = CInt(length)
        let status = buffer.withUnsafeMutableBytes { verb(session, $0.baseAddress, &count) }
        guard status == srtp_err_status_ok else { throw Self.error(status) }
        return Int(count)
    }
}
