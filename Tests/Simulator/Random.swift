/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014.
struct Random: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

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
