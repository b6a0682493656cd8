// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Crypto
import Primitives

/// A ring whose keys everybody knows: for vectors and fuzzing only.
public func wellKnownKeyRing() -> KeyRing {
    var random = SeededGenerator(seed: 1)
    return KeyRing.generate(random: &random)
}

/// Opening never traps, and whatever opens is exactly what minting the same fields gives.
public func fuzzHint(_ bytes: RawSpan) {
    var codec = HintCodec(wellKnownKeyRing())
    let now = WallClock(secondsSince1970: 1_800_000_000)
    if case .success(let hint) = codec.open(bytes, at: now) {
        precondition(codec.mint(hint).matches(bytes), "an opened hint is minted differently")
    }
    guard bytes.byteCount >= 12 else { return }
    // Any fields survive the way there and back, and no other character in any place does.
    let hint = RoutingHint(
        cluster: bytes.u16(0), transceiver: bytes.u32(2), worker: bytes.byte(6), flags: bytes.byte(7),
        mintedAt: 1_800_000_000 &- UInt32(bytes.u16(8)), session: bytes.u32(8))
    var characters = codec.mint(hint).characters
    guard case .success(let opened) = codec.open(characters.bytes, at: now), opened == hint else {
        preconditionFailure("a minted hint does not open")
    }
    let place = Int(bytes.byte(10)) & 31
    guard characters[place] != bytes.byte(11) else { return }
    characters[place] = bytes.byte(11)
    if case .success = codec.open(characters.bytes, at: now) { preconditionFailure("a changed hint opens") }
}

/// Parsing never traps, and what parses is written and parsed again to the same keys.
public func fuzzKeyFile(_ bytes: RawSpan) {
    guard let ring = try? KeyRing(parsingJSON: bytes) else { return }
    let again = try? KeyRing(parsingJSON: ring.json)
    precondition(again == ring, "a key file changes when it is written again")
}
