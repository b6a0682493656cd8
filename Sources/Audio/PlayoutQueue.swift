// A backend talks faster than real time; the caller hears in real time, and may interrupt. This queue is the difference.

import Primitives

/// One encoded frame on its way to the caller.
public struct PlayoutFrame: Sendable, Equatable {
    public var byteCount: Int
    /// For the RTP header, at 48 kHz; goes on through pauses in real time.
    public var timestamp: UInt32
    /// The first frame after a silence: the RTP marker (RFC 7587 §4.1).
    public var startsTalkspurt: Bool
}

/// How far the playout of an item has come. Items are the caller's numbers.
public enum PlayoutEvent: Sendable, Equatable, BitwiseCopyable {
    case started(item: UInt32)
    /// The item was finished by its speaker and all of it has left.
    case finished(item: UInt32, milliseconds: Int)
    /// The speaker pauses in the middle of an item: everything it said has left.
    case underrun(item: UInt32, milliseconds: Int)
}

/// What an interruption cut off.
public struct PlayoutCleared: Sendable, Equatable {
    /// The item that was being heard; nil when none was.
    public var item: UInt32?
    /// How much of that item really left, with its fade-out.
    public var playedMilliseconds: Int
    /// What nobody will hear, of all items.
    public var discardedMilliseconds: Int

    public init(item: UInt32?, playedMilliseconds: Int, discardedMilliseconds: Int) {
        self.item = item
        self.playedMilliseconds = playedMilliseconds
        self.discardedMilliseconds = discardedMilliseconds
    }
}

/// PCM in, as fast as it comes; a 20 ms Opus packet out, every 20 ms.
public struct PlayoutQueue: ~Copyable {
    /// Seconds that may wait.
    public static let secondsMax = 120
    /// Items that may wait, the one being heard included.
    public static let itemsMax = 64

    private static let frame = Interval.milliseconds(20)
    /// A caller who is later than that is not caught up with.
    private static let lag = Interval.milliseconds(100)

    /// Samples a second of what comes in.
    public let rate: Int
    private let frameSamples: Int
    /// 5 ms: what is cut off fades out, what resumes fades in.
    private let fadeSamples: Int

    private enum Tail {
        /// Nothing to end: silence.
        case none
        /// One more frame, of silence: what the encoder still holds of the last one (its lookahead).
        case flush
        /// The scratch frame holds what fades out, and leaves at once: the listener is not to wait for silence.
        case fadeOut
    }

    /// Made for the first sound: a call in which nobody answers holds none.
    private var encoder: OpusEncoder?
    private var settings: OpusEncoder.Settings
    private var red: REDWriter?
    private var samples: SampleQueue
    private var marks: MarkRing
    private var events: BoundedQueue<PlayoutEvent>
    private var scratch: SampleBuffer<Int16>
    private var timestamp: UInt32
    /// The end of the last frame.
    private var nextDue = Instant.zero
    private var isRunning = false
    private var hasSpoken = false
    /// The last frame was not sent.
    private var leavesGap = true
    private var tail = Tail.none
    private var fadesIn = false
    private var lastSample: Int16 = 0

    /// - Parameters:
    ///   - encoder: its rate is the rate of what comes in. Without `forwardErrorCorrection` and with `discontinuousTransmission` when so
    ///     negotiated (RFC 7587 §7.1).
    ///   - timestamp: of the first frame; RFC 3550 §5.1 wants a random one.
    public init(encoder settings: OpusEncoder.Settings = .init(), timestamp: UInt32) {
        precondition(OpusDecoder.rates.contains(settings.rate), "not a rate of Opus: \(settings.rate)")
        self.settings = settings
        rate = settings.rate
        frameSamples = rate / 50
        fadeSamples = rate / 200
        encoder = nil
        red = nil
        samples = SampleQueue(capacity: Self.secondsMax * rate)
        marks = MarkRing(capacity: Self.itemsMax)
        events = BoundedQueue(capacity: 2 * Self.itemsMax, of: .started(item: 0))
        scratch = SampleBuffer(count: frameSamples, repeating: 0)
        self.timestamp = timestamp
    }

    /// Milliseconds that wait.
    public var queuedMilliseconds: Int { milliseconds(samples.count) }

    /// The item that is being heard, and how many milliseconds of it have left.
    public var playing: (item: UInt32, milliseconds: Int)? {
        guard let mark = marks.first, mark.isStarted else { return nil }
        return (mark.item, milliseconds(samples.readPosition - mark.start))
    }

