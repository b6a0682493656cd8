// Steering's files and log lines: what the core of it does not do.

import Configuration
import EventLoop
import HTTP
import Primitives
import RoutingHint
import Steering
import TransceiverCore

/// Chooses the candidates of answers by the client's place, and reads its files again when they change.
struct Steerer: ~Copyable {
    private let options: SteeringOptions
    private let ingressFile: String
    private var core: Steering
    private var database: GeoDatabase?
    private var tableStamp: FileStamp?
    private var databaseStamp: FileStamp?
    private var nextLook = Instant(nanoseconds: 0)
    private let probe: IngressProbe
    private var log = BoundedLog(linesPerSecond: 20)

    /// Nil where there is nothing to choose from.
    ///
    /// - Parameter ip: the trunk's, from which ingresses are asked how they are.
    init?(
        _ options: SteeringOptions, fallback: [SocketAddress], cluster: UInt16, transceiver: UInt32, on ip: IPAddress, keys: KeyRing
    ) throws(ConfigurationError) {
        guard let ingressFile = options.ingressFile else { return nil }
        self.options = options
        self.ingressFile = ingressFile
        tableStamp = FileStamp(ingressFile)
        let table: IngressTable
        do throws(FileProblem) { table = try Self.readTable(ingressFile) } catch {
            throw ConfigurationError("--ingress-file: \(error.description)")
        }
        databaseStamp = options.database.flatMap { FileStamp($0) }
        if let path = options.database {
            do throws(GeoDatabaseError) { database = try GeoDatabase(path: path) } catch {
                throw ConfigurationError("--geoip-database: \(path): \(error)")
            }
        }
        do throws(Errno) {
            probe = try IngressProbe(table, on: ip, cluster: cluster, transceiver: transceiver, keys: keys)
        } catch { throw ConfigurationError("--ingress-file: a socket to ask ingresses: \(error)") }
        core = Steering(
            locator: ClientLocator(trustedProxies: options.trustedProxies), table: table, fallback: fallback, cluster: cluster)
    }

    /// Pings go out under the ring's trunk key from now on, and pongs are taken under both.
    func replace(keys: KeyRing) { probe.replace(keys) }

    var counters: SteeringCounters { core.counters }
    var table: IngressTable { core.table }

    /// What trunk pings say of the ingresses, by name.
    var reports: [String: IngressReport] { core.reports }

    mutating func choose(for request: HTTPRequest) -> IngressChoice {
        let context = ClientContext(
            peer: request.peer, country: request.headers[options.countryHeader], latitude: request.headers[options.latitudeHeader],
            longitude: request.headers[options.longitudeHeader], forwardedFor: request.headers.all("X-Forwarded-For"))
        return Self.choose(&core, context, database)
    }

    private static func choose(_ core: inout Steering, _ context: ClientContext, _ database: borrowing GeoDatabase?) -> IngressChoice {
        core.choose(for: context) { address in
            switch database {
            case .some(let database): database.bestPlace(of: address)
            case .none: nil
            }
        }
    }

    /// Takes out of `headers` what a proxy may say about a client, and `peer` is none.
    func cleanse(_ headers: inout HTTPHeaders, from peer: IPAddress?) {
        if let peer, core.locator.isTrusted(peer) { return }
        for name in [options.countryHeader, options.latitudeHeader, options.longitudeHeader, "X-Forwarded-For"] { headers.remove(name) }
    }

    /// Tells client, operator and metrics what was chosen, if the answer says it.
    mutating func note(_ choice: IngressChoice, on response: inout HTTPResponse, at now: Instant) {
        guard response.status == 201 || response.status == 200 else { return }
        core.noteTold(choice)
        response.headers.set("Swiftlet-Ingress", choice.headerValue)
        let call = response.headers["Location"].flatMap { $0.split(separator: "/").last } ?? "an ICE restart"
        let troubles = choice.troubles.map { ", " + $0.rawValue }.joined()
        log.say("swiftlet-transceiver: \(call): ingress \(choice.headerValue)\(troubles)", at: now)
    }
}

// MARK: - Files

/// Why a file is not used.
private struct FileProblem: Error {
    let description: String
}

extension Steerer {
    /// Looks once a second whether a file has changed. One with a mistake changes nothing.
    mutating func advance(to now: Instant) {
        log.advance(to: now)
        hearProbe()
        guard now >= nextLook else { return }
        nextLook = now + .seconds(1)
        if let stamp = FileStamp(ingressFile), stamp != tableStamp { readTableAgain(stamp) }
        if let path = options.database, let stamp = FileStamp(path), stamp != databaseStamp { openDatabaseAgain(path, stamp) }
    }

    private mutating func hearProbe() {
        let reports = probe.reports
        for (name, report) in reports where report.isHealthy != (core.reports[name]?.isHealthy ?? true) {
            say("swiftlet-transceiver: ingress \(name) \(report.isHealthy ? "answers again" : "does not answer: not told to clients")")
        }
        core.reports = reports
    }

    /// Whatever the stamps say.
    mutating func readAgain() {
        readTableAgain(FileStamp(ingressFile))
        if let path = options.database { openDatabaseAgain(path, FileStamp(path)) }
    }

    private mutating func readTableAgain(_ stamp: FileStamp?) {
        tableStamp = stamp
        do throws(FileProblem) {
            core.table = try Self.readTable(ingressFile)
            probe.replace(core.table)
            say("swiftlet-transceiver: \(core.table.ingresses.count) ingresses read from \(ingressFile)")
        } catch {
            complain("swiftlet-transceiver: \(error.description); the ingresses of before stay")
        }
    }

    private mutating func openDatabaseAgain(_ path: String, _ stamp: FileStamp?) {
        databaseStamp = stamp
        do throws(GeoDatabaseError) {
            database = try GeoDatabase(path: path)
            say("swiftlet-transceiver: \(path) opened again")
        } catch {
            complain("swiftlet-transceiver: \(path): \(error); the database of before stays")
        }
    }

    private static func readTable(_ path: String) throws(FileProblem) -> IngressTable {
        guard let content = readFile(path, limit: Limits.ingressFileBytes) else { throw FileProblem(description: "cannot read \(path)") }
        do throws(IngressTableError) { return try IngressTable(parsing: String(decoding: content, as: UTF8.self)) } catch {
            throw FileProblem(description: "\(path): \(error)")
        }
    }
}

/// Log lines that clients can cause: so many a second, and then how many were left out.
struct BoundedLog {
    private let linesPerSecond: Int
    private var second: UInt64 = 0
    private var said = 0
    private var leftOut = 0

    init(linesPerSecond: Int) { self.linesPerSecond = linesPerSecond }

    mutating func say(_ line: @autoclosure () -> String, at now: Instant) {
        advance(to: now)
        guard said < linesPerSecond else {
            leftOut += 1
            return
        }
        said += 1
        EventLoop.say(line())
    }

    mutating func advance(to now: Instant) {
        guard now.nanoseconds / 1_000_000_000 != second else { return }
        second = now.nanoseconds / 1_000_000_000
        said = 0
        if leftOut > 0 { EventLoop.say("swiftlet-transceiver: \(leftOut) more lines of this kind in the second before") }
        leftOut = 0
    }
}
