// How much of what there may be. Ranges of options, and sizes that are not options because nobody should need to change them. Each is
// here once: the tables print it, the structs check it.

/// Capacities, with the reason for each number.
public enum Limits {
    /// Threads that move datagrams. A worker's number is one byte of a routing hint, and its bit one of the steering program's masks.
    public static let workers = 1...64
    /// Public addresses of one relay, and candidates of one answer: both families on a few networks.
    public static let addresses = 8
    /// Connections over TCP of one relay, and of one client address; each worker has its share. The upper end is a process's open files.
    public static let tcpConnections = 1...524_288
    public static let tcpConnectionsDefault = 4_096
    public static let tcpConnectionsPerAddressDefault = 256
    /// Address prefixes of one option.
    public static let prefixes = 256
    /// Client addresses that a relay knows; each worker has its share. The upper end is a table of about 2 GiB.
    public static let flows = 1_024...16_777_216
    /// Calls of one media worker.
    public static let sessions = 1...65_536
    /// Trunk frames in bytes: 256 carries the smallest useful record, 9000 is a jumbo frame.
    public static let trunkMTU = 256...9_000
    /// A path of 1500 bytes minus IPv6 and UDP headers (48), with room for one tunnel.
    public static let trunkMTUDefault = 1_400
    /// Microseconds that a relay's worker may let datagrams come: half a millisecond is what a conversation does not notice.
    public static let gather = 0...500
    public static let gatherDefault = 500
    /// Milliseconds that the embedded echo may wait: it keeps that much audio in memory.
    public static let echoDelay = 0...5_000
    /// Seconds that running calls may go on after SIGTERM: a day.
    public static let drainTime = 0...86_400
    /// Seconds that a call is kept whose client says nothing: less than consent lasts would end calls that browsers still hold.
    public static let keepSilent = 30...600
    /// Bytes of a configuration file, a key file and a transceiver table that are read at most.
    public static let configurationFileBytes = 1 << 20
    public static let keyFileBytes = 1 << 16
    public static let tableFileBytes = 16 << 20
    /// A thousand ingresses with long names.
    public static let ingressFileBytes = 1 << 20
    /// Ten thousand members.
    public static let memberFileBytes = 4 << 20
    /// A file of API keys: ten thousand long ones with names.
    public static let apiKeyFileBytes = 4 << 20
}

/// A range as help and refusals write it: `1…64`.
func words(_ range: ClosedRange<some BinaryInteger>) -> String { "\(range.lowerBound)…\(range.upperBound)" }
