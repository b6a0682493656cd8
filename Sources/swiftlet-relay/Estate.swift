// What outlives a worker: the sockets with the packets queued in them, and the memory that the flows lie in. The keeper holds it; a worker
// gets it when it starts, and another keeper when it takes over.

import Configuration
import EventLoop
import Primitives

struct RelayEstate: ~Copyable {
    /// One socket per worker on each public address.
    let workers: Int
    let publicCount: Int
    let flowsPerWorker: Int
    /// The rule that is attached to the public groups; whoever builds a table must keep it.
    let steeringKey: UInt32
    var table: SharedMemory?
    /// Public groups one after the other, each in worker order, then the trunk's.
    fileprivate(set) var sockets: Slab<FileDescriptor?>
    /// Listeners of public TCP addresses, in groups like the sockets: what waits in them waits for the next worker.
    private(set) var streamCount = 0
    fileprivate(set) var streams = Slab<FileDescriptor?>(count: 0) { _ in nil }
    var listener: FileDescriptor?

    init(workers: Int, publicCount: Int, flowsPerWorker: Int, steeringKey: UInt32) {
        self.workers = workers
        self.publicCount = publicCount
        self.flowsPerWorker = flowsPerWorker
        self.steeringKey = steeringKey
        sockets = Slab(count: workers * (publicCount + 1)) { _ in nil }
    }

    mutating func setSocket(_ descriptor: consuming FileDescriptor, group: Int, worker: Int) {
        sockets[group * workers + worker] = consume descriptor
    }

    /// Takes the socket of `worker` out of public group `group`, or of the trunk's, which comes last.
    mutating func takeSocket(group: Int, worker: Int, _ options: DatagramSocket.Options) throws(Errno) -> DatagramSocket {
        guard let descriptor = sockets[group * workers + worker].take() else { throw .badDescriptor }
        return try DatagramSocket(adopting: descriptor, options: options)
    }

    /// Makes room for listeners on `count` addresses; those of before are closed.
    mutating func setStreamCount(_ count: Int) {
        streamCount = count
        streams = Slab(count: workers * count) { _ in nil }
    }

    mutating func setStream(_ descriptor: consuming FileDescriptor, group: Int, worker: Int) {
        streams[group * workers + worker] = consume descriptor
    }

    mutating func takeStream(group: Int, worker: Int) throws(Errno) -> StreamListener {
        guard let descriptor = streams[group * workers + worker].take() else { throw .badDescriptor }
        return try StreamListener(adopting: descriptor)
    }

    /// Where the listeners of `group` are bound; nil when they do not belong together, or are none.
    func address(ofStreamGroup group: Int) -> SocketAddress? {
        var common: SocketAddress?
        for worker in 0..<workers {
            guard let number = streamNumber(group * workers + worker), let address = StreamListener.address(ofDescriptor: number),
                common == nil || common == address
            else { return nil }
            common = address
        }
        return common
    }

    /// Whether the listeners are those that `wanted` asks for.
    func hasStreams(for wanted: [SocketAddress]) -> Bool {
        guard streamCount == wanted.count else { return false }
        for (group, address) in wanted.enumerated() {
            guard let bound = self.address(ofStreamGroup: group), bound.ip == address.ip, address.port == 0 || bound.port == address.port
            else { return false }
        }
        return true
    }

    func streamNumber(_ index: Int) -> CInt? {
        switch streams[index] {
        case .some(let descriptor): descriptor.rawValue
        case .none: nil
        }
    }

    mutating func closeSockets() { for index in 0..<sockets.count { sockets[index] = nil } }

    /// Where the sockets of `group` are bound; nil when they do not belong together, or are no UDP sockets.
    func address(ofGroup group: Int) -> SocketAddress? {
        var common: SocketAddress?
        for worker in 0..<workers {
            guard let number = number(group * workers + worker), let address = DatagramSocket.address(ofDescriptor: number),
                common == nil || common == address
            else { return nil }
            common = address
        }
        return common
    }

    func number(_ index: Int) -> CInt? {
        switch sockets[index] {
        case .some(let descriptor): descriptor.rawValue
        case .none: nil
        }
    }

    var listenerNumber: CInt? {
        switch listener {
        case .some(let descriptor): descriptor.rawValue
        case .none: nil
        }
    }

    var tableNumber: CInt? {
        switch table {
        case .some(let table): table.descriptor.rawValue
        case .none: nil
        }
    }
}

