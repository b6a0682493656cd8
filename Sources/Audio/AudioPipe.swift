// The way up: from RTP packets as they come to PCM without gaps, and to turns.

import Primitives

/// What is known of 20 ms of PCM.
public struct AudioFrame: Sendable, Equatable {
    /// Of its first sample, on the clock of the stream, which voice activity uses too.
    public var milliseconds: Int
    /// Part of it was made up in place of lost packets.
    public var isConcealed: Bool
    /// Nothing of it ever came, and concealment has died away: it tells nothing of the caller.
    public var isMissing: Bool
}

/// A stretch of Opus for a backend that decodes by itself.
public struct AudioPacket: Sendable, Equatable {
    /// Of its first sample, on the clock of the stream.
    public var milliseconds: Int
    /// At 48 kHz.
    public var samples: Int
    public var content: Content

    public enum Content: UInt8, Sendable {
        /// The packet that was appended.
        case packet
        /// Nothing was appended: the packet got lost, and the decoder is to conceal.
        case lost
        /// Nothing was appended: the sender is silent.
        case silence
    }
}

/// One caller's audio: jitter buffer, decoder, resampler, voice activity. Hand packets to `receive`, call `advance` at `nextDeadline`, and take
/// frames and events until there are none.
public struct AudioPipe: ~Copyable {
    public struct Settings: Sendable, Equatable {
        /// Samples a second of the PCM, a multiple of 50 in 8,000…48,000. At Opus's own rates the decoder makes it without a resampler.
        public var rate = 24_000
        /// nil is no voice activity (push to talk); needs one of Opus's own rates.
        public var voiceActivity: VoiceActivity.Settings? = VoiceActivity.Settings()
        /// Who listens is a machine: the pace is the network's.
        public var jitter = JitterBuffer.Settings()
        public init() { jitter.handsOnAtOnce = true }
    }

    /// Below it nobody speaks, where no voice activity tells: mean absolute value of 16 bits.
    private static let quiet = 100

    public let rate: Int
    /// Samples of 20 ms.
    public let frameSamples: Int
    /// A round trip for which waiting would be heard more than what got lost.
    private static let longestRoundTrip = Interval.milliseconds(120)

    /// Packets that were asked for again.
    public var requestedPackets: Int { requests.requested }
    /// Payloads that were no redundant audio.
    public private(set) var malformedRED = 0
    /// Packets that the decoder refused after all.
    public private(set) var undecodable = 0

    private var jitter: JitterBuffer
    private var requests = RetransmissionRequests()
    private var roundTrip: Interval?
    private var decoder: OpusDecoder
    private var resampler: Resampler?
    private var voice: VoiceActivity?
    private var events: BoundedQueue<VoiceActivityEvent>
    private var packet: SampleBuffer<UInt8>
    private var decoded: SampleBuffer<Int16>
    private var resampled: SampleBuffer<Int16>
    private var splice: Splice
    private var assembler: FrameAssembler
    private var isQuiet = true
    /// Samples at 48 kHz handed out.
    private var passedOn = 0
    private var now = Instant.zero

    public init(_ settings: Settings = Settings()) {
        precondition((8_000...48_000).contains(settings.rate) && settings.rate.isMultiple(of: 50))
        rate = settings.rate
        frameSamples = rate / 50
        let decodes = OpusDecoder.rates.contains(rate)
        decoder = OpusDecoder(rate: decodes ? rate : 48_000)
        resampler = decodes ? nil : Resampler(from: 48_000, to: rate)
        jitter = JitterBuffer(settings.jitter)
        if let voiceActivity = settings.voiceActivity { voice = VoiceActivity(rate: rate, voiceActivity) } else { voice = nil }
        events = BoundedQueue(capacity: 16, of: .speechStarted(atMilliseconds: 0))
        packet = SampleBuffer(count: 1_500, repeating: 0)
        decoded = SampleBuffer(count: decoder.scaled(MediaClock.longestPacket), repeating: 0)
        resampled = SampleBuffer(count: decodes ? 1 : MediaClock.longestPacket + 8, repeating: 0)
        splice = Splice(samples: decoder.rate / 200)
        assembler = FrameAssembler(rate: rate)
    }

    public var statistics: JitterStatistics { jitter.statistics }

    /// Whether the caller speaks, as far as voice activity knows.
    public private(set) var isSpeaking = false

    /// Milliseconds that have been taken, as PCM or as packets.
    public var milliseconds: Int { passedOn / 48 }

    /// Takes effect with the next frame; nil switches voice activity off. What was going on is forgotten when it is switched on again.
    public mutating func setVoiceActivity(_ settings: VoiceActivity.Settings?) {
        guard let settings else {
            voice = nil
            isSpeaking = false
            return
        }
        if voice == nil {
            voice = VoiceActivity(rate: rate, settings, startingAt: milliseconds)
        } else {
            voice?.settings = settings
        }
    }