    /// Of the encoder, 6,000…510,000 bits a second.
    public mutating func setBitrate(_ bits: Int) {
        settings.bitrate = bits
        encoder?.setBitrate(bits)
    }

    /// Packets become redundant audio (RFC 2198) with copies of the `distance` packets before (1…4), or plain Opus again. The caller of
    /// `nextFrame` puts the negotiated payload type on them.
    /// - Parameter opusType: the payload type of Opus; nil is plain Opus.
    public mutating func setRedundancy(opusType: UInt8?, distance: Int = 1) {
        red = nil
        if let opusType { red = REDWriter(payloadType: opusType, distance: distance) }
    }

    /// Of the encoder: what the caller's reports say of loss, 0…100 %.
    public mutating func setExpectedLoss(_ percent: Int) {
        settings.expectedLoss = percent
        encoder?.setExpectedLoss(percent)
    }

    public mutating func nextEvent() -> PlayoutEvent? { events.removeFirst() }

    /// When the next frame is due; a moment that has passed is now.
    public var nextDeadline: Deadline { hasFrame ? Deadline(tail == .fadeOut ? .zero : nextDue, "playout") : .none }
}

// MARK: - In

extension PlayoutQueue {
    /// Appends what the backend says. Another item ends the one before.
    /// - Returns: how many samples fitted: fewer when two minutes, or 64 items, wait already.
    public mutating func append(_ pcm: Span<Int16>, item: UInt32) -> Int {
        guard pcm.count > 0 else { return 0 }
        if marks.last?.item != item || marks.last?.isFinished == true {
            guard marks.count < Self.itemsMax else { return 0 }
            marks.finishLast(at: samples.writePosition)
            marks.append(Mark(item: item, start: samples.writePosition))
        }
        return samples.append(pcm)
    }

    /// The backend has said all of `item`: its last frame is not waited for any longer.
    public mutating func finish(item: UInt32) {
        guard marks.last?.item == item else { return }
        marks.finishLast(at: samples.writePosition)
        settleMarks()
    }

    /// Stops: what has not left is forgotten but for a fade-out of 5 ms, which is the next frame, is due at once, and is the last.
    public mutating func clear() -> PlayoutCleared {
        // A fade-out that waits already is the end of what was heard.
        let fadesNow = isRunning && tail != .fadeOut
        let fade = fadesNow ? min(samples.count, fadeSamples) : 0
        var cleared = PlayoutCleared(item: nil, playedMilliseconds: 0, discardedMilliseconds: milliseconds(samples.count - fade))
        if let mark = marks.first, mark.isStarted {
            cleared.item = mark.item
            let end = min(samples.readPosition + fade, mark.end)
            cleared.playedMilliseconds = milliseconds(end - mark.start)
        }
        samples.truncate(to: fade)
        if fadesNow {
            fillScratchWithEnd(fade)
            tail = .fadeOut
        }
        marks.removeAll()
        return cleared
    }

    private func milliseconds(_ samples: Int) -> Int { samples / (rate / 1_000) }
}

// MARK: - Out

extension PlayoutQueue {
    /// Appends the packet that is due to `output`, which should have room for 1,500 bytes; nil when none is. Call until nil.
    public mutating func nextFrame(into output: inout OutputRawSpan, at now: Instant) -> PlayoutFrame? {
        while hasFrame, tail == .fadeOut || nextDue <= now {
            if !isRunning || now - nextDue > Self.lag {
                if hasSpoken { timestamp &+= UInt32(truncatingIfNeeded: MediaClock.samples(now - nextDue)) }
                nextDue = now
            }
            if !isRunning { leavesGap = true }
            fillScratch()
            if encoder == nil { encoder = OpusEncoder(settings) }
            guard let byteCount = Self.encode(scratch, with: &encoder, into: &output) else { return nil }
            let sends = !settings.discontinuousTransmission || byteCount > 2
            let size = sends && red != nil ? Self.wrap(last: byteCount, of: &output, timestamp, with: &red) : byteCount
            let frame = PlayoutFrame(byteCount: size, timestamp: timestamp, startsTalkspurt: leavesGap)
            timestamp &+= UInt32(MediaClock.frame)
            nextDue = nextDue + Self.frame
            hasSpoken = true
            leavesGap = !sends || size == 0
            guard leavesGap else { return frame }
            if !sends { output.removeLast(byteCount) }
        }
        return nil
    }

