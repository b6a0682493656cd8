import CLinux
import COpenSSL
import Glibc
import Primitives
import SRTP
import Testing

/// libcrypto's calls of malloc and realloc, counted in a process of its own.
private nonisolated(unsafe) var libcryptoAllocations = 0

@Suite struct Allocations {
    @Test func `a packet costs no allocation: none of libcrypto's, and not a byte of heap after ten thousand`() async {
        await #expect(processExitsWith: .success) {
            // Refused if libcrypto has allocated before: then the count below would say nothing.
            let isCounting = CRYPTO_set_mem_functions(
                { count, _, _ in
                    libcryptoAllocations += 1
                    return malloc(count)
                },
                { address, count, _, _ in
                    libcryptoAllocations += 1
                    return realloc(address, count)
                },
                { address, _, _ in free(address) })
            precondition(isCounting == 1, "libcrypto was in use before")
            for profile in SRTPProfile.allCases { try exchangePackets(profile) }
        }
    }
}

/// The heap is the process's, whose other threads may keep something meanwhile, once. What packets kept would be there every time.
private func exchangePackets(_ profile: SRTPProfile) throws {
    var growths: [Int] = []
    while growths.count < 3 {
        growths.append(try heapGrowth(profile))
        if growths.last == 0 { return }
    }
    preconditionFailure("\(profile): the heap grew by \(growths) bytes")
}

private func heapGrowth(_ profile: SRTPProfile) throws -> Int {
    var client = try Calls.client(profile)
    var server = try Calls.server(profile)
    let voice = rtp(0, payload: [UInt8](repeating: 1, count: 160))
    let report = rtcp(payload: [UInt8](repeating: 1, count: 60))
    var slab = ByteSlab(count: 1, slotSize: 256)
    var heap = mallinfo2().uordblks
    var allocations = libcryptoAllocations
    for number in 0..<10_100 {
        // The first packets warm up.
        if number == 100 { (heap, allocations) = (mallinfo2().uordblks, libcryptoAllocations) }
        var buffer = slab.mutableBytes(0, 0..<256)
        buffer.copy(voice.span.bytes, to: 0)
        buffer.set(UInt16(truncatingIfNeeded: number), at: 2)
        var length = try client.protectRTP(&buffer, length: voice.count)
        length = try server.unprotectRTP(&buffer, length: length)
        precondition(length == voice.count)
        // One forged in between: refusals cost nothing either.
        buffer.set(UInt16(truncatingIfNeeded: number &+ 1), at: 2)
        do throws(SRTPError) { _ = try server.unprotectRTP(&buffer, length: length) } catch {}

        buffer.copy(report.span.bytes, to: 0)
        length = try client.protectRTCP(&buffer, length: report.count)
        length = try server.unprotectRTCP(&buffer, length: length)
        precondition(length == report.count)
    }
    precondition(libcryptoAllocations > 0, "nothing was counted")
    precondition(libcryptoAllocations == allocations, "\(profile): \(libcryptoAllocations - allocations) allocations in libcrypto")
    return Int(mallinfo2().uordblks) - Int(heap)
}
