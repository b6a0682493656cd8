import CNGHTTP2
import Primitives

/// What nghttp2 calls while it reads and writes: each callback gets the state of the stream whose call it runs in.
struct HTTP2Callbacks: @unchecked Sendable {
    /// Never changed after it was made; sessions copy it.
    static let shared = HTTP2Callbacks()

    let pointer: OpaquePointer

    private typealias State = HTTP2Stream.State

    private init() {
        var callbacks: OpaquePointer?
        guard nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks else { preconditionFailure("no memory for HTTP/2") }
        pointer = callbacks
        nghttp2_session_callbacks_set_on_header_callback(callbacks) { _, frame, name, nameLength, value, valueLength, _, user in
            guard frame?.pointee.hd.type == UInt8(NGHTTP2_HEADERS.rawValue), let state = HTTP2Callbacks.state(user) else { return 0 }
            state.pointee.headerBytes += nameLength + valueLength
            // A list that does not end: the stream is reset.
            guard state.pointee.headerBytes <= 65_536 else { return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue }
            HTTP2Callbacks.note(HTTP2Callbacks.text(name, nameLength), HTTP2Callbacks.text(value, valueLength), &state.pointee)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, user in
            guard let frame, let state = HTTP2Callbacks.state(user) else { return 0 }
            HTTP2Callbacks.note(frame.pointee, &state.pointee)
            return 0
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, _, _, data, length, user in
            guard let data, let state = HTTP2Callbacks.state(user) else { return 0 }
            state.pointee.incoming.append(RawSpan(_unsafeStart: data, byteCount: length))
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, _, code, user in
            guard let state = HTTP2Callbacks.state(user) else { return 0 }
            guard state.pointee.end == nil else { return 0 }
            // Whatever else closes it is nghttp2, which resets a stream that breaks the rules.
            let isTheirs = state.pointee.wasReset || state.pointee.isLeaving || code == 0
            state.pointee.end = isTheirs ? .closed(code: code) : .brokenProtocol
            return 0
        }
    }

    /// Gives nghttp2 the next bytes of the request.
    static let read: nghttp2_data_source_read_callback = { _, _, buffer, capacity, _, _, user in
        let deferred = Int(NGHTTP2_ERR_DEFERRED.rawValue)
        guard let buffer, let state = HTTP2Callbacks.state(user) else { return deferred }
        let count = min(capacity, state.pointee.outgoing.count)
        guard count > 0 else { return deferred }
        state.pointee.outgoing.bytes.bytes(0..<count).withUnsafeBytes { source in
            UnsafeMutableRawBufferPointer(start: buffer, count: count).copyMemory(from: source)
        }
        state.pointee.outgoing.removeFirst(count)
        return count
    }

    private static func state(_ user: UnsafeMutableRawPointer?) -> UnsafeMutablePointer<State>? {
        user?.assumingMemoryBound(to: State.self)
    }

    /// At most 1,024 bytes: what is longer means nothing to us.
    private static func text(_ start: UnsafePointer<UInt8>?, _ length: Int) -> String {
        String(decoding: UnsafeBufferPointer(start: start, count: start == nil ? 0 : min(length, 1_024)), as: UTF8.self)
    }

    private static func note(_ name: String, _ value: String, _ state: inout State) {
        switch name {
        case ":status": state.status = Int(value)
        case "content-type": state.contentType = value
        case "grpc-encoding": state.encoding = value
        case "grpc-status": state.grpcStatus = Int(value) ?? 2
        case "grpc-message": state.grpcMessage = value
        default: break
        }
    }

    private static func note(_ frame: nghttp2_frame, _ state: inout State) {
        switch UInt32(frame.hd.type) {
        case NGHTTP2_HEADERS.rawValue:
            // 1xx announces another answer (RFC 9110 §15.2).
            if let status = state.status, status >= 200 { state.hasAnswered = true }
            if frame.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 { close(&state) }
        case NGHTTP2_DATA.rawValue: if frame.hd.flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 { close(&state) }
        case NGHTTP2_RST_STREAM.rawValue: state.wasReset = true
        case NGHTTP2_GOAWAY.rawValue: state.isLeaving = true
        case NGHTTP2_PING.rawValue: if frame.hd.flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) != 0 { state.pongs += 1 }
        default: break
        }
    }

    /// The server has said its last; our half of the stream is of no use then.
    private static func close(_ state: inout State) {
        if state.end == nil { state.end = .closed(code: 0) }
    }
}
