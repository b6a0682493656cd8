import Membership
import Primitives
import TestSupport
import Testing

@Suite struct MemberTests {
    @Test func `a member is written as it was read`() throws {
        let line = "id=10.0.1.5 cluster=1 trunk=10.0.1.5:3480 signaling=10.0.1.5:8080 capacity=4096 load=17 state=draining"
        let member = try Member(parsing: line)
        #expect(member.line == line)
        #expect(member.id == MemberID(cluster: 1, transceiver: 0x0A00_0105))
        #expect(member.state == .draining)
    }

    @Test(arguments: [
        ("id=1 cluster=1", "line 2: signaling=ADDRESS:PORT is missing"), ("signaling=127.0.0.1:1", "line 2: id=A.B.C.D or id=N is missing"),
        ("id=-1 signaling=127.0.0.1:1", "line 2: id=-1 is no"), ("id=1 signaling=0.0.0.0:1", "line 2: signaling=0.0.0.0:1 is not"),
        ("id=1 signaling=127.0.0.1:1 state=dead", "line 2: state=dead must be serving or draining"),
        ("id=1 signaling=127.0.0.1:1 load=+1", "line 2: load=+1 is not"), ("here", "line 2: \"here\" is not NAME=VALUE"),
        ("id=1 id=2 signaling=127.0.0.1:1", "line 2: id is given twice"), ("id=7 signaling=127.0.0.1:1", "line 2: 0/7 is given twice"),
    ])
    func `a mistake is told with its line`(line: String, reason: String) {
        let problem = #expect(throws: MemberError.self) {
            _ = try Member.file(parsing: "id=7 signaling=127.0.0.1:1\n\(line)")
        }
        #expect(problem?.description.hasPrefix(reason) == true, "\(problem?.description ?? "")")
    }

    @Test func `members survive every mutation`() {
        let corpus = Corpus.files(in: "members").map(\.bytes)
        for bytes in corpus { fuzzMembers(bytes.span.bytes) }
        mutate(corpus) { fuzzMembers($0) }
    }
}

@Suite struct MemberBookTests {
    private func member(_ number: UInt32) -> Member {
        Member(id: MemberID(cluster: 1, transceiver: number), trunk: nil, signaling: SocketAddress(.v4Loopback, port: UInt16(number)))
    }
    private func at(_ seconds: Int64) -> Instant { Instant(nanoseconds: 0) + .seconds(seconds) }

    @Test func `a member whose registration is lost is still found, because its calls may run`() {
        var book = MemberBook(keptLost: .seconds(100))
        book.read([member(1), member(2)], at: at(0))
        book.read([member(2)], at: at(10))
        #expect(book.present.map(\.id.transceiver) == [2])
        #expect(book.lostCount == 1)
        #expect(book.signaling(of: member(1).id) == member(1).signaling)
        book.read([member(2)], at: at(111))
        #expect(book.signaling(of: member(1).id) == nil)
    }

    @Test func `a member that comes back is present again, where it is now`() {
        var book = MemberBook()
        book.read([member(1)], at: at(0))
        book.read([], at: at(1))
        var moved = member(1)
        moved.signaling = SocketAddress(.v4Loopback, port: 99)
        book.read([moved], at: at(2))
        #expect(book.present == [moved])
        #expect(book.lostCount == 0)
    }

    @Test func `a full book forgets who was lost first`() {
        var book = MemberBook(capacity: 2)
        book.read([member(1)], at: at(0))
        book.read([member(2)], at: at(1))
        book.read([member(3)], at: at(2))
        #expect(book[member(1).id] == nil)
        #expect(book[member(2).id] != nil)
        #expect(book[member(3).id] != nil)
    }
}
