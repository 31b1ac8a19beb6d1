import Model

/// What a world is drawn from.
struct Random: RandomNumberGenerator {
  private var generator: SplitMix64
  init(seed: UInt64) { generator = SplitMix64(seed: seed) }
  mutating func next() -> UInt64 { generator.next() }

  /// Another stream: what one part of the world draws does not move the others.
  mutating func fork() -> Random { Random(seed: next()) }
  mutating func chance(permille: Int) -> Bool { permille > 0 && Int(next() % 1000) < permille }
  mutating func int(_ range: ClosedRange<Int>) -> Int { range.lowerBound + Int(next() % UInt64(range.count)) }
  mutating func pick<Element>(_ elements: [Element]) -> Element { elements[Int(next() % UInt64(elements.count))] }
  mutating func pickIfAny<Element>(_ elements: [Element]) -> Element? { elements.isEmpty ? nil : pick(elements) }
  /// Most near the lower end, a few near the upper one.
  mutating func skewed(_ range: ClosedRange<Int>) -> Int {
    let span = Double(range.count - 1)
    let unit = Double(next() >> 11) / Double(1 << 53)
    return range.lowerBound + Int(span * unit * unit * unit)
  }
}
