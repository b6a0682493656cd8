// The BIO between OpenSSL and the association: a read gives one record of the datagram at hand, a write takes one datagram.
// (`BIO_s_mem` would glue datagrams together.)
//
// Time. OpenSSL decides by the wall clock, inside every read, whether a flight is to be sent again. We want our own clock to decide,
// a virtual one in the simulator. So the timer callback answers "in an hour", and when a flight is due by our clock, the time at
// which OpenSSL would act is moved into the past and `DTLSv1_handle_timeout` called. The place of that time comes with the BIO
// control SET_NEXT_TIMEOUT, which in OpenSSL 3.0 and 3.1 hands over a pointer to the connection's own field. Later versions pass a
// copy: there the callback gives the true interval, the wall clock decides as well, and only virtual time does not work.

import COpenSSL
import Glibc
import Primitives

/// What OpenSSL's callbacks share with their association. Owned by the association, at a fixed address for the life of the SSL object.
struct DTLSLink {
    /// The datagram being received; empty outside `receive`.
    var datagram = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Where its next record begins.
    var offset = 0
    /// How many of its records OpenSSL got.
    var passedRecords = 0
    var filter = DTLSRecordFilter()
    var outgoing = DatagramQueue()

    /// The connection this belongs to.
    private let ssl: OpaquePointer
    let fingerprints: [DTLSFingerprint]
    var certificateMismatched = false
    /// OpenSSL has shown us the peer's certificate, and it was one of those announced.
    var certificateMatched = false

    /// Whether OpenSSL waits for an answer to the flight it sent.
    var timerIsArmed = false
    /// Counts flights: goes up when the answer to one is complete.
    var flight = 0
    /// What the timer callback answers, in microseconds, where OpenSSL's clock cannot be moved.
    var interval: UInt32 = 0
    /// The connection's own field; see above.
    private var nextTimeout: UnsafeMutablePointer<timeval>?

    init(ssl: OpaquePointer, fingerprints: [DTLSFingerprint]) {
        self.ssl = ssl
        self.fingerprints = fingerprints
    }

    /// The largest datagram we make: what passes every path that carries WebRTC.
    static let mtu = 1200
    private static let clockCanBeMoved = OpenSSL_version_num() < 0x3020_0000
    private static let hour: UInt32 = 3_600_000_000

    /// Makes `DTLSv1_handle_timeout` find the timer expired.
    func expireTimer() {
        guard timerIsArmed, let nextTimeout else { return }
        nextTimeout.pointee = timeval(tv_sec: 1, tv_usec: 0)
    }
}

extension DTLSLink {
    /// Takes the records of the datagram one at a time, leaving out those that OpenSSL shall not see.
    fileprivate mutating func read(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        let bytes = datagram.bytes
        while let record = DTLSRecord(in: bytes, at: offset) {
            offset = record.range.upperBound
            guard filter.passes(record, keysChanged: keysChanged, overhead: overhead) else { continue }
            passedRecords += 1
            let count = min(record.range.count, buffer.count)
            buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: datagram[record.range.prefix(count)]))
            return count
        }
        offset = datagram.count
        return nil
    }

    /// The peer's ChangeCipherSpec was processed and its Finished is awaited.
    private var keysChanged: Bool {
        let state = SSL_get_state(ssl)
        return state == TLS_ST_SR_CHANGE || state == TLS_ST_CR_CHANGE
    }

    /// What the negotiated cipher adds to a record; that of AES-GCM while none is.
    private var overhead: Int {
        guard let cipher = SSL_get_current_cipher(ssl), SSL_CIPHER_get_cipher_nid(cipher) == NID_chacha20_poly1305 else {
            return DTLSRecordFilter.overheadOfGCM
        }
        return DTLSRecordFilter.overheadOfChaCha
    }

    fileprivate mutating func control(_ command: Int32, _ argument: UnsafeMutableRawPointer?) -> Int {
        switch command {
        case BIO_CTRL_FLUSH: return 1
        case BIO_CTRL_DGRAM_QUERY_MTU, BIO_CTRL_DGRAM_GET_MTU, BIO_CTRL_DGRAM_GET_FALLBACK_MTU: return Self.mtu
        case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
            guard let next = argument?.assumingMemoryBound(to: timeval.self) else { return 0 }
            timerIsArmed = next.pointee.tv_sec != 0 || next.pointee.tv_usec != 0
            if !timerIsArmed { flight += 1 }
            nextTimeout = Self.clockCanBeMoved ? next : nil
            return 1
        default: return 0
        }
    }

    /// A BIO over `link`, which must outlive it.
    static func makeBIO(_ link: UnsafeMutablePointer<DTLSLink>) -> OpaquePointer? {
        guard let method, let bio = BIO_new(method) else { return nil }
        BIO_set_data(bio, link)
        BIO_set_init(bio, 1)
        return bio
    }

    /// Ties callbacks about `ssl` to `link`.
    static func attach(_ link: UnsafeMutablePointer<DTLSLink>) {
        let ssl = link.pointee.ssl
        SSL_set_ex_data(ssl, 0, link)
        DTLS_set_timer_cb(ssl) { ssl, _ in
            guard !DTLSLink.clockCanBeMoved, let link = DTLSLink.of(ssl) else { return DTLSLink.hour }
            return link.pointee.interval
        }
    }

    /// OpenSSL asks whether the peer's certificate will do; 1 for yes.
    static func verifyCertificate(_ store: OpaquePointer?) -> Int32 {
        guard let ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()), let link = of(OpaquePointer(ssl)),
            let certificate = X509_STORE_CTX_get0_cert(store)
        else { return 0 }
        if link.pointee.fingerprints.accept(certificate) {
            link.pointee.certificateMatched = true
            return 1
        }
        link.pointee.certificateMismatched = true
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED)  // the peer gets the alert bad_certificate
        return 0
    }

    private static func of(_ ssl: OpaquePointer?) -> UnsafeMutablePointer<DTLSLink>? {
        SSL_get_ex_data(ssl, 0)?.assumingMemoryBound(to: DTLSLink.self)
    }

    /// Made once a process.
    private nonisolated(unsafe) static let method: OpaquePointer? = {
        guard let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "swiftlet datagram") else { return nil }
        BIO_meth_set_read(method) { bio, buffer, count in
            BIO_clear_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
            guard let link = BIO_get_data(bio)?.assumingMemoryBound(to: DTLSLink.self), let buffer, count > 0 else { return -1 }
            if let read = link.pointee.read(into: UnsafeMutableRawBufferPointer(start: buffer, count: Int(count))) { return Int32(read) }
            BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
            return -1
        }
        BIO_meth_set_write(method) { bio, buffer, count in
            guard let link = BIO_get_data(bio)?.assumingMemoryBound(to: DTLSLink.self), let buffer, count >= 0 else { return -1 }
            // A full queue loses the datagram, as a network would.
            _ = link.pointee.outgoing.append(UnsafeRawBufferPointer(start: buffer, count: Int(count)))
            return count
        }
        BIO_meth_set_ctrl(method) { bio, command, _, argument in
            guard let link = BIO_get_data(bio)?.assumingMemoryBound(to: DTLSLink.self) else { return 0 }
            return link.pointee.control(command, argument)
        }
        return method
    }()
}
