import Configuration
import Testing

private func parsed(_ text: String) -> RedisAddress? { try? RedisAddress(parsing: text) }

@Suite struct RedisAddresses {
    @Test func `host, port, user, password and database are found, and have defaults`() {
        let bare = parsed("redis://cache")
        #expect(bare?.host == "cache" && bare?.port == 6379 && bare?.user == nil && bare?.password == nil && bare?.database == 0)
        let whole = parsed("redis://relay:p%40ss%2Fword:x@cache.example:6380/7")
        #expect(whole?.host == "cache.example" && whole?.port == 6380 && whole?.database == 7)
        #expect(whole?.user == "relay" && whole?.password == "p@ss/word:x")
        let anonymous = parsed("redis://:secret@10.0.0.9/")
        #expect(anonymous?.user == nil && anonymous?.password == "secret" && anonymous?.database == 0)
        let secure = parsed("rediss://relay:pass@cache.example")
        #expect(secure?.usesTLS == true && secure?.host == "cache.example" && secure?.description == "rediss://cache.example:6379/0")
        #expect(whole?.usesTLS == false)
        let v6 = parsed("redis://[2001:db8::1]:1")
        #expect(v6?.host == "2001:db8::1" && v6?.port == 1 && v6?.description == "redis://[2001:db8::1]:1/0")
    }

    @Test(arguments: [
        "", "redis:", "redis://", "http://h", "redis://h:0", "redis://h:70000", "redis://h:+1", "redis://h/x", "redis://h/-1",
        "redis://user@h",
        "redis://user:@h", "redis://:a%2@h", "redis://:%zz@h", "redis://:%+1@h", "redis://:%ff@h", "redis://[::1", "redis://[h]",
        "redis://[::1]x",
        "redis://h h", "redis://:p@", "redis://h\r\n",
    ])
    func `anything else is refused`(text: String) { #expect(parsed(text) == nil) }

    @Test func `neither a complaint nor a description shows the password`() {
        for text in ["redis://u:hunter2@h:x", "rediss://u:hunter2@h:x"] {
            let words = complaint(RelayOptions.self, requiredOfRelay + ["--redis", text])
            #expect(words.contains("--redis") && !words.contains("hunter2"))
        }
        let address = parsed("redis://u:hunter2@h")
        #expect(address.map { "\($0)\(String(reflecting: $0))".contains("hunter2") } == false)
    }

    @Test func `off unless somebody asks for it`() throws {
        #expect(try read(RelayOptions.self, requiredOfRelay).redis == nil)
        #expect(try read(RelayOptions.self, requiredOfRelay, environment: ["SWIFTLET_REDIS": "redis://h"]).redis?.host == "h")
    }
    @Test func `an authority for a certificate is for TLS only`() throws {
        #expect(try read(RelayOptions.self, requiredOfRelay + ["--redis", "rediss://h", "--redis-ca", "f"]).redisAuthorities == "f")
        for redis in [[], ["--redis", "redis://h"]] {
            let words = complaint(RelayOptions.self, requiredOfRelay + redis + ["--redis-ca", "f"])
            #expect(words.hasPrefix("--redis-ca: there is no certificate"))
        }
    }
}
