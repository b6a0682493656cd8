import Primitives
import Testing

@Suite struct AddressTests {
    @Test(arguments: [
        "127.0.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::1", "fe80::f716:bb5a:1d8e:d8d6", "1:0:0:2::3",
        "2001:db8:0:1:1:1:1:1",
    ])
    func `canonical text reads back as itself`(text: String) throws {
        #expect(try #require(IPAddress(text)).description == text)
    }

    @Test func `one address has one form`() {
        #expect(IPAddress("::ffff:127.0.0.1") == IPAddress("127.0.0.1"))
        #expect(IPAddress("0:0:0:0:0:0:0:1") == .v6Loopback)
        #expect(SocketAddress("[::ffff:10.0.0.1]:5")?.description == "10.0.0.1:5")
    }

    @Test(arguments: [
        "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", ":::", "1::2::3", "12345::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
        "g::",
        "1:2:3:4:5:6:7::8:9", "::1.2.3.4.5", "%", "fe80::1%eth0",
    ])
    func `what is not an address is refused`(text: String) { #expect(IPAddress(text) == nil) }

    @Test(arguments: ["1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:+1", "::1:80", "[::1]", "[::1:80", ":80"])
    func `a socket address needs a host and a port`(text: String) { #expect(SocketAddress(text) == nil) }

    @Test func `prefixes contain what they should`() throws {
        let ten = try #require(IPPrefix("10.0.0.0/8"))
        #expect(ten.contains(IPAddress("10.255.0.1")!) && !ten.contains(IPAddress("11.0.0.1")!) && !ten.contains(.v6Loopback))
        let six = try #require(IPPrefix("2001:db8::/33"))
        #expect(six.contains(IPAddress("2001:db8:7fff::1")!) && !six.contains(IPAddress("2001:db8:8000::1")!))
        #expect(IPPrefix("0.0.0.0/0")!.contains(IPAddress("9.9.9.9")!) && !IPPrefix("0.0.0.0/0")!.contains(.v6Loopback))
        #expect(IPPrefix("::/0")!.contains(.v4Loopback))
        #expect(IPPrefix("10.0.0.0/33") == nil && IPPrefix("10.0.0.0/-1") == nil && IPPrefix("x/8") == nil)
    }
}
