import EventLoop
import Primitives
import SRTP

/// `swiftlet bench srtp`: what securing one packet costs, by our own engine and by the distribution's libsrtp2, turn by turn.
///
/// Each stream is a call of its own with keys of its own, and every round goes through all of them once: what one packet finds in the caches is what the
/// streams before it have left there, as in a server.
enum SRTPBench {
    static let help = """
        usage: swiftlet bench srtp [--streams N,N,…] [--size BYTES] [--packets N] [--profile gcm128|gcm256|cm] [--libsrtp yes|no]

        Protecting and unprotecting RTP packets, by swiftlet's own engine and by libsrtp2, in one thread, in slices that take turns.
        Nanoseconds of processor time per packet, the median of 20 slices; of libsrtp2, which slows down with the streams, of 5 short ones.

          --streams LIST   calls with keys of their own that packets go through in turn, 1…20000 each (1,1000,2000)
          --size BYTES     20…1200 of plain packet (160)
          --packets N      1000…100000000 for each row (200000)
          --libsrtp no     without libsrtp2, which takes a minute to set 2,000 streams up (yes)
          --profile NAME   gcm128, gcm256 or cm: AES-128 or AES-256 in GCM, AES-128 in counter mode with HMAC-SHA1-80 (gcm128, then cm)
        """
    private static let slices = 20
    /// Of the library there is one after so many of our own.
    private static let ownSlices = 4
    private static let slot = 1280

    /// Packets under way at once, as in one receive batch: what carries packets stays in the caches, what belongs to a call does not.
    private static let batch = 64

    /// Both sides of many calls.
    private struct Streams: ~Copyable {
        var senders: Slab<SRTPContext>
        var receivers: Slab<SRTPContext>
        var packets = ByteSlab(count: SRTPBench.batch, slotSize: SRTPBench.slot)
        var lengths = [Int](repeating: 0, count: SRTPBench.batch)
        /// The stream whose turn it is.
        var next = 0
        var sequence: UInt16 = 0

