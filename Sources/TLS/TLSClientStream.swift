import COpenSSL
import Primitives

/// One stream to a server. Used by one thread at a time.
public struct TLSClientStream: ~Copyable, @unchecked Sendable {
    /// How long a handshake may take.
    public static let handshakeMax = Interval.seconds(10)
    /// Ciphertext that may wait to be written: `send` takes nothing beyond it.
    public static let outputMax = 131_072
    /// Ciphertext that may wait for `nextPlaintext`.
    static let inputMax = 131_072

    private enum State { case handshaking, established, over }

    private let ssl: OpaquePointer
    /// Owned by `ssl`.
    private let input: OpaquePointer
    private let output: OpaquePointer
    private var state = State.handshaking
    private var streamHasEnded = false
    private var timeout: Instant
    private var events: [TLSEvent] = []

    /// Queues the first flight.
    ///
    /// - Parameters:
    ///   - host: the name or address of the server, as in its certificate: without port and brackets.
    ///   - protocols: for ALPN (RFC 7301), best first; none for WebSocket over HTTP/1.1, `h2` for gRPC.
    public init(_ context: borrowing TLSClientContext, host: String, protocols: [String] = [], at now: Instant) throws(TLSError) {
        guard !host.isEmpty, host.utf8.count <= 253, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { throw .badHost }
        guard let ssl = SSL_new(context.pointer) else { throw .contextCreation }
        guard let input = BIO_new(BIO_s_mem()), let output = BIO_new(BIO_s_mem()) else {
            SSL_free(ssl)
            throw .contextCreation
        }
        SSL_set_bio(ssl, input, output)
        SSL_set_connect_state(ssl)
        guard Self.expect(host, ssl), Self.offer(protocols, ssl) else {
            SSL_free(ssl)
            throw .badHost
        }
        self.ssl = ssl
        self.input = input
        self.output = output
        timeout = now + Self.handshakeMax
        handshake()
    }

    deinit { SSL_free(ssl) }

    /// The certificate must be for this host, and the server is told which one is wanted (RFC 6066 §3: a name, never an address).
    private static func expect(_ host: String, _ ssl: OpaquePointer) -> Bool {
        if IPAddress(host) != nil { return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 }
        // `X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS`
        SSL_set_hostflags(ssl, 4)
        let isNamed = host.withCString {
            SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, Int(TLSEXT_NAMETYPE_host_name), UnsafeMutableRawPointer(mutating: $0)) == 1
        }
        return isNamed && SSL_set1_host(ssl, host) == 1
    }

    private static func offer(_ protocols: [String], _ ssl: OpaquePointer) -> Bool {
        guard !protocols.isEmpty else { return true }
        var list: [UInt8] = []
        for name in protocols {
            guard (1...255).contains(name.utf8.count) else { return false }
            list.append(UInt8(name.utf8.count))
            list += name.utf8
        }
        // This one function gives 0 for success.
        return SSL_set_alpn_protos(ssl, list, UInt32(list.count)) == 0
    }
}

// MARK: - The socket's side

extension TLSClientStream {
    /// Takes bytes of the socket. Then take all that `nextPlaintext` and `nextEvent` give.
    public mutating func receive(_ bytes: RawSpan) {
        guard state != .over, bytes.byteCount > 0 else { return }
        guard BIO_ctrl_pending(input) + bytes.byteCount <= 4 * Self.inputMax else { return fail(.broken("its bytes were not taken")) }
        let written = bytes.withUnsafeBytes { BIO_write(input, $0.baseAddress, CInt($0.count)) }
        guard written == CInt(bytes.byteCount) else { return fail(.broken("no memory")) }
        if state == .handshaking { handshake() }
    }

    /// The socket has ended.
    public mutating func receiveEnd() {
        streamHasEnded = true
        if state == .handshaking { fail(.handshake("the stream ended")) }
    }

    /// False while plaintext waits to be taken: do not read the socket then.
    public var wantsInput: Bool { state != .over && !streamHasEnded && BIO_ctrl_pending(input) < Self.inputMax }

    /// How many bytes wait to be written to the socket.
    public var outputCount: Int { BIO_ctrl_pending(output) }

    /// Bytes to write to the socket.
    public func withOutput<Result>(_ body: (RawSpan) -> Result) -> Result {
        var start: UnsafeMutableRawPointer?
        // `BIO_get_mem_data`
        let count = withUnsafeMutablePointer(to: &start) { BIO_ctrl(output, BIO_CTRL_INFO, 0, $0) }
        guard let start, count > 0 else { return body(RawSpan()) }
        return body(RawSpan(_unsafeStart: start, byteCount: count))
    }

    /// The socket took `count` bytes of the output.
    public mutating func outputSent(_ count: Int) {
        var left = min(max(count, 0), outputCount)
        withUnsafeTemporaryAllocation(byteCount: 16_384, alignment: 1) { scratch in
            while left > 0 {
                let read = BIO_read(output, scratch.baseAddress, CInt(min(left, scratch.count)))
                guard read > 0 else { return }
                left -= Int(read)
            }
        }
    }

