import EventLoop
import Primitives

/// `addresses` with every `0.0.0.0` and `[::]` replaced by this machine's own, which is what packets carry.
func expanded(_ addresses: [SocketAddress]) -> [SocketAddress] {
    let own = interfaceAddresses()
    var result: [SocketAddress] = []
    for address in addresses {
        if address.ip.isAny {
            // A socket on [::] has the IPv4 addresses too.
            let reachable = own.filter { !address.ip.isV4 || $0.isV4 }
            result += reachable.map { SocketAddress($0, port: address.port) }
        } else {
            result.append(address)
        }
    }
    return result
}

/// What the operator reads of this program.
func log(_ line: String) { complain("swiftlet-relay: \(line)") }
