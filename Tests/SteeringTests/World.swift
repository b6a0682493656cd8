// A world of six ingresses and six clients.
import Primitives
import Steering
import TestSupport

enum World {
    static let proxy = IPAddress("10.0.0.1")!
    static let locator = ClientLocator(trustedProxies: [IPPrefix("10.0.0.0/8")!])
    static let fallback = [SocketAddress("192.0.2.9:3478")!]
    static let table = try! IngressTable(
        parsing: String(decoding: Corpus.read("\(Corpus.testsFolder)/Corpus/ingresses/world.txt"), as: UTF8.self))

    static func steering(reports: [String: IngressReport] = [:]) -> Steering {
        var steering = Steering(locator: locator, table: table, fallback: fallback, cluster: 1)
        steering.reports = reports
        return steering
    }

    static func behindProxy(_ latitude: Double, _ longitude: Double) -> ClientContext {
        ClientContext(peer: proxy, latitude: "\(latitude)", longitude: "\(longitude)")
    }
}
