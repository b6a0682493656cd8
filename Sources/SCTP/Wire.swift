// The numbers of the wire.

import Primitives

/// Chunk types (RFC 9260 section 3.2, RFC 3758, RFC 6525, RFC 4820).
enum ChunkType {
    static let data: UInt8 = 0
    static let initiate: UInt8 = 1
    static let initiateAck: UInt8 = 2
    static let selectiveAck: UInt8 = 3
    static let heartbeat: UInt8 = 4
    static let heartbeatAck: UInt8 = 5
    static let abort: UInt8 = 6
    static let shutdown: UInt8 = 7
    static let shutdownAck: UInt8 = 8
    static let error: UInt8 = 9
    static let cookieEcho: UInt8 = 10
    static let cookieAck: UInt8 = 11
    static let shutdownComplete: UInt8 = 14
    static let reconfiguration: UInt8 = 130
    static let padding: UInt8 = 132
    static let forwardTSN: UInt8 = 192
}

/// Parameter types of INIT, INIT ACK and RE-CONFIG.
enum ParameterType {
    static let stateCookie: UInt16 = 7
    static let unrecognized: UInt16 = 8
    static let outgoingReset: UInt16 = 13
    static let incomingReset: UInt16 = 14
    static let associationReset: UInt16 = 15
    static let response: UInt16 = 16
    static let addOutgoingStreams: UInt16 = 17
    static let addIncomingStreams: UInt16 = 18
    /// RFC 9653.
    static let zeroChecksum: UInt16 = 0x8001
    static let supportedExtensions: UInt16 = 0x8008
    static let forwardTSN: UInt16 = 0xC000

    /// Address parameters, cookie preservative, ECN, authentication, adaptation: known, and of no use on one path inside DTLS.
    static func isKnown(_ type: UInt16) -> Bool {
        switch type {
        case 5, 6, 7, 8, 9, 11, 12, 0x8000...0x8004, 0x8008, 0xC000, 0xC006: true
        default: false
        }
    }
}

/// Error causes (RFC 9260 section 3.3.10).
enum ErrorCause {
    static let invalidStream: UInt16 = 1
    static let unrecognizedChunk: UInt16 = 6
    static let invalidParameter: UInt16 = 7
    static let unrecognizedParameters: UInt16 = 8
    static let noUserData: UInt16 = 9
    static let cookieWhileShuttingDown: UInt16 = 10
    static let userAbort: UInt16 = 12
    static let protocolViolation: UInt16 = 13
}

/// Payload protocol identifiers (RFC 8831 section 8). The two that mark parts of a message (52, 54) are deprecated: never sent, and
/// taken as whole messages.
enum PayloadProtocol {
    static let control: UInt32 = 50
    static let text: UInt32 = 51
    static let binaryPart: UInt32 = 52
    static let binary: UInt32 = 53
    static let textPart: UInt32 = 54
    static let emptyText: UInt32 = 56
    static let emptyBinary: UInt32 = 57
}

/// Flags of a DATA chunk.
enum DataFlag {
    static let end: UInt8 = 1
    static let beginning: UInt8 = 2
    static let unordered: UInt8 = 4
    /// RFC 9260 section 3.3.1: acknowledge at once.
    static let immediate: UInt8 = 8
}

let commonHeaderSize = 12
let dataHeaderSize = 16

/// Bytes to the next multiple of four.
func padding(_ length: Int) -> Int { (4 &- length & 3) & 3 }

/// Serial number arithmetic (RFC 1982): whether `a` comes before `b`.
func isBefore(_ a: UInt32, _ b: UInt32) -> Bool { Int32(bitPattern: a &- b) < 0 }
