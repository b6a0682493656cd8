// Credentials as bytes: what arrives is compared with spans of one allocation that is made when the session begins.

import Primitives

/// The two generations of credentials that may be alive at once, in one block of fixed size.
struct CredentialStore: ~Copyable {
    static let lengthMax = 256
    private var bytes = ByteSlab(count: 8, slotSize: CredentialStore.lengthMax, isAligned: false)
    private var lengths = InlineArray<8, UInt16>(repeating: 0)

    enum Field: Int { case localUfrag, localPassword, remoteUfrag, remotePassword }

    /// Puts credentials into slot 0 or 1. Remote ones that are empty or too long leave a slot that matches nothing: they come from
    /// the peer. Ours are ours.
    mutating func set(_ slot: Int, local: ICECredentials, remote: ICECredentials) {
        precondition(Self.isUsable(local), "our own ICE credentials are empty or longer than \(Self.lengthMax) bytes")
        for field in 0..<4 { lengths[slot * 4 + field] = 0 }
        guard Self.isUsable(remote) else { return }
        put(slot, .localUfrag, local.ufrag)
        put(slot, .localPassword, local.password)
        put(slot, .remoteUfrag, remote.ufrag)
        put(slot, .remotePassword, remote.password)
    }

    /// Whether USERNAME of a request, taken apart at its colon, is ours and our peer's.
    func matches(_ slot: Int, receiver: RawSpan, sender: RawSpan) -> Bool {
        guard lengths[slot * 4] > 0 else { return false }
        return receiver.elementsEqual(bytes(slot, .localUfrag)) && sender.elementsEqual(bytes(slot, .remoteUfrag))
    }

    /// Whether there is somebody to send a check to.
    func isComplete(_ slot: Int) -> Bool { lengths[slot * 4] > 0 }

    @_lifetime(borrow self)
    func bytes(_ slot: Int, _ field: Field) -> RawSpan {
        let row = slot * 4 + field.rawValue
        return bytes.bytes(row, Int(lengths[row]))
    }

    private mutating func put(_ slot: Int, _ field: Field, _ text: String) {
        let row = slot * 4 + field.rawValue
        let utf8 = Array(text.utf8)
        var target = bytes.mutableBytes(row, 0..<utf8.count)
        for index in utf8.indices { target.set(utf8[index], at: index) }
        lengths[row] = UInt16(utf8.count)
    }

    private static func isUsable(_ credentials: ICECredentials) -> Bool {
        (1...lengthMax).contains(credentials.ufrag.utf8.count) && (1...lengthMax).contains(credentials.password.utf8.count)
    }
}
