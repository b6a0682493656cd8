// The routing hint: vectors of a separate implementation, every way to be refused, rotation, the key file.
import Crypto
import Primitives
import RoutingHint
import TestSupport
import Testing

struct HintVector: Sendable {
    let ring: KeyRing
    let hint: RoutingHint
    let ufrag: String
    let password: String

    static let all: [HintVector] = {
        let text = String(decoding: Corpus.read("\(Corpus.testsFolder)/RelayTests/Vectors/hint.txt"), as: UTF8.self)
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            let f = line.split(separator: " ").map(String.init)
            let key = HintKey(id: UInt8(f[0])!, cipherKey: bytes(hex: f[1])!, tagKey: bytes(hex: f[2])!)!
            return HintVector(
                ring: KeyRing(hintKeys: [key], passwordKey: bytes(hex: f[3])!, trunkKey: SipKey(k0: 1, k1: 2))!,
                hint: RoutingHint(
                    cluster: UInt16(f[4])!, transceiver: UInt32(f[5])!, worker: UInt8(f[6])!, flags: UInt8(f[7])!, mintedAt: UInt32(f[8])!,
                    session: UInt32(f[9])!),
                ufrag: f[10], password: f[11])
        }
    }()
}

@Suite struct `Routing hint` {
    let now = WallClock(secondsSince1970: 1_800_000_000)
    let hint = RoutingHint(cluster: 3, transceiver: 0x0A01_0203, worker: 5, mintedAt: 1_800_000_000, session: 0xDEAD_BEEF)

    func open(_ text: String, at now: WallClock, _ ring: KeyRing = wellKnownKeyRing()) -> Result<RoutingHint, HintError> {
        var codec = HintCodec(ring)
        return codec.open(Array(text.utf8).bytes, at: now)
    }
    func mint(_ hint: RoutingHint, _ ring: KeyRing = wellKnownKeyRing()) -> String {
        var codec = HintCodec(ring)
        return codec.mint(hint).description
    }

    @Test func `vectors of a separate implementation are minted, opened and given the same password`() {
        #expect(HintVector.all.count == 8)
        for vector in HintVector.all {
            #expect(mint(vector.hint, vector.ring) == vector.ufrag)
            #expect(open(vector.ufrag, at: now, vector.ring) == .success(vector.hint))
            var codec = HintCodec(vector.ring)
            #expect(codec.icePassword(for: Array(vector.ufrag.utf8).bytes).text == vector.password)
        }
    }

    @Test func `every single changed character is refused`() {
        let text = Array(mint(hint).utf8)
        for place in text.indices {
            var changed = text
            changed[place] = changed[place] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
            let result = open(String(decoding: changed, as: UTF8.self), at: now)
            #expect(result == .failure(place < 2 ? .unknownKey : .wrongTag) || result == .failure(.wrongTag))
        }
    }

    @Test func `other systems' fragments are not hints`() {
        for text in ["", "vzMJ", "96b3f1a0", String(repeating: "=", count: 32), String(mint(hint).dropLast()), mint(hint) + "A"] {
            #expect(open(text, at: now) == .failure(.notAHint))
        }
    }

    @Test func `age and clock skew decide at the second`() {
        let text = mint(hint)
        func at(_ offset: Int64) -> WallClock { WallClock(secondsSince1970: UInt64(1_800_000_000 + offset)) }
        #expect(open(text, at: at(86_400 + 90_000)) == .success(hint))
        #expect(open(text, at: at(86_400 + 90_001)) == .failure(.expired))
        #expect(open(text, at: at(-90_000)) == .success(hint))
        #expect(open(text, at: at(-90_001)) == .failure(.mintedInFuture))
    }

    @Test func `the seconds may wrap between minting and opening`() {
        var late = hint
        late.mintedAt = .max - 5
        #expect(open(mint(late), at: WallClock(secondsSince1970: 1 << 32 + 10)) == .success(late))
    }

    @Test func `a version of the future is refused after its tag was found right`() throws {
        let ring = wellKnownKeyRing()
        let key = try #require(ring.hintKeys.first)
        var cipher = AES128Block(key: AESBlockBytes { key.cipherKey[$0] })
        var raw: [UInt8] = [1 << 5 | key.id]
        raw += cipher.encrypt(AESBlockBytes(repeating: 0)).array
        raw += HMACSHA256.tag(key: key.tagKey.bytes, raw.bytes).array.prefix(7)
        #expect(open(Base64.encode(raw, padding: false), at: now) == .failure(.unknownVersion))
        raw[23] ^= 1
        #expect(open(Base64.encode(raw, padding: false), at: now) == .failure(.wrongTag))
    }

