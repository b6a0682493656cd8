// swift-tools-version: 6.2
// Swiftlet: one package, many rooms. Dependencies point down only: two protocol cores never import each other, and only
// executables import both EventLoop and a protocol. ARCHITECTURE.md draws the house.
import PackageDescription

/// Protocol cores and codecs: every unsafe touch is marked, every warning is an error.
let strict: [SwiftSetting] = [
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

/// Shells around C libraries and the kernel: warnings are errors, unsafe calls are their daily work.
let shell: [SwiftSetting] = [
    .enableExperimentalFeature("Lifetimes"),
    .treatAllWarnings(as: .error),
]

/// The files of the transceiver's page; Sources/swiftlet-transceiver/Page.swift serves them by these names.
let page = [
    "index.html", "style.css", "app.js", "call.js", "conversation.js", "ear.js", "elements.js", "lanes.js", "listener.js", "log.js",
    "numbers.js", "settings.js", "talk.js", "transcript.js",
]

let package = Package(
    name: "swiftlet",
    targets: [
        // What Swift cannot import, and system libraries.
        .target(name: "CLinux"),
        .target(name: "CURing", linkerSettings: [.linkedLibrary("uring")]),
        .target(name: "CBench", path: "Perf/CBench"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CSRTP2", pkgConfig: "libsrtp2", providers: [.apt(["libsrtp2-dev"])]),
        .systemLibrary(name: "COpus", pkgConfig: "opus", providers: [.apt(["libopus-dev"])]),
        .systemLibrary(name: "CSpeexDSP", pkgConfig: "speexdsp", providers: [.apt(["libspeexdsp-dev"])]),
        .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .systemLibrary(name: "CHiredis", pkgConfig: "hiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CMaxMindDB", pkgConfig: "libmaxminddb", providers: [.apt(["libmaxminddb-dev"])]),
        .systemLibrary(name: "CUsrSCTP", pkgConfig: "usrsctp", providers: [.apt(["libusrsctp-dev"])]),

        // Foundations and codecs.
        .target(name: "Primitives", swiftSettings: strict),
        .target(name: "STUN", dependencies: ["Primitives", "Crypto"], swiftSettings: strict),
        .target(name: "SDP", dependencies: ["Primitives"], swiftSettings: strict),
        .target(name: "RTP", dependencies: ["Primitives"], swiftSettings: strict),
        .target(name: "SCTP", dependencies: ["Primitives"], swiftSettings: strict),
        .target(name: "HTTP", dependencies: ["Primitives", "Crypto"], swiftSettings: strict),
        .target(name: "Crypto", dependencies: ["Primitives", "COpenSSL"], swiftSettings: shell),
        .target(name: "RoutingHint", dependencies: ["Primitives", "Crypto"], exclude: ["SPEC.md"], swiftSettings: strict),
        .target(name: "Trunk", dependencies: ["Primitives", "Crypto"], exclude: ["SPEC.md"], swiftSettings: strict),
        .target(name: "ICE", dependencies: ["Primitives", "STUN", "Crypto"], swiftSettings: strict),
        // libssl is linked by these two alone: by the transceiver, and by the relay for Redis over TLS.
        .target(
            name: "DTLS", dependencies: ["Primitives", "Crypto", "COpenSSL"], swiftSettings: shell,
            linkerSettings: [.linkedLibrary("ssl")]),
        .target(
            name: "TLS", dependencies: ["Primitives", "Crypto", "COpenSSL"], swiftSettings: shell,
            linkerSettings: [.linkedLibrary("ssl")]),
        .target(name: "SRTP", dependencies: ["Primitives", "Crypto", "COpenSSL", "CSRTP2"], swiftSettings: shell),
        .target(name: "Audio", dependencies: ["Primitives", "RTP", "COpus", "CSpeexDSP"], swiftSettings: shell),
        .target(name: "Realtime", dependencies: ["Primitives"], swiftSettings: strict),
        .target(name: "Backend", dependencies: ["Primitives", "Realtime", "HTTP", "Audio", "CNGHTTP2"], swiftSettings: shell),
        .target(name: "Redis", dependencies: ["Primitives", "CHiredis"], swiftSettings: shell),
        .target(name: "FlowCache", dependencies: ["Primitives", "Crypto", "Redis"], swiftSettings: shell),

        .target(name: "Membership", dependencies: ["Primitives", "Crypto", "Redis"], swiftSettings: shell),
        .target(name: "Steering", dependencies: ["Primitives", "CMaxMindDB"], swiftSettings: shell),

        // The two product cores.
        .target(
            name: "RelayCore", dependencies: ["Primitives", "Crypto", "RoutingHint", "Trunk"], swiftSettings: strict),
        .target(
            name: "TransceiverCore",
            dependencies: [
                "Primitives", "Crypto", "STUN", "SDP", "RTP", "SCTP", "RoutingHint", "Trunk", "ICE", "DTLS", "SRTP", "Audio",
                "Realtime", "Backend", "HTTP",
            ], swiftSettings: shell),

        // The edges.
        .target(name: "EventLoop", dependencies: ["Primitives", "CLinux", "CURing"], swiftSettings: shell),
        .target(name: "Telemetry", dependencies: ["Primitives", "CLinux"], swiftSettings: shell),
        .target(
            name: "Serving", dependencies: ["Primitives", "EventLoop", "HTTP", "Telemetry"],
            resources: [.embedInCode("Page/dashboard.html"), .embedInCode("Page/dashboard.js"), .embedInCode("Page/dashboard.css")],
            swiftSettings: shell),
        .target(name: "Configuration", dependencies: ["Primitives"], swiftSettings: shell),
        .target(
            name: "Registrar",
            dependencies: ["Primitives", "Crypto", "Redis", "TLS", "Membership", "EventLoop", "Configuration", "Telemetry"],
            swiftSettings: shell),

        // Programs.
        .executableTarget(
            name: "swiftlet-relay",
            dependencies: [
                "Primitives", "Crypto", "RoutingHint", "Trunk", "RelayCore", "EventLoop", "Telemetry", "Serving", "Configuration", "HTTP",
                "FlowCache", "Membership", "Registrar",
            ], path: "Sources/swiftlet-relay", swiftSettings: shell),
        .executableTarget(
            name: "swiftlet-transceiver",
            dependencies: [
                "Primitives", "Crypto", "TransceiverCore", "EventLoop", "Telemetry", "Serving", "Configuration", "HTTP", "RoutingHint",
                "Trunk", "SDP", "ICE", "DTLS", "SRTP", "RTP", "SCTP", "Realtime", "Backend", "TLS", "Steering",
                "Membership", "Registrar",
            ], path: "Sources/swiftlet-transceiver",
            resources: page.map { .embedInCode("Page/\($0)") }, swiftSettings: shell),
        .executableTarget(
            name: "swiftlet",
            dependencies: [
                "Primitives", "Crypto", "RoutingHint", "Trunk", "STUN", "EventLoop", "Telemetry", "Configuration", "HTTP", "Simulation",
                "RelayCore", "Audio", "SRTP", "CBench",
            ], path: "Sources/swiftlet", swiftSettings: shell),
        .executableTarget(
            name: "audio-bench", dependencies: ["Primitives", "Audio", "COpus"], path: "Perf/AudioBench", swiftSettings: shell),
        .target(
            name: "Simulation",
            dependencies: [
                "Primitives", "Crypto", "STUN", "RTP", "SDP", "SCTP", "SRTP", "DTLS", "ICE", "HTTP", "RoutingHint", "Trunk", "RelayCore",
                "TransceiverCore", "COpenSSL",
            ], swiftSettings: shell),

        // Tests: one target a room, so that a change builds what it touches.
        .target(name: "TestSupport", dependencies: ["Primitives"], path: "Tests/TestSupport", swiftSettings: shell),
        .testTarget(name: "PrimitivesTests", dependencies: ["Primitives", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "STUNTests", dependencies: ["STUN", "ICE", "Crypto", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "SDPTests", dependencies: ["SDP", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "RTPTests", dependencies: ["RTP", "TestSupport"], swiftSettings: shell),
        // The tests give usrsctp a clock of their own, in place of the C library's.
        .testTarget(
            name: "SCTPTests", dependencies: ["SCTP", "CUsrSCTP", "CLinux", "TestSupport"], swiftSettings: shell,
            linkerSettings: [.unsafeFlags(["-Xlinker", "--export-dynamic-symbol=gettimeofday"])]),
        .testTarget(name: "HTTPTests", dependencies: ["HTTP", "TestSupport"], swiftSettings: shell),
        .testTarget(
            name: "RelayTests", dependencies: ["RelayCore", "RoutingHint", "Trunk", "STUN", "Crypto", "TestSupport"], exclude: ["Vectors"],
            swiftSettings: shell),
        .testTarget(name: "DTLSTests", dependencies: ["DTLS", "Crypto", "CLinux", "COpenSSL", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "TLSTests", dependencies: ["TLS", "Backend", "Realtime", "HTTP", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "SRTPTests", dependencies: ["SRTP", "Crypto", "COpenSSL", "CLinux", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "AudioTests", dependencies: ["Audio", "RTP", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "RealtimeTests", dependencies: ["Realtime", "Backend", "HTTP", "CNGHTTP2", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "EventLoopTests", dependencies: ["EventLoop", "TestSupport"], swiftSettings: shell),
        .testTarget(
            name: "ConfigurationTests", dependencies: ["Configuration", "Telemetry", "Primitives", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "FlowCacheTests", dependencies: ["FlowCache", "Redis", "TestSupport"], swiftSettings: shell),
        .testTarget(
            name: "TransceiverTests",
            dependencies: [
                "TransceiverCore", "Crypto", "DTLS", "HTTP", "ICE", "Realtime", "RoutingHint", "RTP", "SCTP", "SDP", "STUN", "Trunk",
                "TestSupport",
            ],
            swiftSettings: shell),
        .testTarget(name: "MembershipTests", dependencies: ["Membership", "Redis", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "SteeringTests", dependencies: ["Steering", "TestSupport"], swiftSettings: shell),
        .testTarget(name: "SimulationTests", dependencies: ["Simulation", "TransceiverCore", "TestSupport"], swiftSettings: shell),
    ],
    swiftLanguageModes: [.v6]
)

// `make fuzz`: one libFuzzer program for all parsers. Its flags are unsafe ones, so it exists only when asked for.
if Context.environment["SWIFTLET_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(
            name: "swiftlet-fuzz",
            dependencies: [
                "Primitives", "STUN", "SDP", "RTP", "SCTP", "HTTP", "RoutingHint", "Trunk", "Realtime", "Audio", "Backend", "Steering",
                "Membership", "RelayCore",
            ],
            path: "Tests/Fuzz",
            exclude: ["build.sh"],
            swiftSettings: [.enableExperimentalFeature("Lifetimes"), .unsafeFlags(["-parse-as-library", "-sanitize=fuzzer"])],
            linkerSettings: [.unsafeFlags(["-sanitize=fuzzer", "-use-ld=lld"])]))
}

// glibc's headers belong to the toolchain's own clang module: every target must see them with the same feature macro.
for target in package.targets where target.type != .system {
    target.cSettings = (target.cSettings ?? []) + [.define("_GNU_SOURCE")]
}
