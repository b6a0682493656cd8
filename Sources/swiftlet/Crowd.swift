import CBench
import Glibc
import Primitives

/// The clients' socket.
struct Crowd: ~Copyable {
    let pointer: OpaquePointer

    init(first: UInt32, aimedAt target: SocketAddress) throws(CommandError) {
        guard let made = crowd_make(first, 4 << 20) else {
            throw CommandError("clients' socket: \(String(cString: strerror(errno)))", status: 1)
        }
        pointer = made
        crowd_aim(made, target.ip.v4Bits, target.port)
    }

    deinit { crowd_free(pointer) }
}
