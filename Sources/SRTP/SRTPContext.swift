import Primitives

/// Both directions of one call. Packets are secured where they lie; an error leaves the context as it was, and the bytes of the
/// packet undefined. Used by one thread at a time.
public struct SRTPContext: ~Copyable {
    /// One of the two has one element, the other none: a place that stays where it is when the context moves, and that a packet
    /// reaches without the copies of an `Optional`'s payload.
    private var own: Slab<OwnEngine>
    private var library: Slab<LibSRTPEngine>

    /// `local` secures what this side sends, `remote` is what the other side sends with.
    public init(profile: SRTPProfile, local: SRTPMasterKey, remote: SRTPMasterKey, engine: SRTPEngine) throws(SRTPError) {
        var localKeys = try SRTPSessionKeys(profile: profile, master: local)
        var remoteKeys = try SRTPSessionKeys(profile: profile, master: remote)
        own = Slab(count: engine == .own ? 1 : 0) { _ in OwnEngine(profile: profile, local: localKeys, remote: remoteKeys) }
        library = Slab(count: engine == .libsrtp ? 1 : 0) { _ in LibSRTPEngine(profile: profile, local: local, remote: remote) }
        localKeys.wipe()
        remoteKeys.wipe()
    }

    /// Our own engine with session keys that come from elsewhere: RFC 7714 states its examples in them.
    package init(profile: SRTPProfile, localSession: SRTPSessionKeys, remoteSession: SRTPSessionKeys) {
        own = Slab(count: 1) { _ in OwnEngine(profile: profile, local: localSession, remote: remoteSession) }
        library = Slab(count: 0) { _ in preconditionFailure() }
    }

    /// `buffer[0..<length]` is a plain RTP packet, and `profile.rtpOverhead` bytes behind it are free. Returns the protected length.
    public mutating func protectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        own.count == 1 ? try own[0].protectRTP(&buffer, length: length) : try library[0].protectRTP(&buffer, length: length)
    }

    /// `buffer[0..<length]` is a plain RTCP packet, single or compound, and `profile.rtcpOverhead` bytes behind it are free.
    /// Returns the protected length.
    public mutating func protectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        own.count == 1 ? try own[0].protectRTCP(&buffer, length: length) : try library[0].protectRTCP(&buffer, length: length)
    }

    /// `buffer[0..<length]` came from the network. Returns the length of the plain RTP packet that is there afterwards: it is
    /// genuine and was not seen before.
    public mutating func unprotectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        own.count == 1 ? try own[0].unprotectRTP(&buffer, length: length) : try library[0].unprotectRTP(&buffer, length: length)
    }

    /// The same for RTCP. Our own engine also takes packets that are authenticated but not encrypted (RFC 3711 §3.4, E bit clear).
    public mutating func unprotectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        own.count == 1 ? try own[0].unprotectRTCP(&buffer, length: length) : try library[0].unprotectRTCP(&buffer, length: length)
    }

    /// Sets what was sent last, as if it had been sent here: the tests begin near the end of the indices.
    package mutating func noteSent(ssrc: UInt32, rtpIndex: UInt64? = nil, rtcpIndex: UInt64? = nil) throws(SRTPError) {
        if own.count == 1 { try own[0].noteSent(ssrc: ssrc, rtpIndex: rtpIndex, rtcpIndex: rtcpIndex) }
    }
}

// A context is used by one thread at a time; moving it moves its cipher contexts.
extension SRTPContext: @unchecked Sendable {}