    private var hasFrame: Bool {
        if tail != .none { return true }
        if samples.count >= frameSamples { return true }
        // The rest of an item does not wait for a full frame; neither does one whose listener is listening already.
        return samples.count > 0 && (isRunning || marks.last?.isFinished == true)
    }

    /// Makes the next frame, and decides what follows it.
    private mutating func fillScratch() {
        switch tail {
        case .fadeOut:
            // Behind the fade-out the frame has silence for longer than the encoder looks ahead: nothing is left to flush.
            tail = .none
            isRunning = false
            lastSample = 0
            fadesIn = true
        case .flush where samples.count == 0:
            fillScratchWithEnd(0)
            tail = .none
            isRunning = false
            lastSample = 0
        case .flush, .none: fillScratchFromQueue()
        }
    }

    private mutating func fillScratchFromQueue() {
        let taken = Self.read(&samples, into: &scratch, atMost: frameSamples)
        if fadesIn { Self.fade(&scratch, 0..<min(taken, fadeSamples), rising: true) }
        // The speaker stopped in the middle of an item, and of a frame.
        let isCut = samples.count == 0 && marks.last?.isFinished == false
        if isCut, taken < frameSamples { Self.fade(&scratch, max(0, taken - fadeSamples)..<taken, rising: false) }
        lastSample = scratch[frameSamples - 1]
        isRunning = true
        fadesIn = isCut
        tail = samples.count == 0 ? .flush : .none
        startMarks()
        if isCut { noteUnderrun() }
        settleMarks()
    }

    /// What is left of a sound that ends: `count` samples of the queue that fade out, or, where the last frame ended in the middle of a sound,
    /// a few that lead to zero without a step.
    private mutating func fillScratchWithEnd(_ count: Int) {
        let taken = Self.read(&samples, into: &scratch, atMost: count)
        Self.fade(&scratch, 0..<taken, rising: false)
        guard taken == 0 else { return }
        let length = fadeSamples
        for index in 0..<length { scratch[index] = Int16(Int(lastSample) * (length - index) * (length - index) / (length * length)) }
    }

    // Static functions: a span of one stored property would keep the others from being changed.

    private static func encode(
        _ frame: borrowing SampleBuffer<Int16>, with encoder: inout OpusEncoder?, into output: inout OutputRawSpan
    ) -> Int? {
        try? encoder?.encode(frame.span(0..<frame.count), into: &output)
    }

    /// Puts redundant audio in the place of the last `byteCount` bytes of `output`.
    private static func wrap(last byteCount: Int, of output: inout OutputRawSpan, _ timestamp: UInt32, with red: inout REDWriter?) -> Int {
        var packet = InlineArray<1_276, UInt8>(repeating: 0)
        var room = packet.mutableSpan
        let start = output.byteCount - byteCount
        for index in 0..<min(byteCount, 1_276) { room[index] = output.bytes.byte(start + index) }
        output.removeLast(byteCount)
        let before = output.byteCount
        let written = red?.write(packet.span.extracting(first: byteCount).bytes, timestamp: timestamp, into: &output) ?? false
        return written ? output.byteCount - before : 0
    }

    /// Overwrites the whole frame; silence follows what there is.
    private static func read(_ samples: inout SampleQueue, into frame: inout SampleBuffer<Int16>, atMost most: Int) -> Int {
        var span = frame.mutableSpan(0..<frame.count)
        let taken = samples.read(into: &span, atMost: most)
        for index in taken..<span.count { span[index] = 0 }
        return taken
    }

    private static func fade(_ frame: inout SampleBuffer<Int16>, _ range: Range<Int>, rising: Bool) {
        let count = range.count
        for index in 0..<count {
            let step = rising ? index : count - 1 - index
            let place = range.lowerBound + index
            frame[place] = Int16(Int(frame[place]) * step / count)
        }
    }

    private mutating func noteUnderrun() {
        guard let mark = marks.first else { return }
        events.append(.underrun(item: mark.item, milliseconds: milliseconds(samples.readPosition - mark.start)))
    }

    /// Items whose first sample has left.
    private mutating func startMarks() {
        marks.start(before: samples.readPosition) { events.append(.started(item: $0)) }
    }

    /// Items whose last sample has left.
    private mutating func settleMarks() {
        while let mark = marks.first, mark.isFinished, mark.end <= samples.readPosition {
            events.append(.finished(item: mark.item, milliseconds: milliseconds(mark.end - mark.start)))
            marks.removeFirst()
        }
    }
}
