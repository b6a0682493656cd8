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
        for parameter in parameters.split(separator: ";") {
            let parts = parameter.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, let value = UInt32(parts[1].filter { $0 != " " }) else { continue }
            switch parts[0].filter({ $0 != " " }).lowercased() {
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
