import Configuration
import EventLoop
import Primitives
import RoutingHint
import TransceiverCore

/// Why a file of API keys is not used, with its path.
struct APIKeyProblem: Error, CustomStringConvertible {
    let description: String
}

func readAPIKeyFile(_ path: String) throws(APIKeyProblem) -> APIKeys {
    guard let content = readFile(path, limit: Limits.apiKeyFileBytes) else { throw APIKeyProblem(description: "cannot read \(path)") }
    if isReadableByOthers(path) { complain("swiftlet-transceiver: warning: \(path) is readable by everybody; chmod 600 it") }
    do { return try APIKeys(parsing: content) } catch { throw APIKeyProblem(description: "\(path): \(error)") }
}

func readKeyRing(_ path: String) throws(ConfigurationError) -> KeyRing {
    guard let content = readFile(path, limit: Limits.keyFileBytes) else { throw ConfigurationError("--key-file: cannot read \(path)") }
    if isReadableByOthers(path) { complain("swiftlet-transceiver: warning: \(path) is readable by everybody; chmod 600 it") }
    do throws(KeyFileError) { return try KeyRing(parsingJSON: content.span.bytes) } catch {
        throw ConfigurationError("--key-file: \(path): \(error)")
    }
}
