// Which worker's socket gets a datagram. Workers bind one port with SO_REUSEPORT; a classic BPF program attached to the group
// returns the index of the socket, in the order in which the sockets were bound. Two rules:
//
// - public side: by a hash of the source address and port, which `AddressSteering.workerIndex(for:)` computes alike in user
//   space, so that any worker knows which one owns a flow;
// - trunk side: by byte 1 of the payload, the worker byte of the trunk's frame header.
//
// The number of sockets is fixed for the life of the group: the kernel moves the last socket into the slot of a closed one.
import CLinux
import Glibc
public import Primitives

/// A classic BPF program that returns the index of a socket in a SO_REUSEPORT group.
public struct SteeringProgram: Sendable {
    struct Instruction: Sendable, Equatable {
        var code: UInt16
        var jumpTrue: UInt8 = 0
        var jumpFalse: UInt8 = 0
        var constant: UInt32 = 0
    }
    private(set) var instructions: [Instruction] = []

    /// By the hash of source address and port; agrees with `AddressSteering(workers:key:).workerIndex(for:)`.
    ///
    /// Offset 0 of a reuseport program is the UDP payload; `SKF_NET_OFF` reaches back to the IP header. An IPv6 datagram with
    /// extension headers is steered (steadily) by whatever stands where the port would be, so user space may be wrong about it.
    public static func bySource(_ steering: AddressSteering) -> SteeringProgram {
        var program = SteeringProgram()
        // M[0] holds the hash between rounds; X is scratch.
        program.add(BPF_LD | BPF_IMM, steering.key)
        program.add(BPF_ST, 0)
        program.add(BPF_LD | BPF_B | BPF_ABS, networkHeader)
        program.add(BPF_ALU | BPF_RSH | BPF_K, 4)
        let branch = program.instructions.count
        program.add(BPF_JMP | BPF_JEQ | BPF_K, 4)  // falls through for IPv4

        program.loadAndMix(BPF_LD | BPF_W | BPF_ABS, networkHeader &+ 12)
        program.add(BPF_LDX | BPF_B | BPF_MSH, networkHeader)  // X = 4 * IHL
        program.loadAndMix(BPF_LD | BPF_H | BPF_IND, networkHeader)
        program.returnRemainder(of: steering.workers)

        program.instructions[branch].jumpFalse = UInt8(program.instructions.count - branch - 1)
        for word in 0..<4 { program.loadAndMix(BPF_LD | BPF_W | BPF_ABS, networkHeader &+ 8 &+ UInt32(4 * word)) }
        program.loadAndMix(BPF_LD | BPF_H | BPF_ABS, networkHeader &+ 40)
        program.returnRemainder(of: steering.workers)
        return program
    }

    /// By byte 1 of the payload, modulo `workers`. A payload of one byte or none goes to worker 0.
    public static func byWorkerByte(workers: Int) -> SteeringProgram {
        precondition(workers >= 1 && workers <= 256)
        var program = SteeringProgram()
        program.add(BPF_LD | BPF_B | BPF_ABS, 1)
        program.returnRemainder(of: UInt32(workers))
        return program
    }
}

/// The public side's rule: source address and port to worker. A key keeps an attacker from choosing the worker; whoever
/// inherits the sockets must be told the key too.
@frozen public struct AddressSteering: Sendable, Equatable {
    public let workers: UInt32
    public let key: UInt32

    public init(workers: Int, key: UInt32 = 0) {
        precondition(workers >= 1 && workers <= 256)
        self.workers = UInt32(workers)
        self.key = key
    }

    /// The worker whose socket gets datagrams from `source`: the same arithmetic as the program.
    @inlinable public func workerIndex(for source: SocketAddress) -> Int {
        var hash = key
        if source.ip.isV4 {
            hash = Self.mix(hash, source.ip.v4Bits)
        } else {
            hash = Self.mix(hash, UInt32(truncatingIfNeeded: source.ip.high >> 32))
            hash = Self.mix(hash, UInt32(truncatingIfNeeded: source.ip.high))
            hash = Self.mix(hash, UInt32(truncatingIfNeeded: source.ip.low >> 32))
            hash = Self.mix(hash, UInt32(truncatingIfNeeded: source.ip.low))
        }
        hash = Self.mix(hash, UInt32(source.port))
        return Int(hash % workers)
    }

    /// One multiplicative round: `h = (h ^ word) * 0x9E3779B1; h ^= h >> 15`.
    @inlinable static func mix(_ hash: UInt32, _ word: UInt32) -> UInt32 {
        let product = (hash ^ word) &* 0x9E37_79B1
        return product ^ product >> 15
    }
}

/// The worker that gets datagrams from `source` in a group steered by `.bySource` with `key`.
@inlinable public func workerIndex(for source: SocketAddress, workers: Int, key: UInt32 = 0) -> Int {
    AddressSteering(workers: workers, key: key).workerIndex(for: source)
}

extension SteeringProgram {
    private static let networkHeader = UInt32(bitPattern: SKF_NET_OFF)

    private mutating func add(_ code: CInt, _ constant: UInt32 = 0) {
        instructions.append(Instruction(code: UInt16(code), constant: constant))
    }

    /// A = load; A = (M[0] ^ A) * 0x9E3779B1; A ^= A >> 15; M[0] = A. Leaves the hash in A.
    private mutating func loadAndMix(_ load: CInt, _ offset: UInt32) {
        add(load, offset)
        add(BPF_LDX | BPF_MEM, 0)
        add(BPF_ALU | BPF_XOR | BPF_X)
        add(BPF_ALU | BPF_MUL | BPF_K, 0x9E37_79B1)
        add(BPF_MISC | BPF_TAX)
        add(BPF_ALU | BPF_RSH | BPF_K, 15)
        add(BPF_ALU | BPF_XOR | BPF_X)
        add(BPF_ST, 0)
    }

    private mutating func returnRemainder(of workers: UInt32) {
        add(BPF_ALU | BPF_MOD | BPF_K, workers)
        add(BPF_RET | BPF_A)
    }
}
