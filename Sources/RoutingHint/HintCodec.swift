// Minting and opening hints with cipher contexts that are made once: a worker owns one codec and opens a hint without allocating.

import Crypto
import Primitives

/// How long a hint may make new flows, in whole seconds.
public struct HintLifetime: Hashable, Sendable {
    /// The longest session: an authentic hint older than this makes no new flow.
    public var maximumAge: UInt32
    /// How far the clocks of the minting and the opening machine may differ, either way. Only who has the key can mint a hint, so a
    /// generous skew costs nothing but a longer life; a clock set a day back must not end calls.
    public var skew: UInt32

    public init(maximumAge: UInt32 = 86_400, skew: UInt32 = 90_000) {
        self.maximumAge = min(maximumAge, 0x4000_0000)
        self.skew = min(skew, 0x1000_0000)
    }

    /// Why an authentic hint is not honoured at `now`, the wall clock of this machine: `expired` or `mintedInFuture`; nil when it is.
    public func refusal(of opened: AuthenticHint, at now: WallClock) -> HintError? {
        guard now.secondsSince1970 < opened.until else { return .expired }
        // Modulo 2^32, so that the year 2106 is an hour like any other.
        let age = Int64(Int32(bitPattern: UInt32(truncatingIfNeeded: now.secondsSince1970) &- opened.hint.mintedAt))
        if age > Int64(maximumAge) + Int64(skew) { return .expired }
        return age < -Int64(skew) ? .mintedInFuture : nil
    }
}

/// The contexts of one key ring, for one thread at a time.
public struct HintCodec: ~Copyable, Sendable {
    /// The keys in the ring's order; the first one mints.
    private var keys: Slab<KeyContext>
    /// Key id → index into `keys`, or `none`.
    private var indexOfKey: InlineArray<32, UInt8>
    private var password: HMACSHA256
    public let lifetime: HintLifetime

    public init(_ ring: KeyRing, lifetime: HintLifetime = HintLifetime()) {
        indexOfKey = InlineArray(repeating: Self.none)
        for (index, key) in ring.hintKeys.enumerated() { indexOfKey[Int(key.id & 31)] = UInt8(index) }
        keys = Slab(count: ring.hintKeys.count) { KeyContext(ring.hintKeys[$0]) }
        password = HMACSHA256(key: ring.passwordKey.bytes)
        self.lifetime = lifetime
    }

    private static let none: UInt8 = 0xFF
    /// The format version, in the upper three bits of the first byte.
    private static let version: UInt8 = 0
}

extension HintCodec {
    /// The username fragment that carries `hint`, under the ring's first key that has not retired by then.
    public mutating func mint(_ hint: RoutingHint) -> Ufrag {
        var block = AESBlockBytes(repeating: 0)
        var span = block.mutableSpan
        var fields = unsafe span.mutableBytes  // bytes have no padding
        fields.set(hint.cluster, at: 0)
        fields.set(hint.transceiver, at: 2)
        fields.set(hint.worker, at: 6)
        fields.set(hint.flags, at: 7)
        fields.set(hint.mintedAt, at: 8)
        fields.set(hint.session, at: 12)

        // All have retired: an operator's mistake, which nobody can open. A hint is due all the same.
        var key = 0
        while key < keys.count, keys[key].until <= UInt64(hint.mintedAt) { key += 1 }
        if key == keys.count { key = 0 }

        var raw = InlineArray<24, UInt8>(repeating: 0)
        raw[0] = Self.version << 5 | keys[key].id
        let encrypted = keys[key].cipher.encrypt(block)
        for index in 0..<16 { raw[1 + index] = encrypted[index] }
        let tag = keys[key].authenticator.tag(raw.bytes.bytes(0..<17))
        for index in 0..<7 { raw[17 + index] = tag[index] }
        guard let ufrag = Ufrag(Self.encode(raw).bytes) else { preconditionFailure("24 bytes are 32 characters") }
        return ufrag
    }

