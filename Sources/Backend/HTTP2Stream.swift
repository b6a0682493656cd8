import CNGHTTP2
import Primitives

/// One HTTP/2 connection that carries one request, both of whose directions stay open: nghttp2 as a machine over memory.
///
/// What the server may send ahead is bounded by the window, which opens again only as bytes of the answer are taken.
struct HTTP2Stream: ~Copyable, @unchecked Sendable {
    /// Bytes of the answer that the server may send before any were taken.
    static let window: Int32 = (1 << 20) + 65_536
    /// Bytes for the socket that are made before it takes any.
    private static let wireMax = 32_768
    /// Bytes of the headers of an answer.
    private static let headersMax = 16_384

    private let session: OpaquePointer
    private var state = State()
    private var wire = ByteQueue()
    private var stream: Int32 = 0

    /// Why the connection is of no use any more.
    enum End: Equatable {
        /// The stream was closed, with this error code (RFC 9113 §7); 0 is none.
        case closed(code: UInt32)
        /// Not HTTP/2, or a peer that breaks its rules.
        case brokenProtocol
    }

    /// What callbacks write to. They run inside our calls of nghttp2 and at no other time.
    struct State {
        var status: Int?
        /// Headers of the answer are complete.
        var hasAnswered = false
        var contentType = ""
        var encoding = ""
        /// `grpc-status` and `grpc-message`, of headers or trailers.
        var grpcStatus: Int?
        var grpcMessage = ""
        var headerBytes = 0
        var incoming = ByteQueue()
        var outgoing = ByteQueue()
        var end: End?
        /// The server wants no more of this connection.
        var isLeaving = false
        var pongs = 0
        /// By the server.
        var wasReset = false
    }

    /// Queues the connection's preface and the request.
    init(headers: [(String, String)]) {
        var option: OpaquePointer?
        guard nghttp2_option_new(&option) == 0, let option else { preconditionFailure("no memory for HTTP/2") }
        defer { nghttp2_option_del(option) }
        nghttp2_option_set_no_auto_window_update(option, 1)
        nghttp2_option_set_max_reserved_remote_streams(option, 0)
        // Answers to PING and SETTINGS that wait for a server which does not read.
        nghttp2_option_set_max_outbound_ack(option, 64)
        var session: OpaquePointer?
        guard nghttp2_session_client_new2(&session, HTTP2Callbacks.shared.pointer, nil, option) == 0, let session else {
            preconditionFailure("no memory for HTTP/2")
        }
        self.session = session
        if submit(headers) { pump() } else { fail() }
    }

    deinit { nghttp2_session_del(session) }

