// Secrets come from the kernel (getentropy). The generator conforms to the standard protocol, so that a core that stores a
// generic generator gets entropy in production and a seed in simulation.

import Glibc
import Primitives

/// The kernel's random bytes. Waits only until the kernel has been seeded once, early in boot.
public struct SystemEntropy: RandomNumberGenerator, Sendable {
    public init() {}

    public mutating func next() -> UInt64 {
        var value: UInt64 = 0
        withUnsafeMutableBytes(of: &value) { Self.fill($0) }
        return value
    }

    /// Overwrites all of `bytes`.
    public static func fill(_ bytes: inout MutableRawSpan) { bytes.withUnsafeMutableBytes { fill($0) } }

    /// `count` random bytes on the heap: for set-up paths.
    public static func bytes(_ count: Int) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        result.withUnsafeMutableBytes { fill($0) }
        return result
    }

    private static func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        var done = 0
        while done < buffer.count, let base = buffer.baseAddress {
            let count = min(buffer.count - done, 256)  // the most that getentropy gives in one call
            if getentropy(base + done, count) != 0 { fatalError("the kernel gives no random bytes: errno \(errno)") }
            done += count
        }
    }
}
