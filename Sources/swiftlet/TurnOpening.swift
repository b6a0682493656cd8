import Primitives

/// What a TURN server wants before it relays: an allocation and a channel for each client (RFC 8656), without authentication.
struct TurnOpening {
    let peer: SocketAddress

    enum Step: CaseIterable { case allocate, bind }

    /// The channel's header in front of each packet of flow `flow`; the client has only one channel.
    static func writeChannelHeader(_ packet: UnsafeMutableRawPointer, _ flow: Int, _ length: Int) {
        packet.storeBytes(of: UInt16(0x4000).bigEndian, as: UInt16.self)
        packet.storeBytes(of: UInt16(length).bigEndian, toByteOffset: 2, as: UInt16.self)
    }

    func request(_ step: Step, _ flow: Int) -> [UInt8] {
        var attributes: [UInt8]
        switch step {
        // REQUESTED-TRANSPORT: UDP.
        case .allocate: attributes = [0x00, 0x19, 0, 4, 17, 0, 0, 0]
        case .bind:
            let port = peer.port ^ 0x2112
            let address = peer.ip.v4Bits ^ 0x2112_A442
            // CHANNEL-NUMBER and XOR-PEER-ADDRESS.
            attributes = [0x00, 0x0C, 0, 4, 0x40, 0, 0, 0, 0x00, 0x12, 0, 8, 0, 1, UInt8(port >> 8), UInt8(port & 0xFF)]
            attributes += (0..<4).map { UInt8(truncatingIfNeeded: address >> (24 - 8 * $0)) }
        }
        let method: UInt8 = step == .allocate ? 0x03 : 0x09
        var message: [UInt8] = [0, method, 0, UInt8(attributes.count), 0x21, 0x12, 0xA4, 0x42]
        message += [method, 0, 0, 0, 0, 0, 0, 0] + (0..<4).map { UInt8(truncatingIfNeeded: flow >> (24 - 8 * $0)) }
        return message + attributes
    }
}
