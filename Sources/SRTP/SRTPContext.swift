import Primitives

/// Both directions of one call. Packets are secured where they lie; an error leaves the context as it was, and the bytes of the
/// packet undefined. Used by one thread at a time.
public struct SRTPContext: ~Copyable {
    private var own: OwnEngine?
    private var library: LibSRTPEngine?

    /// `local` secures what this side sends, `remote` is what the other side sends with.
    public init(profile: SRTPProfile, local: SRTPMasterKey, remote: SRTPMasterKey, engine: SRTPEngine) throws(SRTPError) {
        var localKeys = try SRTPSessionKeys(profile: profile, master: local)
        var remoteKeys = try SRTPSessionKeys(profile: profile, master: remote)
        switch engine {
        case .own:
            own = OwnEngine(profile: profile, local: localKeys, remote: remoteKeys)
            library = nil
        case .libsrtp:
            own = nil
            library = LibSRTPEngine(profile: profile, local: local, remote: remote)
        }
        localKeys.wipe()
        remoteKeys.wipe()
    }

    /// Our own engine with session keys that come from elsewhere: RFC 7714 states its examples in them.
    package init(profile: SRTPProfile, localSession: SRTPSessionKeys, remoteSession: SRTPSessionKeys) {
        own = OwnEngine(profile: profile, local: localSession, remote: remoteSession)
        library = nil
    }

    /// `buffer[0..<length]` is a plain RTP packet, and `profile.rtpOverhead` bytes behind it are free. Returns the protected length.
    public mutating func protectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        if let length = try own?.protectRTP(&buffer, length: length) { return length }
        if let length = try library?.protectRTP(&buffer, length: length) { return length }
        preconditionFailure("a context has an engine")
    }

    /// `buffer[0..<length]` is a plain RTCP packet, single or compound, and `profile.rtcpOverhead` bytes behind it are free.
    /// Returns the protected length.
    public mutating func protectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        if let length = try own?.protectRTCP(&buffer, length: length) { return length }
        if let length = try library?.protectRTCP(&buffer, length: length) { return length }
        preconditionFailure("a context has an engine")
    }

    /// `buffer[0..<length]` came from the network. Returns the length of the plain RTP packet that is there afterwards: it is
    /// genuine and was not seen before.
    public mutating func unprotectRTP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        if let length = try own?.unprotectRTP(&buffer, length: length) { return length }
        if let length = try library?.unprotectRTP(&buffer, length: length) { return length }
        preconditionFailure("a context has an engine")
    }

    /// The same for RTCP. Our own engine also takes packets that are authenticated but not encrypted (RFC 3711 §3.4, E bit clear).
    public mutating func unprotectRTCP(_ buffer: inout MutableRawSpan, length: Int) throws(SRTPError) -> Int {
        if let length = try own?.unprotectRTCP(&buffer, length: length) { return length }
        if let length = try library?.unprotectRTCP(&buffer, length: length) { return length }
        preconditionFailure("a context has an engine")
    }

    /// Sets what was sent last, as if it had been sent here: the tests begin near the end of the indices.
    package mutating func noteSent(ssrc: UInt32, rtpIndex: UInt64? = nil, rtcpIndex: UInt64? = nil) throws(SRTPError) {
        try own?.noteSent(ssrc: ssrc, rtpIndex: rtpIndex, rtcpIndex: rtcpIndex)
    }
}

// A context is used by one thread at a time; moving it moves its cipher contexts.
extension SRTPContext: @unchecked Sendable {}
