// What must hold for every input, called by the tests with the corpus and its mutations, and by the fuzz targets.

import Crypto
import Primitives

/// Reading never traps; what is read and written again reads the same, and verifies.
public func fuzzSTUN(_ bytes: RawSpan) {
    guard bytes.byteCount <= 2048, let message = try? STUNMessage(parsing: bytes) else { return }
    let key: [UInt8] = Array("a key of the fuzzer's".utf8)
    _ = message.verifiesIntegrity(key: key.bytes)
    _ = message.verifiesFingerprint()
    guard message.method == STUN.bindingMethod else { return }

    var copy = InlineArray<4096, UInt8>(repeating: 0)
    var span = copy.mutableSpan
    let count = unsafe span.withUnsafeMutableBytes { buffer in
        var output = unsafe OutputRawSpan(buffer: buffer, initializedCount: 0)
        precondition(write(message, key: key.bytes, to: &output), "a message that was read does not fit")
        return unsafe output.finalize(for: buffer)
    }
    guard let again = try? STUNMessage(parsing: copy.bytes.bytes(0..<count)) else { fatalError("what we wrote is not STUN") }
    precondition(again.verifiesIntegrity(key: key.bytes) && again.verifiesFingerprint(), "what we wrote does not verify")
    checkEqual(message, again)
}

private func write(_ message: borrowing STUNMessage, key: RawSpan, to output: inout OutputRawSpan) -> Bool {
    var writer = STUNWriter(message.messageClass, message.transactionID, to: &output)
    if message.unknownAttributeCount > 0 { writer.append(unknownAttributes: message.unknownAttributes, to: &output) }
    if let receiver = message.receiverUfrag, let sender = message.senderUfrag {
        writer.append(usernameFor: receiver, from: sender, to: &output)
    } else if let name = message.username {
        writer.append(STUNAttribute.username, name, to: &output)
    }
    if let address = message.xorMappedAddress { writer.append(xorMappedAddress: address, to: &output) }
    if let code = message.errorCode { writer.append(errorCode: code, to: &output) }
    if let priority = message.priority { writer.append(priority: priority, to: &output) }
    if message.useCandidate { writer.appendUseCandidate(to: &output) }
    if let tieBreaker = message.iceControlling { writer.append(iceControlling: tieBreaker, to: &output) }
    if let tieBreaker = message.iceControlled { writer.append(iceControlled: tieBreaker, to: &output) }
    if let dtls = message.dtls { writer.append(STUNAttribute.dtls, dtls, to: &output) }
    if let checksums = message.dtlsAcknowledgement { writer.append(STUNAttribute.dtlsAcknowledgement, checksums, to: &output) }
    return writer.finish(key: key, to: &output)
}

private func checkEqual(_ a: borrowing STUNMessage, _ b: borrowing STUNMessage) {
    precondition(a.messageClass == b.messageClass && a.method == b.method && a.transactionID == b.transactionID)
    precondition(same(a.username, b.username) && same(a.receiverUfrag, b.receiverUfrag) && same(a.senderUfrag, b.senderUfrag))
    // An IPv4-mapped address in family 2 comes back in family 1: the same address.
    precondition(a.xorMappedAddress == b.xorMappedAddress && a.errorCode == b.errorCode && a.priority == b.priority)
    precondition(a.useCandidate == b.useCandidate && a.iceControlling == b.iceControlling && a.iceControlled == b.iceControlled)
    precondition(same(a.dtls, b.dtls) && same(a.dtlsAcknowledgement, b.dtlsAcknowledgement))
}

private func same(_ a: RawSpan?, _ b: RawSpan?) -> Bool {
    switch (a, b) {
    case (nil, nil): true
    case (let a?, let b?): a.elementsEqual(b)
    default: false
    }
}
