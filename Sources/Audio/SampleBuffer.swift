// Preallocated samples with span access: the module's only raw storage of PCM.

/// A fixed number of samples, allocated once and zeroed.
struct SampleBuffer<Element: BitwiseCopyable>: ~Copyable {
    private let base: UnsafeMutablePointer<Element>
    let count: Int

    init(count: Int, repeating value: Element) {
        precondition(count > 0)
        base = .allocate(capacity: count)
        base.initialize(repeating: value, count: count)
        self.count = count
    }

    deinit { base.deallocate() }

    subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count)
            return base[index]
        }
        set {
            precondition(index >= 0 && index < count)
            base[index] = newValue
        }
    }

    @_lifetime(borrow self)
    func span(_ range: Range<Int>) -> Span<Element> {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return _overrideLifetime(Span(_unsafeStart: base + range.lowerBound, count: range.count), borrowing: self)
    }

    @_lifetime(&self)
    mutating func mutableSpan(_ range: Range<Int>) -> MutableSpan<Element> {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return _overrideLifetime(MutableSpan(_unsafeStart: base + range.lowerBound, count: range.count), mutating: &self)
    }

    /// Moves samples inside the buffer; the ranges may overlap.
    mutating func move(_ range: Range<Int>, to start: Int) {
        precondition(range.lowerBound >= 0 && range.upperBound <= count && start >= 0 && start + range.count <= count)
        (base + start).update(from: base + range.lowerBound, count: range.count)
    }
}

extension SampleBuffer where Element == Float {
    /// Elements `index ..< index + 8`.
    func eight(at index: Int) -> SIMD8<Float> {
        precondition(index >= 0 && index + 8 <= count)
        return UnsafeRawPointer(base + index).loadUnaligned(as: SIMD8<Float>.self)
    }
}

// One thread owns a stream at a time; moving the stream moves the ownership.
extension SampleBuffer: @unchecked Sendable {}
