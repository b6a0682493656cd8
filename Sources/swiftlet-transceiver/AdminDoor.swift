// What only this machine may ask for. A listener of its own, on loopback: signaling's is often behind a proxy of the same machine, where
// everybody comes from loopback, and its keys are those of customers.

import EventLoop
import HTTP
import Primitives
import Serving

struct AdminDoor: ~Copyable {
    private var connections: Connections?

    static let capacity = 16
    static let listenerTag: UInt64 = 4
    /// Between those of signaling's connections and those of other transceivers.
    static let tags: Range<UInt64> = 1 << 61..<1 << 62

    /// - Parameter listener: nil: the door is shut.
    init(_ listener: consuming StreamListener?, reactor: inout Reactor) throws(Errno) {
        guard let listener else {
            connections = nil
            return
        }
        connections = try Connections(
            listener, capacity: Self.capacity, limits: HTTPLimits(), reactor: &reactor, listenerTag: Self.listenerTag,
            firstTag: Self.tags.lowerBound)
    }

    /// Serves the listener or a connection. True when somebody has asked for the end of this process, which was told that it begins.
    mutating func serve(
        _ tag: UInt64, _ reactor: inout Reactor, at now: Instant, calls: Int, _ draining: Draining, _ probe: (HTTPRequest) -> HTTPResponse
    ) -> Bool {
        guard tag != Self.listenerTag else {
            connections?.accept(&reactor, at: now)
            return false
        }
        var draining = draining
        var isAsked = false
        connections?.serve(tag, &reactor, at: now) { request in
            guard request.path == "/admin/drain" else { return .response(probe(request)) }
            switch request.method {
            case "POST":
                // A page in a browser on this machine reaches loopback, too, and cannot help saying that it is one (Fetch §3.2).
                guard request.headers["Origin"] == nil else {
                    return .response(.error(403, "This is for programs, not for pages.", code: "forbidden_origin"))
                }
                isAsked = true
                _ = draining.begin(at: now)
                return .response(Self.state(202, draining, calls, now))
            case "GET", "HEAD": return .response(Self.state(200, draining, calls, now))
            default:
                var response = HTTPResponse.error(405, "\(request.method) is not for this path; use POST.", code: "method_not_allowed")
                response.headers.set("Allow", "GET, HEAD, POST")
                return .response(response)
            }
        }
        return isAsked
    }

    mutating func advance(to now: Instant, _ reactor: inout Reactor) { connections?.advance(to: now, &reactor) }

    private static func state(_ status: Int, _ draining: Draining, _ calls: Int, _ now: Instant) -> HTTPResponse {
        .json(
            status,
            [
                "draining": .bool(draining.isDraining), "calls": .integer(Int64(calls)),
                "seconds_left": draining.secondsLeft(at: now).map { .integer(Int64($0)) } ?? .null,
            ])
    }
}
