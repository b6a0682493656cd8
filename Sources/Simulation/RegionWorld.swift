// Who is in the regions: clients with a browser's timing, light owners behind the trunk, and their addresses. Clients have no DTLS and no SRTP:
// what is proven here is the way there and back, for more calls than handshakes could be afforded. Checks are real, and so is all that
// relays see of them.

import Crypto
import Primitives
import RelayCore
import RoutingHint
import STUN
import Trunk

/// A call that there is or was. Its number is its session.
struct RegionCall {
    let owner: Int
    let client: Int
    var isAlive = true
}

/// A transceiver, as far as a datagram can tell: it checks what reaches it, answers checks, and says words back.
struct RegionOwner {
    /// Where words go back to: the client, the relay that brought its last one, and the frame's header.
    struct Path {
        var client: SocketAddress
        var hop: SocketAddress
        var header: TrunkHeader
    }
    struct Session {
        /// nil before the first check.
        var path: Path?
        /// Of the newest word; words are numbered from 1.
        var counter: UInt32 = 0
    }
    let cluster: Int
    let id: UInt32
    var isUp = true
    var sessions: [UInt32: Session] = [:]
}

/// Somebody with a call, and a page that restarts ICE and calls again.
struct RegionClient {
    let model: ClientModel
    /// To the relays that it was told of, the nearer first.
    let ingresses: (Int, Int)
    let delay: Interval
    let ourUfrag: [UInt8]
    var usesSecond = false
    var call: UInt32 = 0
    var owner = 0
    var address = SocketAddress(.v4Any, port: 0)
    var theirUfrag: [UInt8] = []
    var password: [UInt8] = []

    var state = ClientState.checking
    var stateSince = Instant.zero
    var answeredAt = Instant.zero
    var heardAt = Instant.zero
    var isValid = false
    var checks: [(id: STUNTransactionID, at: Instant)] = []
    var tries = 0
    var nextCheck = Instant.never
    var nextWord = Instant.never
    var nextLook = Instant.never
    /// When the wheel has it.
    var wakesAt = Instant.never
    var said: UInt32 = 0
    /// The first word after the faults, and when that or a later one came back.
    var watched: UInt32?
    var hasHealed = false

    var ingress: Int { usesSecond ? ingresses.1 : ingresses.0 }
    var nextChange: Instant { model.nextChange(from: state, since: stateSince, answered: answeredAt) }

    /// When it will not wait for its next check any longer.
    private var uneasyAt: Instant {
        guard state == .connected, let patience = model.uneasyAfter else { return .never }
        let due = heardAt + patience
        return checks.last.map { $0.at < due } ?? true ? due : .never
    }
    var checksAt: Instant { model.checks(in: state) ? min(nextCheck, uneasyAt) : .never }
    var speaksAt: Instant { isValid && model.speaks(in: state) ? nextWord : .never }
    var nextDeadline: Instant { call == 0 ? nextLook : min(min(checksAt, speaksAt), min(nextChange, nextLook)) }

    mutating func enter(_ next: ClientState, at now: Instant) {
        state = next
        stateSince = now
        if next != .failed, next != .connected { nextCheck = now }
    }

    /// When to check again if nothing answers.
    mutating func planCheck(_ random: inout SeededGenerator, at now: Instant) -> STUNTransactionID {
        let fresh = STUNTransactionID(high: UInt32(truncatingIfNeeded: random.next()), low: random.next())
        switch (model, state) {
        case (.chromium, .connected), (.steady, _):
            let isUneasy = model.uneasyAfter.map { now >= heardAt + $0 } ?? false
            nextCheck = now + (isUneasy ? .milliseconds(100) : model.checkInterval(&random))
        case (.chromium, _): nextCheck = now + .milliseconds(isValid ? 100 : 50)
        case (.firefox, .checking):
            // One transaction, sent again after 100 ms, 200 ms, 400 ms ….
            let id = tries > 0 ? checks.last?.id ?? fresh : fresh
            nextCheck = now + .milliseconds(100 << Int64(min(tries, 6)))
            tries += 1
            return id
        case (.firefox, _): nextCheck = now + model.checkInterval(&random)
        }
        return fresh
    }
}

/// Who has an address.
enum RegionPlace {
    case publicSide(Int)
    case relay(Int)
    case owner(Int)
    /// Of the address's number.
    case client(Int)
    case stranger

    static func publicAddress(_ relay: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0xC633_0000 + UInt32(relay)), port: 3478) }
    static func relayTrunk(_ relay: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0x0A00_0000 + UInt32(relay)), port: 4000) }
    static func ownerTrunk(_ owner: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0x0A01_0000 + UInt32(owner)), port: 5000) }
    static func client(_ number: Int) -> SocketAddress { SocketAddress(IPAddress(v4: 0x6440_0000 + UInt32(number)), port: 40_000) }
    static func stranger(_ number: UInt64) -> SocketAddress {
        SocketAddress(IPAddress(v4: 0xCB00_7100 + UInt32(number % 16)), port: 50_000 + UInt16(number / 16 % 64))
    }

    init(_ address: SocketAddress) {
        let bits = address.ip.v4Bits
        switch bits >> 16 {
        case 0xC633: self = .publicSide(Int(bits & 0xFFFF))
        case 0x0A00: self = .relay(Int(bits & 0xFFFF))
        case 0x0A01: self = .owner(Int(bits & 0xFFFF))
        case 0x6440...0x647F: self = .client(Int(bits - 0x6440_0000))
        default: self = .stranger
        }
    }
}

/// One word of a voice: an RTP packet whose content says whose it is, and whether it still is what was said.
enum RegionWord {
    static let byteCount = 28

    static func write(_ counter: UInt32, of call: UInt32, isEcho: Bool) -> [UInt8] {
        var packet = [UInt8](repeating: 0, count: byteCount)
        var span = packet.mutableSpan
        var bytes = span.mutableBytes
        bytes.set(UInt8(0x80), at: 0)
        bytes.set(UInt8(111), at: 1)
        bytes.set(UInt16(truncatingIfNeeded: counter), at: 2)
        bytes.set(counter &* 960, at: 4)
        bytes.set(call, at: 8)
        bytes.set(counter, at: 12)
        bytes.set(isEcho ? UInt32(1) : 0, at: 16)
        bytes.set(digest(counter, call, isEcho ? 1 : 0), at: 20)
        return packet
    }

    /// nil: not one of ours, or not any more.
    static func read(_ bytes: RawSpan) -> (counter: UInt32, call: UInt32, isEcho: Bool)? {
        guard bytes.byteCount == byteCount, bytes.u16(0) == 0x806F else { return nil }
        let (call, counter, echo) = (bytes.u32(8), bytes.u32(12), bytes.u32(16))
        guard bytes.u64(20) == digest(counter, call, echo), bytes.u16(2) == UInt16(truncatingIfNeeded: counter),
            bytes.u32(4) == counter &* 960
        else { return nil }
        return (counter, call, echo == 1)
    }

    private static func digest(_ counter: UInt32, _ call: UInt32, _ echo: UInt32) -> UInt64 {
        var x = (UInt64(call) << 32 | UInt64(counter)) &+ UInt64(echo) &* 0x9E37_79B9_7F4A_7C15
        x = (x ^ x >> 30) &* 0xBF58_476D_1CE4_E5B9
        x = (x ^ x >> 27) &* 0x94D0_49BB_1331_11EB
        return x ^ x >> 31
    }
}
