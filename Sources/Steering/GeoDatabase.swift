import CMaxMindDB
import Glibc
public import Primitives

/// Why a database cannot be used, in libmaxminddb's words.
public struct GeoDatabaseError: Error, Sendable, CustomStringConvertible {
    public let description: String
}

/// A MaxMind database with places (GeoLite2-City and its kin): mapped, not read. Replace its file by renaming another one over it; one that
/// shrinks in place takes the process with it.
public struct GeoDatabase: ~Copyable, @unchecked Sendable {
    private let handle: UnsafeMutablePointer<MMDB_s>

    public init(path: String) throws(GeoDatabaseError) {
        let opened = UnsafeMutablePointer<MMDB_s>.allocate(capacity: 1)
        opened.initialize(to: MMDB_s())
        let status = MMDB_open(path, UInt32(MMDB_MODE_MMAP), opened)
        guard status == MMDB_SUCCESS else {
            // Not ours yet: libmaxminddb has closed it, and `deinit` must not do so again.
            opened.deallocate()
            throw GeoDatabaseError(description: String(cString: MMDB_strerror(status)))
        }
        handle = opened
    }

    deinit {
        MMDB_close(handle)
        handle.deallocate()
    }

    /// Where `address` is; nil when the database does not say, or says what is no place.
    public borrowing func place(of address: IPAddress) -> Place? {
        guard var found = lookUp(address), found.found_entry, let latitude = Self.number("latitude", &found.entry),
            let longitude = Self.number("longitude", &found.entry)
        else { return nil }
        return Place(latitude: latitude, longitude: longitude)
    }

    /// The two-letter code, for databases that have countries alone.
    public borrowing func country(of address: IPAddress) -> String? {
        guard var found = lookUp(address), found.found_entry else { return nil }
        var data = MMDB_entry_data_s()
        let status = Self.withPath("country", "iso_code") { MMDB_aget_value(&found.entry, &data, $0) }
        guard status == MMDB_SUCCESS, data.has_data, data.type == UInt32(MMDB_DATA_TYPE_UTF8_STRING), data.data_size == 2,
            let text = data.utf8_string
        else { return nil }
        return String(decoding: UnsafeRawBufferPointer(start: text, count: 2), as: UTF8.self)
    }

    /// The place, or a point in the country where there is no more.
    public borrowing func bestPlace(of address: IPAddress) -> Place? {
        if let place = place(of: address) { return place }
        guard let country = country(of: address) else { return nil }
        return Countries.place(of: country)
    }

    private borrowing func lookUp(_ address: IPAddress) -> MMDB_lookup_result_s? {
        var problem = MMDB_SUCCESS
        var name = sockaddr_storage()
        let result = withUnsafeMutableBytes(of: &name) { bytes -> MMDB_lookup_result_s in
            if address.isV4 {
                let v4 = sockaddr_in(
                    sin_family: sa_family_t(AF_INET), sin_port: 0, sin_addr: in_addr(s_addr: address.v4Bits.bigEndian),
                    sin_zero: (0, 0, 0, 0, 0, 0, 0, 0))
                bytes.storeBytes(of: v4, as: sockaddr_in.self)
            } else {
                bytes.storeBytes(of: sa_family_t(AF_INET6), as: sa_family_t.self)
                bytes.storeBytes(of: address.high.bigEndian, toByteOffset: 8, as: UInt64.self)
                bytes.storeBytes(of: address.low.bigEndian, toByteOffset: 16, as: UInt64.self)
            }
            return bytes.withMemoryRebound(to: sockaddr.self) { MMDB_lookup_sockaddr(handle, $0.baseAddress, &problem) }
        }
        // An IPv6 address in a database of IPv4: not a mistake of anybody's.
        return problem == MMDB_SUCCESS ? result : nil
    }

    private static func number(_ name: String, _ entry: inout MMDB_entry_s) -> Double? {
        var data = MMDB_entry_data_s()
        let status = withPath("location", name) { MMDB_aget_value(&entry, &data, $0) }
        guard status == MMDB_SUCCESS, data.has_data, data.type == UInt32(MMDB_DATA_TYPE_DOUBLE) else { return nil }
        return data.double_value
    }

    /// libmaxminddb takes a path as C texts behind each other, ended by null.
    private static func withPath<Result>(
        _ outer: String, _ inner: String, _ body: (UnsafePointer<UnsafePointer<CChar>?>) -> Result
    ) -> Result {
        outer.withCString { outer in inner.withCString { inner in withUnsafeTemporaryPath(outer, inner, body) } }
    }

    private static func withUnsafeTemporaryPath<Result>(
        _ outer: UnsafePointer<CChar>, _ inner: UnsafePointer<CChar>, _ body: (UnsafePointer<UnsafePointer<CChar>?>) -> Result
    ) -> Result {
        let path: [UnsafePointer<CChar>?] = [outer, inner, nil]
        return path.withUnsafeBufferPointer { body($0.baseAddress!) }
    }
}
