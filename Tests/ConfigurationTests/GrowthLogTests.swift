import Primitives
import Telemetry
import Testing

@Suite struct `Growth log` {
    @Test func `a counter is told of at once, and then once in ten seconds with what has come since`() {
        var log = GrowthLog(count: 2)
        let start = Instant(nanoseconds: 5_000_000_000)
        #expect(log.growth(of: 0, total: 0, at: start) == nil)
        #expect(log.growth(of: 0, total: 3, at: start) == 3)
        #expect(log.growth(of: 0, total: 10, at: start + .seconds(9)) == nil)
        #expect(log.growth(of: 1, total: 1, at: start + .seconds(9)) == 1)
        #expect(log.growth(of: 0, total: 12, at: start + .seconds(10)) == 9)
        #expect(log.growth(of: 0, total: 12, at: start + .seconds(30)) == nil)
    }

    @Test func `a counter that begins again is told of with what it has`() {
        var log = GrowthLog(count: 1)
        let start = Instant(nanoseconds: 0)
        #expect(log.growth(of: 0, total: 100, at: start) == 100)
        #expect(log.growth(of: 0, total: 0, at: start + .seconds(11)) == nil)
        #expect(log.growth(of: 0, total: 4, at: start + .seconds(12)) == 4)
        #expect(log.growth(of: 7, total: 4, at: start + .seconds(12)) == nil)
    }
}
