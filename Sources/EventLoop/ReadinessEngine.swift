// Datagrams by recvmmsg and sendmmsg: the engine that works everywhere.
import CLinux
import Glibc
import Primitives

enum ReadinessEngine {
    /// Replaces what `batch` holds by what the socket has now, without waiting.
    static func receive(from descriptor: CInt, into batch: inout ReceiveBatch) {
        // An ICMP message for something sent earlier is reported instead of a datagram: step over a few of them, not over a flood.
        for _ in 0..<8 {
            do throws(Errno) {
                let received = try Syscall.receiveMessages(descriptor, batch.vectors.headers, batch.capacity)
                batch.adopt(received: received)
                return
            } catch {
                if error == .wouldBlock { break }
                batch.errors &+= 1
            }
        }
        batch.count = 0
    }

    /// Sends and empties `batch`. Every datagram is tried; none is kept. `segments` becomes false when the device cannot segment.
    static func send(_ batch: inout SendBatch, on descriptor: CInt, family: AddressFamily, segments: inout Bool) {
        batch.prepare(family: family)
        var index = 0
        var retried = -1
        while index < batch.count {
            let isTrain = batch.entries[index].segmentSize > 0
            if isTrain && !segments {
                sendPieces(of: index, in: &batch, on: descriptor, family: family)
                index += 1
                continue
            }
            let end = segments ? batch.count : batch.firstTrain(from: index)
            switch step(descriptor, batch.vectors.headers + index, end - index, mayRetry: retried != index) {
            case .sent(let count):
                batch.recordSent(index..<index + count)
                index += count
            case .again:
                batch.statistics.retried &+= 1
                retried = index
            case .refused(let error) where isTrain && error == .inputOutput: segments = false
            case .refused(let error) where isTrain && (error == .invalidArgument || error == .messageTooLong):
                // The segment is longer than the device's MTU: single datagrams may still be fragmented.
                sendPieces(of: index, in: &batch, on: descriptor, family: family)
                index += 1
            case .refused(let error):
                if error == .messageTooLong, sendFragmented(descriptor, batch.vectors.headers + index) {
                    batch.recordSent(index..<index + 1)
                } else {
                    batch.recordFailure(error, index, datagrams: batch.segmentCount(index))
                }
                index += 1
            case .full(let error):
                while index < batch.count {
                    batch.recordFailure(error, index, datagrams: batch.segmentCount(index))
                    index += 1
                }
            }
        }
        batch.removeAll()
    }

    /// Deals with datagram or train `index`, which another engine tried to send once and which the kernel refused with `error`.
    static func settle(
        _ error: Errno, _ index: Int, in batch: inout SendBatch, on descriptor: CInt, family: AddressFamily, segments: inout Bool
    ) {
        switch error {
        case .connectionRefused, .hostUnreachable, .networkUnreachable:
            // Twice: what is in the way now may belong to one of the others.
            for _ in 0..<2 {
                batch.statistics.retried &+= 1
                if case .sent = step(descriptor, batch.vectors.headers + index, 1, mayRetry: false) {
                    batch.recordSent(index..<index + 1)
                    return
                }
            }
            batch.recordFailure(error, index, datagrams: batch.segmentCount(index))
        case .inputOutput where batch.entries[index].segmentSize > 0, .invalidArgument where batch.entries[index].segmentSize > 0,
            .messageTooLong where batch.entries[index].segmentSize > 0:
            if error == .inputOutput { segments = false }
            sendPieces(of: index, in: &batch, on: descriptor, family: family)
        case .messageTooLong where sendFragmented(descriptor, batch.vectors.headers + index): batch.recordSent(index..<index + 1)
        default: batch.recordFailure(error, index, datagrams: batch.segmentCount(index))
        }
    }

    /// Sends one datagram that is longer than its path takes, in fragments, on a socket whose datagrams leave whole. False when it is not
    /// such a socket, or it still cannot be sent.
    @inline(never)
    private static func sendFragmented(_ descriptor: CInt, _ header: UnsafeMutablePointer<mmsghdr>) -> Bool {
        guard (try? Syscall.option(descriptor, CInt(IPPROTO_IP), IP_MTU_DISCOVER)) == IP_PMTUDISC_DO,
            (try? Syscall.setOption(descriptor, CInt(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_WANT)) != nil
        else { return false }
        defer { try? Syscall.setOption(descriptor, CInt(IPPROTO_IP), IP_MTU_DISCOVER, IP_PMTUDISC_DO) }
        return (try? Syscall.sendMessages(descriptor, header, 1)) == 1
    }

    private static func sendPieces(of index: Int, in batch: inout SendBatch, on descriptor: CInt, family: AddressFamily) {
        let count = batch.preparePieces(of: index, family: family)
        var piece = 0
        var retried = -1
        while piece < count {
            switch step(descriptor, batch.pieces.headers + piece, count - piece, mayRetry: retried != piece) {
            case .sent(let sent):
                batch.statistics.sent &+= UInt64(sent)
                piece += sent
            case .again:
                batch.statistics.retried &+= 1
                retried = piece
            case .refused(let error):
                if error == .messageTooLong, sendFragmented(descriptor, batch.pieces.headers + piece) {
                    batch.statistics.sent &+= 1
                } else {
                    batch.recordFailure(error, index, datagrams: 1)
                }
                piece += 1
            case .full(let error):
                batch.recordFailure(error, index, datagrams: UInt64(count - piece))
                return
            }
        }
    }

    private enum Step {
        /// The kernel took this many.
        case sent(Int)
        /// The error belongs to an earlier datagram: send the same ones again.
        case again
        /// The first datagram cannot be sent; the next may.
        case refused(Errno)
        /// The socket's or the device's queue is full: the rest is newest and goes first.
        case full(Errno)
    }

    private static func step(_ descriptor: CInt, _ headers: UnsafeMutablePointer<mmsghdr>, _ count: Int, mayRetry: Bool) -> Step {
        do throws(Errno) { return .sent(try Syscall.sendMessages(descriptor, headers, count)) } catch {
            switch error {
            case .connectionRefused where mayRetry, .hostUnreachable where mayRetry, .networkUnreachable where mayRetry: return .again
            case .wouldBlock, .noBufferSpace: return .full(error)
            default: return .refused(error)
            }
        }
    }
}

extension SendBatch {
    func firstTrain(from start: Int) -> Int {
        var index = start
        while index < count, entries[index].segmentSize == 0 { index += 1 }
        return index
    }
}