        init(_ count: Int, _ profile: SRTPProfile, _ engine: SRTPEngine) {
            func key(_ index: Int, _ side: UInt8) -> SRTPMasterKey {
                var random = SeededGenerator(seed: UInt64(index) << 8 | UInt64(side))
                func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) } }
                return SRTPMasterKey(key: bytes(profile.keyLength), salt: bytes(profile.saltLength))
            }
            func context(_ index: Int, _ local: UInt8) -> SRTPContext {
                do {
                    return try SRTPContext(profile: profile, local: key(index, local), remote: key(index, 1 - local), engine: engine)
                } catch { preconditionFailure("keys as long as the profile wants them were refused: \(error)") }
            }
            senders = Slab(count: count) { context($0, 0) }
            receivers = Slab(count: count) { context($0, 1) }
        }

        private func stream(_ index: Int) -> Int { (next + index) % senders.count }

        mutating func fill(_ size: Int) {
            for index in 0..<lengths.count {
                if stream(index) == 0 { sequence &+= 1 }
                Self.write(stream(index), sequence, into: &packets, index)
                lengths[index] = size
            }
        }

        mutating func protect() throws(SRTPError) {
            for index in 0..<lengths.count {
                lengths[index] = try Self.protect(&senders, stream(index), &packets, index, lengths[index])
            }
        }

        /// Opens what `protect` has made, and goes on to the next streams.
        mutating func unprotect() throws(SRTPError) {
            for index in 0..<lengths.count {
                lengths[index] = try Self.unprotect(&receivers, stream(index), &packets, index, lengths[index])
            }
            next = stream(lengths.count)
        }

        // Static: a span of one stored property would keep the others from being changed.

        private static func write(_ stream: Int, _ sequence: UInt16, into packets: inout ByteSlab, _ index: Int) {
            var packet = packets.mutableBytes(index, 0..<SRTPBench.slot)
            packet.set(0x806F_0000 | UInt32(sequence), at: 0)
            packet.set(UInt32(sequence) &* 960, at: 4)
            packet.set(UInt32(truncatingIfNeeded: stream) | 0x5000_0000, at: 8)
        }

        private static func protect(
            _ streams: inout Slab<SRTPContext>, _ stream: Int, _ packets: inout ByteSlab, _ index: Int, _ length: Int
        ) throws(SRTPError) -> Int {
            var packet = packets.mutableBytes(index, 0..<SRTPBench.slot)
            return try streams[stream].protectRTP(&packet, length: length)
        }

        private static func unprotect(
            _ streams: inout Slab<SRTPContext>, _ stream: Int, _ packets: inout ByteSlab, _ index: Int, _ length: Int
        ) throws(SRTPError) -> Int {
            var packet = packets.mutableBytes(index, 0..<SRTPBench.slot)
            return try streams[stream].unprotectRTP(&packet, length: length)
        }
    }

    static func run(_ arguments: [String]) throws {
        guard let given = try Arguments(arguments, names: ["--streams", "--size", "--packets", "--profile", "--libsrtp"], help: help) else {
            return
        }
        let counts = (given["--streams"] ?? "1,1000,2000").split(separator: ",").map { Int($0) ?? 0 }
        guard !counts.isEmpty, counts.allSatisfy({ (1...20_000).contains($0) }) else {
            throw CommandError("--streams: must be numbers from 1 to 20000 with commas between them")
        }
        let size = try given.number("--size", 20...1200, default: 160)
        guard ["yes", "no", nil].contains(given["--libsrtp"]) else { throw CommandError("--libsrtp: must be yes or no") }
        let compares = given["--libsrtp"] != "no"
        let packets = try given.number("--packets", 1000...100_000_000, default: 200_000)
        let profiles: [(String, SRTPProfile)]
        switch given["--profile"] {
        case nil: profiles = [("AES-128-GCM", .aeadAES128GCM), ("AES-CM, HMAC-SHA1-80", .aes128CMHMACSHA1_80)]
        case "gcm128": profiles = [("AES-128-GCM", .aeadAES128GCM)]
        case "gcm256": profiles = [("AES-256-GCM", .aeadAES256GCM)]
        case "cm": profiles = [("AES-CM, HMAC-SHA1-80", .aes128CMHMACSHA1_80)]
        case let name?: throw CommandError("--profile: '\(name)' is not allowed; it must be gcm128, gcm256 or cm")
        }
        say("RTP packets of \(size) B; ns of processor time per packet, medians")
        var lines = [["profile", "streams", "protect", "unprotect", "libsrtp2", "libsrtp2", "own / libsrtp2"]]
        for (name, profile) in profiles {
            for count in counts {
                let row: [Double]
                do { row = try measure(count, profile, size, packets, compares: compares) } catch {
                    throw CommandError("\(name): \(error)", status: 1)
                }
                let ratio = (row[0] + row[1]) / (row[2] + row[3])
                lines.append([name, "\(count)"] + row.map { decimals($0, 0) } + [decimals(ratio, 2)])
            }
        }
        printTable(lines)
    }

    /// Own protect and unprotect, then libsrtp2's; NaN where it is not compared.
    private static func measure(
        _ count: Int, _ profile: SRTPProfile, _ size: Int, _ packets: Int, compares: Bool
    ) throws(SRTPError) -> [Double] {
        var own = Streams(count, profile, .own)
        var library = Streams(compares ? count : 1, profile, .libsrtp)
        // At least once through all of them.
        let most = max(count, packets / slices)
        var costs = [[Double]](repeating: [], count: 4)
        for slice in 0..<slices {
            // What the library has left in the caches is in nobody's way in a server that does not use it.
            if slice % ownSlices == 0 { _ = try turn(&own, size, packets: count) }
            let cost = try turn(&own, size, packets: most)
            costs[0].append(cost.protect)
            costs[1].append(cost.unprotect)
            guard compares, slice % ownSlices == ownSlices - 1 else { continue }
            let other = try turn(&library, size, packets: count)
            costs[2].append(other.protect)
            costs[3].append(other.unprotect)
        }
        return costs.map { $0.isEmpty ? .nan : $0.sorted()[$0.count / 2] }
    }

    /// Nanoseconds per packet.
    private static func turn(_ streams: inout Streams, _ size: Int, packets: Int) throws(SRTPError) -> (protect: Double, unprotect: Double)
    {
        var (protecting, unprotecting) = (Interval.zero, Interval.zero)
        let batches = (packets + batch - 1) / batch
        for _ in 0..<batches {
            streams.fill(size)
            let start = threadProcessorTime()
            try streams.protect()
            let middle = threadProcessorTime()
            try streams.unprotect()
            protecting = protecting + (middle - start)
            unprotecting = unprotecting + (threadProcessorTime() - middle)
        }
        let moved = Double(batches * batch)
        return (Double(protecting.nanoseconds) / moved, Double(unprotecting.nanoseconds) / moved)
    }
}
