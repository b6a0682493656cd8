// The arrays that recvmmsg and sendmmsg read: message headers, I/O vectors, names, control space. Built once; a turn rewrites
// lengths only. Raw pointers to datagram memory appear in this file, in ReceiveBatch, SendBatch and the engines.
import CLinux
import Glibc
import Primitives

/// `count` message headers with one I/O vector, one name and `controlSize` bytes of control space each.
struct MessageVectors: ~Copyable {
    let count: Int
    let controlSize: Int
    let headers: UnsafeMutablePointer<mmsghdr>
    let vectors: UnsafeMutablePointer<iovec>
    let names: UnsafeMutableRawPointer
    let controls: UnsafeMutableRawPointer

    init(count: Int, controlSize: Int) {
        self.count = count
        self.controlSize = controlSize
        headers = .allocate(capacity: count)
        vectors = .allocate(capacity: count)
        names = .allocate(byteCount: count * SocketName.slotSize, alignment: 64)
        controls = .allocate(byteCount: count * controlSize, alignment: 64)
        names.initializeMemory(as: UInt8.self, repeating: 0, count: count * SocketName.slotSize)
        controls.initializeMemory(as: UInt8.self, repeating: 0, count: count * controlSize)
        for index in 0..<count {
            (vectors + index).initialize(to: iovec())
            var header = mmsghdr()
            header.msg_hdr.msg_name = names + index * SocketName.slotSize
            header.msg_hdr.msg_iov = vectors + index
            header.msg_hdr.msg_iovlen = 1
            header.msg_hdr.msg_control = controls + index * controlSize
            (headers + index).initialize(to: header)
        }
    }

    deinit {
        headers.deallocate()
        vectors.deallocate()
        names.deallocate()
        controls.deallocate()
    }

    func name(_ index: Int) -> UnsafeMutableRawPointer { names + index &* SocketName.slotSize }
    func control(_ index: Int) -> UnsafeMutableRawPointer { controls + index &* controlSize }

    /// The kernel overwrote these in the last receive.
    func resetForReceive(_ indices: Range<Int>) {
        for index in indices {
            headers[index].msg_hdr.msg_namelen = socklen_t(SocketName.slotSize)
            headers[index].msg_hdr.msg_controllen = controlSize
            headers[index].msg_hdr.msg_flags = 0
        }
    }
}

extension MessageVectors: @unchecked Sendable {}

/// Datagram memory with shared ownership: the kernel may still write into a batch's slots (io_uring) or read from them (a
/// forwarded datagram) when the batch itself is gone. Only the owner is reference-counted, never a packet.
final class PacketMemory: @unchecked Sendable {
    let slots: ByteSlab
    let base: UnsafeMutableRawPointer
    let stride: Int

    init(count: Int, slotSize: Int) {
        slots = ByteSlab(count: count, slotSize: slotSize)
        base = unsafe slots.address(0)
        stride = slotSize
    }
}

/// Bytes before each payload that io_uring's multishot receive needs: its own header (16), the name (32), the control messages (80).
let ringHeaderSize = 16 + SocketName.slotSize + Int(CLINUX_RECEIVE_CONTROL_BYTES)