    public mutating func advance(to now: Instant) {
        if state == .handshaking, now >= timeout { fail(.timeout) }
    }

    public var nextDeadline: Deadline { state == .handshaking ? Deadline(timeout, "TLS handshake") : .none }
}

// MARK: - The application's side

extension TLSClientStream {
    /// Takes bytes of the application; how many, which is 0 until the stream is established and while the socket takes nothing.
    public mutating func send(_ plaintext: RawSpan) -> Int {
        guard state == .established, outputCount < Self.outputMax, plaintext.byteCount > 0 else { return 0 }
        ERR_clear_error()
        let length = min(plaintext.byteCount, Self.outputMax - outputCount)
        var taken = 0
        let result = plaintext.withUnsafeBytes { SSL_write_ex(ssl, $0.baseAddress, length, &taken) }
        guard result == 1 else {
            judge(result)
            return 0
        }
        return taken
    }

    /// Appends what the server has said to `plaintext`; how many bytes, 0 when there is nothing more now.
    public mutating func nextPlaintext(into plaintext: inout OutputRawSpan) -> Int {
        guard state == .established, plaintext.freeCapacity > 0 else { return 0 }
        ERR_clear_error()
        var count = 0
        let result = plaintext.withUnsafeMutableBytes { buffer, used in
            let result = SSL_read_ex(ssl, buffer.baseAddress.map { $0 + used }, buffer.count - used, &count)
            if result == 1 { used += count }
            return result
        }
        guard result == 1 else {
            judge(result)
            return 0
        }
        return count
    }

    public mutating func nextEvent() -> TLSEvent? { events.isEmpty ? nil : events.removeFirst() }

    public var isEstablished: Bool { state == .established }

    /// Nothing more comes or is taken; what `withOutput` has can still be written.
    public var isOver: Bool { state == .over }

    /// Says goodbye: write what `withOutput` still has, then close the socket.
    public mutating func close() {
        guard state == .established else {
            state = .over
            return
        }
        ERR_clear_error()
        _ = SSL_shutdown(ssl)
        state = .over
    }
}

// MARK: - OpenSSL's answers

extension TLSClientStream {
    private mutating func handshake() {
        ERR_clear_error()
        let result = SSL_do_handshake(ssl)
        guard result == 1 else { return judge(result) }
        state = .established
        var name: UnsafePointer<UInt8>?
        var length: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &name, &length)
        let chosen = name.map { String(decoding: UnsafeBufferPointer(start: $0, count: Int(length)), as: UTF8.self) }
        events.append(.established(protocolName: chosen))
    }

    /// Why a call has not succeeded.
    private mutating func judge(_ result: CInt) {
        switch SSL_get_error(ssl, result) {
        case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE:
            guard streamHasEnded, state == .established else { return }
            state = .over
            events.append(.ended(isClean: false))
        case SSL_ERROR_ZERO_RETURN:
            // Our own goodbye; the socket can be closed once it is written.
            _ = SSL_shutdown(ssl)
            state = .over
            events.append(.ended(isClean: true))
        default:
            let code = ERR_peek_error()
            let verdict = SSL_get_verify_result(ssl)
            let reason = Self.words(code)
            if state == .handshaking, verdict != Int(X509_V_OK) {
                fail(.certificate(String(cString: X509_verify_cert_error_string(verdict))))
            } else if Self.isAlert(code) {
                fail(.peerAlert(reason))
            } else {
                fail(state == .handshaking ? .handshake(reason) : .broken(reason))
            }
        }
        ERR_clear_error()
    }

    private mutating func fail(_ failure: TLSFailure) {
        guard state != .over else { return }
        state = .over
        events.append(.failed(failure))
    }

    /// `ERR_GET_REASON`, which is a macro: reasons from 1000 on are the alerts of the peer.
    private static func isAlert(_ code: UInt) -> Bool { code & 0x7F_FFFF >= 1000 && code & 0x7F_FFFF < 1256 }

    private static func words(_ code: UInt) -> String {
        guard let reason = ERR_reason_error_string(code) else { return "error \(code)" }
        return String(cString: reason)
    }
}

/// Whatever a server sends, a client neither traps nor believes it.
public func fuzzTLSClient(_ bytes: RawSpan, _ context: borrowing TLSClientContext) {
    guard bytes.byteCount <= 8_192, var stream = try? TLSClientStream(context, host: "backend.example", at: .zero) else { return }
    stream.receive(bytes)
    let isBelieved = stream.isEstablished
    precondition(!isBelieved, "a server without a certificate is believed")
    stream.receiveEnd()
    var failures = 0
    while stream.nextEvent() != nil { failures += 1 }
    precondition(failures == 1, "a handshake that was cut has another number of ends than one")
}