/// What two processes of a relay say to each other. The first byte of a message.
enum RelayMessage: UInt8 {
    /// Keeper to worker, or to its successor: the shape of an estate. `descriptors` follow.
    case estate = 1
    case descriptors
    /// From whoever got an estate: all is read and checked, nothing is received yet.
    case prepared
    /// To a worker, with the table: receive.
    case go
    /// From a worker: it receives; with what became of the flows that it found.
    case running
    /// From a worker, once a second while all its threads turn.
    case alive
    /// A successor asks for the estate.
    case request
    /// To a successor: no, and why.
    case refused
    /// To a successor: nobody reads the sockets any more.
    case released
    /// Keeper to worker: what the files say, in memory that comes with it; before the estate, and again when they have changed.
    case settings
    /// The files say what cannot be used; all stays as it was.
    case settingsRefused
    /// Worker to keeper: whom the registry knows, in memory that comes with it.
    case members

    /// Changes with any of the messages. An estate without TCP is the same in both versions.
    static let version: UInt8 = 1
    static let versionWithStreams: UInt8 = 2
}

extension RelayEstate {
    /// Sends all but the table.
    func send(over channel: borrowing MessageSocket) throws(Errno) {
        var numbers: [CInt] = []
        for index in 0..<sockets.count { if let number = number(index) { numbers.append(number) } }
        for index in 0..<streams.count { if let number = streamNumber(index) { numbers.append(number) } }
        if let listenerNumber { numbers.append(listenerNumber) }
        let version = streamCount == 0 ? RelayMessage.version : RelayMessage.versionWithStreams
        var head: [UInt8] = [
            RelayMessage.estate.rawValue, version, UInt8(workers), UInt8(publicCount), listenerNumber == nil ? 0 : 1,
        ]
        head.append(steeringKey)
        head.append(UInt32(flowsPerWorker))
        if streamCount > 0 { head.append(UInt8(streamCount)) }
        try channel.send(head)
        var sent = 0
        while sent < numbers.count {
            let part = Array(numbers[sent..<min(sent + MessageSocket.descriptorsMax, numbers.count)])
            try channel.send([RelayMessage.descriptors.rawValue], descriptors: part)
            sent += part.count
        }
    }

    /// Receives what `send` sent; `head` is its first message.
    static func receive(_ head: [UInt8], from channel: borrowing MessageSocket, until deadline: Instant) throws(ConfigurationError)
        -> RelayEstate
    {
        guard head.count >= 2, head[0] == RelayMessage.estate.rawValue else { throw ConfigurationError("no relay's answer") }
        let hasStreams = head[1] == RelayMessage.versionWithStreams
        guard hasStreams || head[1] == RelayMessage.version, head.count == (hasStreams ? 14 : 13) else {
            throw ConfigurationError(
                "the running relay hands over by version \(head[1]), this program by \(RelayMessage.versionWithStreams); restart it")
        }
        let streamCount = hasStreams ? Int(head[13]) : 0
        let workers = Int(head[2]), publicCount = Int(head[3]), hasListener = head[4] == 1
        let flows = Int(head.span.bytes.u32(9))
        guard Limits.workers.contains(workers), (1...Limits.addresses).contains(publicCount), (1...1 << 24).contains(flows),
            streamCount <= Limits.addresses
        else {
            throw ConfigurationError("an estate of an impossible shape")
        }
        var estate = RelayEstate(
            workers: workers, publicCount: publicCount, flowsPerWorker: flows, steeringKey: head.span.bytes.u32(5))
        estate.setStreamCount(streamCount)
        let listeners = estate.sockets.count..<estate.sockets.count + estate.streams.count
        let wanted = listeners.upperBound + (hasListener ? 1 : 0)
        var index = 0
        while index < wanted {
            guard var message = try? channel.receive(until: deadline), message.bytes == [RelayMessage.descriptors.rawValue],
                message.descriptors.count > 0, index + message.descriptors.count <= wanted
            else { throw ConfigurationError("descriptors are missing: \(index) of \(wanted) have come") }
            for number in 0..<message.descriptors.count {
                let descriptor = message.descriptors.take(number)
                if index < listeners.lowerBound {
                    estate.sockets[index] = descriptor
                } else if index < listeners.upperBound {
                    estate.streams[index - listeners.lowerBound] = descriptor
                } else {
                    estate.listener = descriptor
                }
                index += 1
            }
        }
        return estate
    }
}

extension [UInt8] {
    mutating func append(_ value: UInt32) { for shift in [24, 16, 8, 0] as [UInt32] { append(UInt8(truncatingIfNeeded: value >> shift)) } }
    mutating func append(_ value: UInt64) {
        append(UInt32(truncatingIfNeeded: value >> 32))
        append(UInt32(truncatingIfNeeded: value))
    }
}
