import HTTP
import Serving

/// The page at `/`: files of the folder Page, compiled into the program.
enum Page {
    static func answer(_ request: HTTPRequest) -> HTTPResponse? {
        let file: (type: String, body: [UInt8])
        switch request.path {
        case "/", "/index.html": file = ("text/html; charset=utf-8", PackageResources.index_html)
        case "/app.js": file = ("text/javascript; charset=utf-8", PackageResources.app_js)
        case "/style.css": file = ("text/css; charset=utf-8", PackageResources.style_css)
        default: return nil
        }
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
