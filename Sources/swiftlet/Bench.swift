/// `swiftlet bench`
enum Bench {
    static func run(_ arguments: [String]) throws(CommandError) { throw CommandError("bench: not there yet", status: 1) }
}