    /// What `ufrag` says, if it is ours, whole and of our time; `now` is the wall clock of this machine.
    public mutating func open(_ ufrag: RawSpan, at now: WallClock) -> Result<RoutingHint, HintError> {
        switch authenticate(ufrag) {
        case .failure(let error): .failure(error)
        case .success(let opened): lifetime.refusal(of: opened, at: now).map { .failure($0) } ?? .success(opened.hint)
        }
    }

    /// What `ufrag` says, if it is ours and whole, of whatever time. The tag is compared in constant time, before anything is decrypted or
    /// believed.
    public mutating func authenticate(_ ufrag: RawSpan) -> Result<AuthenticHint, HintError> {
        guard let raw = Self.decode(ufrag) else { return .failure(.notAHint) }
        let index = indexOfKey[Int(raw[0] & 31)]
        guard index != Self.none else { return .failure(.unknownKey) }
        let tag = keys[Int(index)].authenticator.tag(raw.bytes.bytes(0..<17))
        guard tag.bytes.bytes(0..<7).matchesInConstantTime(raw.bytes.bytes(17..<24)) else { return .failure(.wrongTag) }

        let block = keys[Int(index)].cipher.decrypt(AESBlockBytes { raw[1 + $0] })
        guard raw[0] >> 5 == Self.version else { return .failure(.unknownVersion) }
        let fields = block.bytes
        let hint = RoutingHint(
            cluster: fields.u16(0), transceiver: fields.u32(2), worker: fields.byte(6), flags: fields.byte(7), mintedAt: fields.u32(8),
            session: fields.u32(12))
        return .success(AuthenticHint(hint, until: keys[Int(index)].until))
    }

    /// The ice-pwd for `ufrag`: the first 24 characters of base64(HMAC-SHA-256(password key, ufrag)).
    public mutating func icePassword(for ufrag: RawSpan) -> ICEPassword {
        let tag = password.tag(ufrag)
        return ICEPassword { index in Base64.character(of: Self.sextet(index) { tag[$0] }) }
    }

    public mutating func icePassword(for ufrag: Ufrag) -> ICEPassword { icePassword(for: ufrag.characters.bytes) }
}

extension HintCodec {
    /// Character `index`'s six bits out of a run of bytes; `byte` gives byte `i` of it.
    @inline(__always) private static func sextet(_ index: Int, _ byte: (Int) -> UInt8) -> UInt8 {
        let first = index >> 2 &* 3
        return switch index & 3 {
        case 0: byte(first) >> 2
        case 1: byte(first) << 4 | byte(first + 1) >> 4
        case 2: byte(first + 1) << 2 | byte(first + 2) >> 6
        default: byte(first + 2)
        }
    }

    private static func encode(_ raw: InlineArray<24, UInt8>) -> InlineArray<32, UInt8> {
        InlineArray { index in Base64.character(of: sextet(index) { raw[$0] }) }
    }

    private static func decode(_ text: RawSpan) -> InlineArray<24, UInt8>? {
        guard text.byteCount == Ufrag.length else { return nil }
        var raw = InlineArray<24, UInt8>(repeating: 0)
        for group in 0..<8 {
            guard let a = Base64.value(of: text.byte(4 * group)), let b = Base64.value(of: text.byte(4 * group + 1)),
                let c = Base64.value(of: text.byte(4 * group + 2)), let d = Base64.value(of: text.byte(4 * group + 3))
            else { return nil }
            raw[3 * group] = a << 2 | b >> 4
            raw[3 * group + 1] = b << 4 | c >> 2
            raw[3 * group + 2] = c << 6 | d
        }
        return raw
    }
}

/// The contexts of one hint key. Not private: a private type inside a `Slab` crashes the 6.3 compiler in debug builds.
struct KeyContext: ~Copyable, Sendable {
    let id: UInt8
    let until: UInt64
    var cipher: AES128Block
    var authenticator: HMACSHA256

    init(_ key: HintKey) {
        id = key.id & 31
        until = key.until ?? .max
        cipher = AES128Block(key: AESBlockBytes { key.cipherKey[$0] })
        authenticator = HMACSHA256(key: key.tagKey.bytes)
    }
}
