// A network with a short MTU, for what loopback's 65,536 bytes never show. Only where this process may make one.
import Glibc

/// Runs `body` on a thread whose sockets are in a network of their own, with a loopback interface of `mtu` bytes; false, and nothing has
/// run, where that is not allowed.
@discardableResult
func withNetworkOfItsOwn(mtu: Int32, _ body: @escaping @Sendable () -> Void) -> Bool {
    final class Work: Sendable {
        let mtu: Int32
        let body: @Sendable () -> Void
        init(_ mtu: Int32, _ body: @escaping @Sendable () -> Void) { (self.mtu, self.body) = (mtu, body) }
    }
    var thread = pthread_t()
    let work = Unmanaged.passRetained(Work(mtu, body))
    let started = pthread_create(
        &thread, nil,
        { argument in
            let work = Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue()
            guard unshare(0x4000_0000) == 0, setLoopback(mtu: work.mtu) else { return nil }
            work.body()
            return UnsafeMutableRawPointer(bitPattern: 1)
        }, work.toOpaque())
    guard started == 0 else {
        work.release()
        return false
    }
    var result: UnsafeMutableRawPointer?
    pthread_join(thread, &result)
    return result != nil
}

/// Whether this process may.
let mayMakeNetworks = withNetworkOfItsOwn(mtu: 1500) {}

/// By `struct ifreq`: sixteen bytes of name, then the value.
private func setLoopback(mtu: Int32) -> Bool {
    let socket = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
    guard socket >= 0 else { return false }
    defer { close(socket) }
    func set(_ request: UInt, _ value: Int32) -> Bool {
        var bytes = [UInt8](repeating: 0, count: 40)
        bytes.replaceSubrange(0..<2, with: Array("lo".utf8))
        withUnsafeBytes(of: value) { bytes.replaceSubrange(16..<20, with: $0) }
        return bytes.withUnsafeMutableBytes { ioctl(socket, request, $0.baseAddress!) } == 0
    }
    let (setMTU, setFlags): (UInt, UInt) = (0x8922, 0x8914)
    return set(setMTU, mtu) && set(setFlags, 0x41)  // IFF_UP | IFF_RUNNING
}
