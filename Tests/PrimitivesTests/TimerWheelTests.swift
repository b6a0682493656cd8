import Primitives
import Testing

@Suite struct TimerWheelTests {
    /// The model is a dictionary of deadlines. Whatever is due fires exactly once, at its deadline or at most one tick and one step
    /// later; what was moved or cleared does not fire.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `members fire once, never early, and at most a tick late`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var now = Instant(nanoseconds: 5_000_000_000)
        var wheel = TimerWheel(capacity: 64, slots: 128, now: now)
        var model: [Int: Instant] = [:]
        for _ in 0..<20_000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let member = Int.random(in: 0..<64, using: &random)
                let deadline = now + .microseconds(Int64.random(in: 0...400_000, using: &random))
                wheel.arm(member, at: deadline)
                model[member] = deadline
            case 5:
                let member = Int.random(in: 0..<64, using: &random)
                wheel.arm(member, at: .never)
                model[member] = nil
            default:
                let sleep = wheel.nextDeadline(at: now)
                #expect(sleep > now || !model.values.contains { $0 < now - .milliseconds(2) })
                if let first = model.values.min() { #expect(sleep <= max(first + .milliseconds(2), now + .milliseconds(128))) }
                now = now + .microseconds(Int64.random(in: 0...30_000, using: &random))
                while let member = wheel.nextDue(at: now) {
                    let deadline = model.removeValue(forKey: member)
                    #expect(deadline != nil && deadline! <= now)
                }
                #expect(!model.values.contains { $0 < now - .milliseconds(2) })
            }
            let count = wheel.count  // read outside the macro: it cannot capture a noncopyable value
            #expect(count == model.count)
        }
    }
}
