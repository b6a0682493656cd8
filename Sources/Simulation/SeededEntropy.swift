import COpenSSL
import Primitives

/// OpenSSL's randomness, from the seed of a run: certificates, nonces and signatures are the same again, byte for byte. For a program that
/// simulates and does nothing else: its keys are no secrets.
public enum SeededEntropy {
    nonisolated(unsafe) private static var generator = SeededGenerator(seed: 0)
    nonisolated(unsafe) private static var method = RAND_METHOD()
    nonisolated(unsafe) private static var isInstalled = false

    /// From now on, and in the whole process. One thread may use OpenSSL then.
    public static func begin(seed: UInt64) {
        generator = SeededGenerator(seed: seed)
        guard !isInstalled else { return }
        isInstalled = true
        method.bytes = { buffer, count in
            guard let buffer, count > 0 else { return count == 0 ? 1 : 0 }
            for index in 0..<Int(count) { buffer[index] = UInt8(truncatingIfNeeded: SeededEntropy.generator.next()) }
            return 1
        }
        method.pseudorand = method.bytes
        method.status = { 1 }
        withUnsafePointer(to: &method) { _ = copenssl_use_random_method($0) }
    }
}