    /// Lets `policy` decide where turns begin and end, from the next frame on, until voice activity is switched off.
    public mutating func setEndpointing(_ policy: any EndpointPolicy) {
        if voice == nil { setVoiceActivity(VoiceActivity.Settings()) }
        voice?.setEndpointing(policy)
    }

    /// What there is between asking for a packet and getting it; with it lost packets are asked for where they would come in time. nil (at first):
    /// retransmission was not negotiated, or the round trip is not known yet.
    public mutating func setRoundTrip(_ interval: Interval?) {
        roundTrip = interval
        jitter.repairTime = interval.flatMap { $0 <= Self.longestRoundTrip ? $0 : nil }
    }

    /// Takes one packet of Opus; the parameters are the jitter buffer's.
    public mutating func receive(
        _ payload: RawSpan, sequence: Int64, timestamp: UInt32, source: UInt32, at now: Instant
    ) -> JitterArrival {
        let wasRequested = requests.note(sequence, at: now)
        let arrival = jitter.receive(payload, sequence: sequence, timestamp: timestamp, source: source, at: now, redundant: wasRequested)
        if arrival == .accepted, jitter.newestCarriesFEC, !wasRequested { requests.recovered(sequence - 1) }
        return arrival
    }

    /// Takes one packet of redundant audio (RFC 2198). Copies are of the packets right before this one, as browsers send them.
    /// - Parameter opusType: the payload type of Opus; blocks of another type are left out.
    public mutating func receive(
        red payload: RawSpan, opusType: UInt8, sequence: Int64, timestamp: UInt32, source: UInt32, at now: Instant
    ) -> JitterArrival {
        guard let packet = try? REDPacket(parsing: payload), packet.primary.payloadType == opusType else {
            malformedRED += 1
            return .malformed
        }
        let primary = payload.bytes(packet.primary.bytes)
        let arrival = receive(primary, sequence: sequence, timestamp: timestamp, source: source, at: now)
        for distance in 1..<(packet.copyCount + 1) {
            let copy = packet.copy(distance: distance)
            guard copy.payloadType == opusType, !copy.bytes.isEmpty, copy.timestampOffset > 0 else { continue }
            let at = sequence - Int64(distance)
            let taken = jitter.receive(
                payload.bytes(copy.bytes), sequence: at, timestamp: timestamp &- copy.timestampOffset, source: source, at: now,
                redundant: true)
            if taken == .accepted { requests.recovered(at) }
        }
        return arrival
    }

    /// What to ask the sender for; nil when nothing is worth it. Call until nil.
    public mutating func nextRequest() -> RetransmissionRequest? {
        guard let roundTrip, jitter.repairTime != nil else { return nil }
        return Self.nextRequest(&requests, jitter, at: now, roundTrip)
    }

    /// Time has passed: frames are due.
    public mutating func advance(to now: Instant) { self.now = max(self.now, now) }

    /// Overwrites `frame` with the next 20 ms; nil when nothing is due. Call until nil, and `nextEvent` after each.
    /// - Parameter frame: exactly `frameSamples`.
    public mutating func nextFrame(into frame: inout MutableSpan<Int16>) -> AudioFrame? {
        precondition(frame.count == frameSamples)
        while !assembler.hasFrame {
            guard decodeNext() else { return nil }
        }
        let taken = assembler.take(into: &frame)
        passedOn += MediaClock.frame
        judge(frame.span, isMissing: taken.isMissing)
        return taken
    }

    /// Appends the next stretch as it came to `output`, which must have room for 1,500 bytes; nil when nothing is due. In place of `nextFrame`: whoever
    /// changes over loses less than 20 ms. Only for voice activity anything is decoded.
    public mutating func nextPacket(into output: inout OutputRawSpan) -> AudioPacket? {
        while let (frame, byteCount) = Self.take(from: &jitter, into: &packet, at: now, quiet: isQuiet) {
            if voice != nil {
                decode(frame, byteCount)
                while assembler.hasFrame { judgeFrame() }
            }
            guard frame.kind != .discard else { continue }
            let milliseconds = passedOn / 48
            passedOn += frame.samples
            guard frame.kind == .packet else {
                return AudioPacket(milliseconds: milliseconds, samples: frame.samples, content: frame.kind == .silence ? .silence : .lost)
            }
            output.append(contentsOf: packet.span(0..<byteCount).bytes)
            return AudioPacket(milliseconds: milliseconds, samples: frame.samples, content: .packet)
        }
        return nil
    }

    /// The next start or stop of speech; belongs to the frame taken last.
    public mutating func nextEvent() -> VoiceActivityEvent? { events.removeFirst() }

    public var nextDeadline: Deadline {
        if assembler.hasFrame { return Deadline(now, "audio frame") }
        return jitter.repairTime == nil ? jitter.nextDeadline : .soonest(jitter.nextDeadline, requests.nextDeadline)
    }
}

