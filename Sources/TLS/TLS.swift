// TLS for streams that we open: to backends. OpenSSL over memory, so that nothing here knows a socket.
//
//     stream.receive(bytesOfTheSocket)
//     while stream.nextPlaintext(into: &buffer) > 0 { … }        the application's bytes in
//     let taken = stream.send(bytesOfTheApplication)             and out
//     stream.withOutput { write to the socket }; stream.outputSent(count)
//     while let event = stream.nextEvent() { … }
//
// The server proves who it is by a chain to an authority that this machine trusts, for exactly the name that was asked for. There is no
// switch to leave that out.

import Primitives

/// Whose signature makes a certificate good.
public enum TLSAuthorities: Sendable, Equatable {
    /// Those of the machine: OpenSSL's own folder, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    case system
    /// Those of a PEM file, and no others.
    case file(path: String)
    /// Those of such a file's content.
    case pem([UInt8])
}

/// Why no stream can be made.
public enum TLSError: Error, Sendable, Equatable {
    case contextCreation
    /// OpenSSL refused one of our settings: it was built without it.
    case settingRefused
    /// The authorities cannot be read, or there is none among them.
    case authorities
    /// Neither a name nor an address.
    case badHost
}

/// Why a stream has failed.
public enum TLSFailure: Error, Sendable, Equatable {
    /// The certificate is not good for this name; in OpenSSL's words.
    case certificate(String)
    /// The server refused, by this alert (RFC 8446 §6.2).
    case peerAlert(String)
    /// Nothing in common, or bytes that are no TLS.
    case handshake(String)
    /// The handshake was not over in time.
    case timeout
    /// Bytes after the handshake that are not authentic, or break the protocol.
    case broken(String)

    /// For people and logs.
    public var message: String {
        switch self {
        case .certificate(let reason): "its certificate is not good: \(reason)"
        case .peerAlert(let reason): "it refuses TLS: \(reason)"
        case .handshake(let reason): "there is no TLS with it: \(reason)"
        case .timeout: "its TLS handshake takes too long"
        case .broken(let reason): "its TLS is broken: \(reason)"
        }
    }
}

public enum TLSEvent: Sendable, Equatable {
    /// The server is who it says; `protocolName` is what ALPN has chosen.
    case established(protocolName: String?)
    /// The server says nothing more. Not clean: its stream ended without its goodbye, and something may be missing.
    case ended(isClean: Bool)
    case failed(TLSFailure)
}
