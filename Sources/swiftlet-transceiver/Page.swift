import HTTP
import Serving

/// The page at `/`: files of the folder Page, compiled into the program.
enum Page {
    private static let files: [String: (type: String, body: [UInt8])] = [
        "index.html": ("text/html; charset=utf-8", PackageResources.index_html),
        "style.css": ("text/css; charset=utf-8", PackageResources.style_css),
        "app.js": (script, PackageResources.app_js),
        "call.js": (script, PackageResources.call_js),
        "conversation.js": (script, PackageResources.conversation_js),
        "ear.js": (script, PackageResources.ear_js),
        "elements.js": (script, PackageResources.elements_js),
        "lanes.js": (script, PackageResources.lanes_js),
        "listener.js": (script, PackageResources.listener_js),
        "log.js": (script, PackageResources.log_js),
        "numbers.js": (script, PackageResources.numbers_js),
        "settings.js": (script, PackageResources.settings_js),
        "talk.js": (script, PackageResources.talk_js),
        "transcript.js": (script, PackageResources.transcript_js),
    ]
    private static let script = "text/javascript; charset=utf-8"

    static func answer(_ request: HTTPRequest) -> HTTPResponse? {
        let name = request.path == "/" ? "index.html" : String(request.path.dropFirst())
        guard let file = files[name] else { return nil }
        guard request.isRead else { return .onlyGet(request) }
        var response = HTTPResponse(status: 200, type: file.type, body: file.body)
        response.headers.set("Cache-Control", "no-cache")
        // The page needs nothing from anywhere else; Permissions-Policy keeps the microphone to it.
        response.headers.set(
            "Content-Security-Policy",
            "default-src 'self'; img-src 'self' data:; media-src 'self' blob: mediastream:; frame-ancestors 'none'")
        response.headers.set("Permissions-Policy", "microphone=(self)")
        response.headers.set("X-Content-Type-Options", "nosniff")
        return response
    }
}
