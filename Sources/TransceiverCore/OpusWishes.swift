import Audio

/// What a client likes to receive of Opus: the `a=fmtp` of its offer (RFC 7587 §6.1). What it does not mention has the RFC's default.
public struct OpusWishes: Sendable, Equatable {
    /// `useinbandfec`: it repairs lost packets from the copies in later ones.
    public var usesFEC = false
    /// `usedtx`: in silence it would rather get nothing.
    public var usesDTX = false
    /// `maxaveragebitrate`, in bits a second.
    public var bitrateMax: Int?

    public init() {}

    /// - Parameter parameters: `name=value` with semicolons between them; what is unknown, or no number, is left out.
    public init(parsing parameters: String) {
        func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes.filter { $0 != UInt8(ascii: " ") }, as: UTF8.self) }
        for parameter in Array(parameters.utf8).split(separator: UInt8(ascii: ";")) {
            let parts = parameter.split(separator: UInt8(ascii: "="), maxSplits: 1)
            guard parts.count == 2, let value = UInt32(text(parts[1])) else { continue }
            switch text(parts[0]).lowercased() {
            case "useinbandfec": usesFEC = value == 1
            case "usedtx": usesDTX = value == 1
            case "maxaveragebitrate": bitrateMax = min(max(Int(value), 6_000), 510_000)
            default: break
            }
        }
    }
}

extension OpusEncoder.Settings {
    init(_ wishes: OpusWishes) {
        self.init()
        forwardErrorCorrection = wishes.usesFEC
        discontinuousTransmission = wishes.usesDTX
        if let most = wishes.bitrateMax { bitrate = min(bitrate, most) }
    }
}