extension AudioPipe {
    private mutating func judge(_ frame: Span<Int16>, isMissing: Bool) {
        guard voice != nil else {
            var sum = 0
            for index in frame.indices { sum += abs(Int(frame[index])) }
            isQuiet = sum < Self.quiet * frame.count
            return
        }
        if let event = voice?.process(frame, isMissing: isMissing) {
            events.append(event)
            if case .speechStarted = event { isSpeaking = true } else { isSpeaking = false }
        }
        isQuiet = !isSpeaking && (voice?.probability ?? 0) < 0.3
    }

    /// Turns the next due frame of the jitter buffer into PCM; false when none is due.
    private mutating func decodeNext() -> Bool {
        guard let (frame, byteCount) = Self.take(from: &jitter, into: &packet, at: now, quiet: isQuiet) else { return false }
        decode(frame, byteCount)
        return true
    }

    private mutating func decode(_ frame: JitterFrame, _ byteCount: Int) {
        let count = min(decoder.scaled(frame.samples), decoded.count)
        let done = Self.decode(frame.kind, packet, byteCount, with: &decoder, into: &decoded, count, joining: &splice)
        if !done { undecodable += 1 }
        guard frame.kind != .discard else { return }
        Self.deliver(
            decoded, count, isConcealed: !done || frame.kind == .conceal, isMissing: frame.isOutage, through: &resampler, &resampled,
            to: &assembler)
    }

    /// For voice activity alone.
    private mutating func judgeFrame() {
        var frame = InlineArray<960, Int16>(repeating: 0)
        var room = frame.mutableSpan
        var span = room._mutatingExtracting(first: frameSamples)
        let taken = assembler.take(into: &span)
        judge(frame.span.extracting(first: frameSamples), isMissing: taken.isMissing)
    }

    private static func nextRequest(
        _ requests: inout RetransmissionRequests, _ jitter: borrowing JitterBuffer, at now: Instant, _ roundTrip: Interval
    ) -> RetransmissionRequest? {
        requests.next(at: now, roundTrip: roundTrip) { sequence, arrival in arrival <= jitter.latestArrival(of: sequence) }
    }

    // What follows are static functions: a span of one stored property would keep the others from being changed.

    private static func take(
        from jitter: inout JitterBuffer, into packet: inout SampleBuffer<UInt8>, at now: Instant, quiet: Bool
    ) -> (JitterFrame, byteCount: Int)? {
        var byteCount = 0
        var room = packet.mutableSpan(0..<packet.count)
        let frame = room.withUnsafeMutableBytes { bytes in
            var output = OutputRawSpan(buffer: bytes, initializedCount: 0)
            let frame = jitter.nextFrame(into: &output, at: now, quiet: quiet)
            byteCount = output.finalize(for: bytes)
            return frame
        }
        return frame.map { ($0, byteCount) }
    }

    /// Overwrites the first `count` samples of `decoded`, with zeros when the decoder fails.
    private static func decode(
        _ kind: JitterFrameKind, _ packet: borrowing SampleBuffer<UInt8>, _ byteCount: Int, with decoder: inout OpusDecoder,
        into decoded: inout SampleBuffer<Int16>, _ count: Int, joining splice: inout Splice
    ) -> Bool {
        var pcm = decoded.mutableSpan(0..<count)
        let done = run(&decoder, kind, packet.span(0..<byteCount).bytes, into: &pcm)
        if !done {
            for index in pcm.indices { pcm[index] = 0 }
        }
        if kind == .discard { splice.keep(pcm.span) } else { splice.apply(to: &pcm) }
        return done
    }

    private static func run(
        _ decoder: inout OpusDecoder, _ kind: JitterFrameKind, _ packet: RawSpan, into pcm: inout MutableSpan<Int16>
    ) -> Bool {
        do {
            switch kind {
            case .packet, .discard: return try decoder.decode(packet, into: &pcm) == pcm.count
            case .fec: try decoder.recover(from: packet, into: &pcm)
            // In a sender's silence the decoder makes comfort noise; concealment that lasts has died away.
            case .conceal, .silence: try decoder.conceal(into: &pcm)
            }
            return true
        } catch {
            return false
        }
    }

    private static func deliver(
        _ decoded: borrowing SampleBuffer<Int16>, _ count: Int, isConcealed: Bool, isMissing: Bool, through resampler: inout Resampler?,
        _ resampled: inout SampleBuffer<Int16>, to output: inout FrameAssembler
    ) {
        guard resampler != nil else {
            output.append(decoded.span(0..<count), isConcealed: isConcealed, isMissing: isMissing)
            return
        }
        var room = resampled.mutableSpan(0..<resampled.count)
        let written = resampler?.process(decoded.span(0..<count), into: &room).written ?? 0
        output.append(resampled.span(0..<written), isConcealed: isConcealed, isMissing: isMissing)
    }
}
