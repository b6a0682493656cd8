import Primitives
import TestSupport
import Testing

@Suite struct JSONTests {
    @Test func `integers stay exact and escapes become characters`() throws {
        let value = try JSONValue(parsing: #"{"a":[9007199254740993,-9223372036854775808,1e3,0.5],"b":"\ud83d\ude00\u00e9\n<"}"#)
        #expect(value["a"]?.array == [.integer(9_007_199_254_740_993), .integer(.min), .number(1000), .number(0.5)])
        #expect(value["a"]?.array?[2].integer == 1000)
        #expect(value["b"]?.string == "😀é\n<")
        #expect(value.text == #"{"a":[9007199254740993,-9223372036854775808,1000.0,0.5],"b":"😀é\n\u003c"}"#)
    }

    @Test(arguments: [
        ("", JSONError.truncated(at: 0)), ("{", .truncated(at: 1)), ("[1,]", .unexpected(at: 3)), ("{\"a\":1,}", .unexpected(at: 7)),
        ("01", .unexpected(at: 1)), ("1.", .badNumber(at: 0)), ("1e", .badNumber(at: 0)), ("1e999", .badNumber(at: 0)),
        ("+1", .unexpected(at: 0)), (".5", .unexpected(at: 0)), ("NaN", .unexpected(at: 0)), ("tru", .truncated(at: 3)),
        ("\"\\x\"", .badString(at: 1)), ("\"\\ud83d\"", .badString(at: 1)), ("\"\\ude00\"", .badString(at: 1)),
        ("\"a\nb\"", .badString(at: 2)), ("1 2", .unexpected(at: 2)), (#"{"a":1,"a":2}"#, .duplicateMember(at: 7)),
        ("'a'", .unexpected(at: 0)), ("[1 2]", .unexpected(at: 3)), ("-", .unexpected(at: 0)),
    ])
    func `text with a flaw is refused at the flaw`(text: String, error: JSONError) {
        #expect(throws: error) { try JSONValue(parsing: text) }
    }

    @Test func `a string must be UTF-8`() {
        let bytes: [UInt8] = [0x22, 0xC0, 0x80, 0x22]
        #expect(throws: JSONError.badString(at: 0)) { try JSONValue(parsing: bytes.span.bytes) }
    }

    @Test func `depth, size and number of values are bounded`() {
        let deep = String(repeating: "[", count: 32) + String(repeating: "]", count: 32)
        #expect(throws: Never.self) { try JSONValue(parsing: deep) }
        #expect(throws: JSONError.tooDeep(at: 32)) { try JSONValue(parsing: "[" + deep + "]") }
        #expect(throws: JSONError.tooLarge(bytes: 65_537)) { try JSONValue(parsing: String(repeating: " ", count: 65_537)) }
        let wide = "[" + String(repeating: "1,", count: 10_000) + "1]"
        #expect(throws: JSONError.tooManyValues(at: 19_999)) { try JSONValue(parsing: wide) }
    }

    @Test func `members are read, replaced and removed by name`() {
        var object = JSONObject()
        object["a"] = 1
        object["b"] = [true, nil, "x", 2.5]
        object["a"] = 2
        object["c"] = nil
        #expect(JSONValue.object(object).text == #"{"a":2,"b":[true,null,"x",2.5]}"#)
        object["a"] = nil
        #expect(object.members.map(\.name) == ["b"])
    }

    @Test func `corpus and mutations read and write alike`() {
        let corpus = Corpus.files(in: "json").map(\.bytes)
        for file in corpus {
            #expect((try? JSONValue(parsing: file.span.bytes)) != nil)
            fuzzJSON(file.span.bytes)
        }
        mutate(corpus) { fuzzJSON($0) }
    }
}
