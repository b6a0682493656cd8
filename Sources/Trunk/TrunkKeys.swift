// Two keys while the trunk key is rotated. One is sent under; frames under the other are taken too, so that no frame is lost while some
// programs of a deployment have gone on to the next key and others have not.

import Primitives

/// The trunk keys as a worker uses them.
public struct TrunkKeys: ~Copyable, Sendable {
    /// Frames are sent under it, and nearly all come under it.
    public let own: TrunkKey
    /// Looked at only when a frame's tag is wrong under `own`.
    private let accepted: TrunkKey?

    public init(_ own: SipKey, accepted: SipKey? = nil) {
        self.own = TrunkKey(own)
        self.accepted = accepted.map { TrunkKey($0) }
    }

    /// Reads a frame under either key.
    @_lifetime(copy bytes)
    public func read(_ bytes: RawSpan) throws(TrunkError) -> TrunkFrame {
        do { return try TrunkFrame(parsing: bytes, key: own) } catch { return try readAccepted(bytes, after: error) }
    }

    /// Reads a frame that was refused with `error` under `own`: once more under the accepted key, when it was the tag and there is one.
    ///
    /// So a forged frame costs two tags while a key is rotated. Out of line: hardly any frame comes here.
    @inline(never)
    @_lifetime(copy bytes)
    public func readAccepted(_ bytes: RawSpan, after error: TrunkError) throws(TrunkError) -> TrunkFrame {
        guard error == .wrongTag else { throw error }
        switch accepted {
        case .some(let key): return try TrunkFrame(parsing: bytes, key: key)
        case .none: throw error
        }
    }
}
