// The door: a check's hint is opened here, and its signature verified. It knows keys and dates, and nothing of flows or transceivers.

import Crypto
import Primitives
import RoutingHint

/// Two dates: the one at the start, which goes on by the monotonic clock, so that somebody who sets the date ends no call; and the one that
/// was read last, because then new hints are of that time.
struct Calendar: Sendable {
    private let wallAtStart: WallClock
    private let start: Instant
    private var wallNoted: WallClock
    private var noted: Instant

    init(_ wall: WallClock, at now: Instant) {
        wallAtStart = wall
        start = now
        wallNoted = wall
        noted = now
    }

    mutating func note(_ wall: WallClock, at now: Instant) {
        wallNoted = wall
        noted = now
    }

    func sinceStart(at now: Instant) -> WallClock { Self.advanced(wallAtStart, since: start, to: now) }
    func sinceNoted(at now: Instant) -> WallClock { Self.advanced(wallNoted, since: noted, to: now) }

    private static func advanced(_ wall: WallClock, since start: Instant, to now: Instant) -> WallClock {
        let elapsed = now.nanoseconds >= start.nanoseconds ? (now.nanoseconds - start.nanoseconds) / 1_000_000_000 : 0
        return WallClock(secondsSince1970: wall.secondsSince1970 &+ elapsed)
    }
}

struct HintDoor: ~Copyable {
    private var codec: HintCodec
    private let lifetime: HintLifetime
    private var opened = OpenedHints()
    private var integrity: HMACSHA1
    private var calendar: Calendar

    init(_ keys: KeyRing, lifetime: HintLifetime, wall: WallClock, at now: Instant) {
        codec = HintCodec(keys, lifetime: lifetime)
        self.lifetime = lifetime
        integrity = HMACSHA1(key: keys.passwordKey.bytes)
        calendar = Calendar(wall, at: now)
    }

    /// Bytes that it sets aside.
    static var byteCount: Int { OpenedHints.byteCount }

    /// Where the hint of `ufrag` lies from now on, for `hint` and `verifies`: when it is ours and of one of our two dates. One MAC for a hint
    /// that is not ours or has not been seen for long, none for others.
    mutating func open(_ ufrag: Ufrag, at now: Instant) -> Result<Int, HintError> {
        let place: Int
        if let known = opened.find(ufrag) {
            place = known
        } else {
            let characters = ufrag.characters
            switch codec.authenticate(characters.bytes) {
            case .success(let hint): place = opened.keep(hint, of: ufrag)
            case .failure(let error): return .failure(error)
            }
        }
        let hint = opened.hint(place)
        guard lifetime.refusal(of: hint, at: calendar.sinceStart(at: now)) != nil,
            let refusal = lifetime.refusal(of: hint, at: calendar.sinceNoted(at: now))
        else { return .success(place) }
        return .failure(refusal)
    }

    func hint(_ place: Int) -> RoutingHint { opened.hint(place).hint }

    /// Whether `message`, whose ufrag's hint lies at `place`, is signed with its password. One MAC, and another one the first time.
    mutating func verifies(_ message: borrowing STUNView, _ place: Int) -> Bool {
        let password = opened.password(place, message.serverUfrag, &codec)
        return message.verifiesIntegrity(key: password.bytes, with: &integrity)
    }

    /// Takes another ring of the same deployment.
    mutating func replaceKeys(_ keys: KeyRing) {
        codec = HintCodec(keys, lifetime: lifetime)
        opened.forget()
    }

    mutating func noteDate(_ wall: WallClock, at now: Instant) { calendar.note(wall, at: now) }
}
