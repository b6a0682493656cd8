// libFuzzer's entry: hands its input to the property of one parser, named by SWIFTLET_FUZZ_TARGET. A broken property traps.

import Audio
import Backend
import Glibc
import HTTP
import Membership
import Primitives
import RTP
import Realtime
import RelayCore
import RoutingHint
import SCTP
import SDP
import STUN
import Steering
import Trunk

private let targets: [String: @Sendable (RawSpan) -> Void] = [
    "stun": { fuzzSTUN($0) }, "hint": { fuzzHint($0) }, "keyfile": { fuzzKeyFile($0) }, "trunk": { fuzzTrunk($0) }, "rtp": { fuzzRTP($0) },
    "rtcp": { fuzzRTCP($0) }, "sdp": { fuzzSDP($0) }, "http": { fuzzHTTP($0) }, "http-client": { fuzzHTTPClient($0) },
    "opus": { fuzzOpusPacket($0) }, "jitter": { fuzzJitterBuffer($0) }, "red": { fuzzRED($0) },
    "multipart": { fuzzMultipart($0) },
    "websocket": { fuzzWebSocket($0) }, "websocket-upgrade": { fuzzWebSocketUpgrade($0) },
    "json": { fuzzJSON($0) },
    "event": { fuzzClientEvent($0) }, "sctp": { fuzzSCTP($0) }, "grpc": { fuzzGRPCMessage($0) }, "http2": { fuzzGRPCBackend($0) },
    "realtime": { fuzzRealtimeBackend($0) }, "client-secret": { fuzzClientSecretRequest($0) },
    "legacy-session": { fuzzLegacySessionRequest($0) },
    "ingresses": { fuzzIngressTable($0) }, "geo-headers": { fuzzGeoHeaders($0) }, "members": { fuzzMembers($0) },
    "member-records": { fuzzMemberRecords($0) }, "registry": { fuzzRegistry($0) },
    "stream-frames": { fuzzStreamFrames($0) },
]

private let property: @Sendable (RawSpan) -> Void = {
    let name = getenv("SWIFTLET_FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let property = targets[name] else {
        print("SWIFTLET_FUZZ_TARGET must be one of \(targets.keys.sorted().joined(separator: ", "))")
        exit(2)
    }
    return property
}()

@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ test: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// The package manager's name for this program's entry: with the fuzzer's own `main` in the library, there is none in Swift.
@_cdecl("swiftlet_fuzz_main")
public func start(_ count: CInt, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    var count = count
    var arguments = arguments
    return runDriver(&count, &arguments) { data, size in
        property(RawSpan(_unsafeStart: UnsafeRawPointer(data ?? UnsafePointer(bitPattern: 1)!), byteCount: size))
        return 0
    }
}
