import Configuration
import Glibc
import Testing

/// The text of a page of Tuning/man.
private func page(_ name: String, beside file: String = #filePath) -> String {
    let folder = file.split(separator: "/").dropLast(3).joined(separator: "/")
    guard let stream = fopen("/\(folder)/Tuning/man/\(name)", "r") else { return "" }
    defer { fclose(stream) }
    var bytes = [UInt8](repeating: 0, count: 65_536)
    let count = fread(&bytes, 1, bytes.count, stream)
    return String(decoding: bytes.prefix(count), as: UTF8.self)
}

/// The options that are explained: those of the lines behind `.TP`.
private func explained(_ text: String) -> Set<String> {
    var names: Set<String> = []
    var isTag = false
    for line in text.split(separator: "\n") {
        if isTag {
            for word in line.split(whereSeparator: { " ,".contains($0) }) where word.hasPrefix("\\-\\-") {
                names.insert(String(word.dropFirst(4).replacing("\\-", with: "-")))
            }
        }
        isTag = line == ".TP"
    }
    return names
}

@Suite struct ManPages {
    @Test(arguments: [("swiftlet-relay.8", RelayOptions.table), ("swiftlet-transceiver.8", TransceiverOptions.table)])
    func `every option of the table is explained`(name: String, table: OptionTable) {
        let found = explained(page(name))
        for option in table.definitions { #expect(found.contains(option.name), "--\(option.name) is not in \(name)") }
    }

    @Test(arguments: [("swiftlet-relay.8", RelayOptions.table), ("swiftlet-transceiver.8", TransceiverOptions.table)])
    func `nothing is explained that is not in the table`(name: String, table: OptionTable) {
        let known = Set(table.definitions.map(\.name) + ["help", "version"])
        #expect(explained(page(name)).subtracting(known).isEmpty)
    }

    @Test(arguments: [("swiftlet-relay.8", RelayOptions.table), ("swiftlet-transceiver.8", TransceiverOptions.table)])
    func `defaults that are numbers stand in the text`(name: String, table: OptionTable) {
        let words = Set(page(name).split { $0 == " " || $0 == "\n" }.map { String($0.last == "." ? $0.dropLast() : $0) })
        for option in table.definitions {
            if case .text(let text) = option.fallback, text.first?.isNumber == true {
                #expect(words.contains(text), "the default of --\(option.name) is \(text)")
            }
        }
    }
}