    @Test func `an old key opens until it leaves the ring`() throws {
        var ring = wellKnownKeyRing()
        var random = SeededGenerator(seed: 9)
        let old = mint(hint, ring)
        ring.rotate(keeping: 2, random: &random)
        #expect(ring.hintKeys.map(\.id) == [1, 0])
        #expect(mint(hint, ring) != old)
        #expect(open(old, at: now, ring) == .success(hint))
        #expect(open(mint(hint, ring), at: now, ring) == .success(hint))
        ring.rotate(keeping: 2, random: &random)
        #expect(open(old, at: now, ring) == .failure(.unknownKey))
        for _ in 0..<40 { ring.rotate(keeping: 32, random: &random) }
        #expect(Set(ring.hintKeys.map(\.id)).count == 32)
    }

    @Test func `a ufrag is compared whole`() throws {
        let ufrag = try #require(Ufrag(mint(hint)))
        let characters = Array(ufrag.description.utf8)
        #expect(ufrag.description == mint(hint))
        func matches(_ text: [UInt8]) -> Bool { ufrag.matches(text.bytes) }
        #expect(matches(characters))
        #expect(!matches(Array(characters.dropLast())))
        for place in 0..<32 {
            var changed = characters
            changed[place] ^= 1
            #expect(!matches(changed))
        }
    }
}

@Suite struct `Key file` {
    let good = wellKnownKeyRing().json

    func message(_ text: String) -> String {
        do {
            _ = try KeyRing(parsingJSON: text)
            return "accepted"
        } catch { return error.description }
    }

    @Test func `what is written is read back`() throws {
        var ring = wellKnownKeyRing()
        #expect(try KeyRing(parsingJSON: good) == ring)
        var random = SeededGenerator(seed: 3)
        for _ in 0..<33 { ring.rotate(keeping: 32, random: &random) }
        #expect(try KeyRing(parsingJSON: ring.json) == ring)
    }

    /// Hints of the old key open until it retires, also at a relay that has not read the last file yet; new hints open everywhere.
    @Test func `a key is added, promoted, and the old one retires by itself`() throws {
        var random = SeededGenerator(seed: 4)
        let before = wellKnownKeyRing()
        var added = before
        let hasRoom = added.add(random: &random)
        #expect(hasRoom)
        var promoted = added
        let hasAnother = promoted.promote(at: 1_800_000_000, retiringTheOldAt: 1_800_001_000)
        #expect(hasAnother)
        #expect(try KeyRing(parsingJSON: promoted.json) == promoted)

        func mint(_ ring: KeyRing, at time: UInt32) -> [UInt8] {
            var codec = HintCodec(ring)
            let text = codec.mint(RoutingHint(cluster: 1, transceiver: 2, worker: 3, mintedAt: time, session: 4)).description
            return Array(text.utf8)
        }
        func opens(_ hint: [UInt8], _ ring: KeyRing, at time: UInt64) -> Bool {
            var codec = HintCodec(ring)
            if case .success = codec.open(hint.bytes, at: WallClock(secondsSince1970: time)) { return true }
            return false
        }
        let old = mint(added, at: 1_800_000_000)
        let new = mint(promoted, at: 1_800_000_000)
        #expect(opens(old, before, at: 1_800_000_000))
        #expect(opens(new, added, at: 1_800_000_000) && !opens(new, before, at: 1_800_000_000))
        #expect(opens(old, promoted, at: 1_800_000_999) && !opens(old, promoted, at: 1_800_001_000))
        #expect(opens(new, promoted, at: 1_800_001_000))

        // What has retired does not come back, and the next rotation drops it.
        let comesBack = promoted.promote(at: 1_800_001_000, retiringTheOldAt: 1_800_002_000)
        #expect(!comesBack)
        let isAdded = promoted.add(random: &random)
        let isAnother = promoted.promote(at: 1_800_001_000, retiringTheOldAt: 1_800_002_000)
        #expect(isAdded && isAnother && promoted.hintKeys.count == 2)
        var alone = before
        let isAlone = !alone.promote(at: 0, retiringTheOldAt: 0)
        #expect(isAlone)
    }

