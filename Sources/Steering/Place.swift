import Glibc

/// A point on the earth.
public struct Place: Hashable, Sendable {
    /// Degrees, −90…90, north positive.
    public let latitude: Double
    /// Degrees, −180…180, east positive.
    public let longitude: Double

    /// Nil when a number is none or out of range.
    public init?(latitude: Double, longitude: Double) {
        guard (-90.0...90).contains(latitude), (-180.0...180).contains(longitude) else { return nil }
        self.latitude = latitude
        self.longitude = longitude
    }

    /// Reads plain decimal degrees, such as `-33.87`: no exponent, no blanks, no names of numbers.
    public init?(latitude: some StringProtocol, longitude: some StringProtocol) {
        guard let latitude = Self.degrees(latitude), let longitude = Self.degrees(longitude) else { return nil }
        self.init(latitude: latitude, longitude: longitude)
    }

    private static func degrees(_ text: some StringProtocol) -> Double? {
        guard (1...24).contains(text.utf8.count) else { return nil }
        var digits = 0
        for (index, byte) in text.utf8.enumerated() {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digits += 1
            case UInt8(ascii: "."): break
            case UInt8(ascii: "-"), UInt8(ascii: "+"): if index > 0 { return nil }
            default: return nil
            }
        }
        return digits > 0 ? Double(String(text)) : nil
    }

    /// Kilometres over the ground (haversine, mean radius of the earth), 0…20 016.
    public func distance(to other: Place) -> Double {
        let radians = Double.pi / 180
        let north = sin((other.latitude - latitude) * radians / 2)
        let east = sin((other.longitude - longitude) * radians / 2)
        let chord = north * north + cos(latitude * radians) * cos(other.latitude * radians) * east * east
        // Rounding can leave the range of the root and of the arc by a hair.
        return 2 * 6371.0088 * asin(min(1, max(0, chord).squareRoot()))
    }
}