    private mutating func submit(_ headers: [(String, String)]) -> Bool {
        let settings = [
            nghttp2_settings_entry(settings_id: CInt(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0),
            nghttp2_settings_entry(settings_id: CInt(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue), value: 0),
            nghttp2_settings_entry(settings_id: CInt(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: UInt32(Self.window)),
            nghttp2_settings_entry(settings_id: CInt(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue), value: UInt32(Self.headersMax)),
        ]
        let flags = UInt8(NGHTTP2_FLAG_NONE.rawValue)
        guard nghttp2_submit_settings(session, flags, settings, settings.count) == 0,
            nghttp2_session_set_local_window_size(session, flags, 0, Self.window) == 0
        else { return false }
        var text: [UInt8] = []
        var places: [(name: Range<Int>, value: Range<Int>)] = []
        for (name, value) in headers {
            let start = text.count
            text += name.utf8
            let middle = text.count
            text += value.utf8
            places.append((start..<middle, middle..<text.count))
        }
        var source = nghttp2_data_provider()
        source.read_callback = HTTP2Callbacks.read
        // nghttp2 copies what the pointers lead to.
        stream = text.withUnsafeMutableBufferPointer { text in
            guard let base = text.baseAddress else { return -1 }
            let fields = places.map {
                nghttp2_nv(
                    name: base + $0.name.lowerBound, value: base + $0.value.lowerBound, namelen: $0.name.count, valuelen: $0.value.count,
                    flags: flags)
            }
            return nghttp2_submit_request(session, nil, fields, fields.count, &source, nil)
        }
        return stream > 0
    }
}

// MARK: - The socket's side

extension HTTP2Stream {
    /// Takes bytes of the connection.
    mutating func receive(_ bytes: RawSpan) {
        guard state.end == nil, bytes.byteCount > 0 else { return }
        let taken = run { session in
            bytes.withUnsafeBytes { nghttp2_session_mem_recv(session, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), $0.count) }
        }
        if taken != bytes.byteCount { fail() }
        pump()
    }

    var outputCount: Int { wire.count }

    /// Bytes for the socket.
    func withOutput<Result>(_ body: (RawSpan) -> Result) -> Result { body(wire.bytes) }

    mutating func outputSent(_ count: Int) {
        wire.removeFirst(count)
        pump()
    }

    /// Makes bytes for the socket of what waits.
    private mutating func pump() {
        while wire.count < Self.wireMax {
            var start: UnsafePointer<UInt8>?
            let count = run { session in
                // nghttp2 keeps the bytes until the next call.
                nghttp2_session_mem_send(session, &start)
            }
            guard count >= 0 else { return fail() }
            guard count > 0, let start else { break }
            wire.append(RawSpan(_unsafeStart: start, byteCount: count))
        }
        // It has said goodbye and wants nothing more: the peer has broken a rule.
        if nghttp2_session_want_read(session) == 0, nghttp2_session_want_write(session) == 0 { fail() }
    }

    private mutating func fail() {
        if state.end == nil { state.end = .brokenProtocol }
    }

    /// Lends the state to the callbacks of one call.
    private mutating func run<Result>(_ body: (OpaquePointer) -> Result) -> Result {
        let session = session
        return withUnsafeMutablePointer(to: &state) { state in
            nghttp2_session_set_user_data(session, state)
            defer { nghttp2_session_set_user_data(session, nil) }
            return body(session)
        }
    }
}

// MARK: - The request's side

extension HTTP2Stream {
    /// How many bytes of the request wait for the server's window or for the socket.
    var waitingCount: Int { state.outgoing.count + wire.count }

    /// Sends the next bytes of the request.
    mutating func send(_ bytes: [UInt8]) {
        state.outgoing.append(bytes.span.bytes)
        _ = nghttp2_session_resume_data(session, stream)
        pump()
    }

    /// Bytes of the answer that were not taken.
    func withInput<Result>(_ body: (RawSpan) -> Result) -> Result { body(state.incoming.bytes) }

    /// `count` bytes of the answer are done with: the server may send as many more.
    mutating func take(_ count: Int) {
        state.incoming.removeFirst(count)
        if state.end == nil { _ = nghttp2_session_consume(session, stream, count) }
    }

    /// After having taken: tells the server.
    mutating func openWindow() { pump() }

    mutating func ping() {
        _ = nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
        pump()
    }

    /// Answers to our pings.
    var pongs: Int { state.pongs }
    var hasAnswered: Bool { state.hasAnswered }
    var status: Int { state.status ?? 0 }
    var contentType: String { state.contentType }
    var encoding: String { state.encoding }
    var grpcStatus: Int? { state.grpcStatus }
    var grpcMessage: String { state.grpcMessage }
    var end: End? { state.end }
    var isLeaving: Bool { state.isLeaving }
}

/// Bytes that wait, in one growing block that is given back when it is empty and large.
struct ByteQueue: Sendable {
    private var storage: [UInt8] = []
    private var start = 0

    var count: Int { storage.count - start }

    var bytes: RawSpan {
        @_lifetime(borrow self) get { storage.span.bytes.extracting(start..<storage.count) }
    }

    mutating func append(_ bytes: RawSpan) {
        bytes.withUnsafeBytes { storage.append(contentsOf: $0) }
    }

    mutating func removeFirst(_ count: Int) {
        start += min(max(count, 0), self.count)
        if start == storage.count {
            storage.removeAll(keepingCapacity: storage.capacity <= 65_536)
            start = 0
        } else if start > 65_536, start > storage.count / 2 {
            storage.removeFirst(start)
            start = 0
        }
    }
}