    @Test func `a trunk key is added, promoted and retired, and what is written is read back`() throws {
        var random = SeededGenerator(seed: 5)
        let before = wellKnownKeyRing()
        var ring = before
        let early = (ring.promoteTrunkKey(), ring.retireTrunkKey())
        #expect(early == (false, false) && ring == before)
        let (isAdded, isAddedAgain) = (ring.addTrunkKey(random: &random), ring.addTrunkKey(random: &random))
        #expect(isAdded && !isAddedAgain)
        let added = ring
        #expect(added.trunkKey == before.trunkKey && added.acceptedTrunkKey != nil)
        let isPromoted = ring.promoteTrunkKey()
        let promoted = ring
        #expect(isPromoted && promoted.trunkKey == added.acceptedTrunkKey && promoted.acceptedTrunkKey == before.trunkKey)
        let isRetired = ring.retireTrunkKey()
        #expect(isRetired && ring.trunkKey == promoted.trunkKey && ring.acceptedTrunkKey == nil)
        for each in [added, promoted, ring] { #expect(try KeyRing(parsingJSON: each.json) == each) }
        var back = promoted
        let isBack = back.promoteTrunkKey()
        #expect(isBack && back == added)
        #expect(KeyRing(hintKeys: before.hintKeys, passwordKey: before.passwordKey, trunkKey: before.trunkKey) == before)
    }

    /// Whoever has missed a step catches up; whoever has missed all of them would speak with nobody in between.
    @Test func `a running program takes a ring that shares a trunk key with its own`() {
        var random = SeededGenerator(seed: 6)
        let before = wellKnownKeyRing()
        var ring = before
        _ = ring.addTrunkKey(random: &random)
        let added = ring
        _ = ring.promoteTrunkKey()
        let promoted = ring
        _ = ring.retireTrunkKey()
        let retired = ring
        for (old, new) in [(before, added), (added, promoted), (promoted, retired), (before, promoted), (added, retired), (added, before)] {
            #expect(new.problem(following: old) == nil)
        }
        #expect(retired.problem(following: before)?.contains("no trunk key of before") == true)
        let other = KeyRing.generate(random: &random)
        #expect(other.problem(following: before)?.contains("another passwordKey") == true)
    }

    @Test func `two generated rings differ`() {
        var random = SystemEntropy()
        #expect(KeyRing.generate(random: &random) != KeyRing.generate(random: &random))
    }

    @Test func `a refusal names what is wrong`() throws {
        func replacing(_ a: String, _ b: String) -> String {
            let parts = good.split(separator: a, maxSplits: 1, omittingEmptySubsequences: false)
            return parts.count == 2 ? parts[0] + b + parts[1] : "not found: \(a)"
        }
        #expect(message("") == "line 1: the file ends too early")
        #expect(message("[]") == "line 1: the key file: want an object")
        #expect(message(good + "{}").hasSuffix("something follows the closing brace"))
        #expect(message(replacing("\"version\": 1", "\"version\": 2")) == "line 2: version: 2 is unknown, this program reads 1")
        #expect(message(replacing("\"id\": 0", "\"id\": 32")) == "line 4: hintKeys[0].id: want a whole number, at most 31")
        #expect(message(replacing("passwordKey", "passwordkey")) == "line 6: the key file: \"passwordkey\" is unknown")
        #expect(message(replacing("\"version\": 1,", "")) == "line 1: the key file: \"version\" is missing")
        #expect(message(replacing("\"version\": 1,", "\"version\": 1, \"version\": 1,")) == "line 2: \"version\" is given twice")
        #expect(
            message(replacing("\"cipher\": \"", "\"cipher\": \"0"))
                == "line 4: hintKeys[0].cipher: 33 characters, want 32 hexadecimal digits")
        #expect(message(replacing("\"trunkKey\": \"", "\"trunkKey\": \"\\u0030")).contains("neither escapes"))
        #expect(
            message(replacing("\"trunkKey\": \"", "\"acceptedTrunkKey\": \"00\",\n  \"trunkKey\": \""))
                == "line 7: acceptedTrunkKey: 2 characters, want 32 hexadecimal digits")
        let line = good.split(separator: "\n").first { $0.contains("\"trunkKey\"") } ?? ""
        let twice = replacing(String(line), line + ",\n" + line.replacing("trunkKey", with: "acceptedTrunkKey"))
        #expect(message(twice) == "line 8: acceptedTrunkKey: is the trunkKey; leave it out")
        let keyless = "{\"version\": 1, \"hintKeys\": [], \"passwordKey\": \"\", \"trunkKey\": \"\"}"
        #expect(message(keyless) == "line 1: hintKeys: 0 keys, want 1 to 32")
        #expect(message(String(repeating: "[", count: 100)).contains("nested deeper"))
    }

    @Test func `the key never shows in a refusal`() {
        let secret = hex(wellKnownKeyRing().passwordKey)
        let cut = good.split(separator: secret, omittingEmptySubsequences: false).joined(separator: String(secret.dropLast()))
        #expect(message(cut) == "line 6: passwordKey: 63 characters, want 64 hexadecimal digits")
    }
}

@Suite struct `Hint and key file under mutation` {
    @Test(arguments: Corpus.files(in: "hint")) func `hint corpus`(file: CorpusFile) { fuzzHint(file.bytes.bytes) }
    @Test(arguments: Corpus.files(in: "keyfile")) func `key file corpus`(file: CorpusFile) { fuzzKeyFile(file.bytes.bytes) }

    @Test func `mutated hints never trap and never open`() {
        mutate(Corpus.files(in: "hint").map(\.bytes), count: mutationCount / 4) { fuzzHint($0) }
    }
    @Test func `mutated key files never trap`() {
        mutate(Corpus.files(in: "keyfile").map(\.bytes), count: mutationCount / 4) { fuzzKeyFile($0) }
    }
}
