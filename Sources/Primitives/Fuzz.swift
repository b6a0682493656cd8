// Fuzz bodies of this room: ordinary functions, fed by the mutation tests and by `make fuzz`.

/// What parses as JSON is written as text that parses to the same value.
public func fuzzJSON(_ bytes: RawSpan) {
    guard let value = try? JSONValue(parsing: bytes) else { return }
    let text = value.utf8
    // Escapes may grow the text (`<` takes six bytes), so the second reading gets a wider limit.
    let again = unsafe try? JSONValue(parsing: text.span.bytes, limits: JSONLimits(bytes: text.count))
    precondition(again == value, "JSON changed between writing and reading")
}
