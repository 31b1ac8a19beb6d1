import Testing

@testable import Linearizability

@Suite("Linearizability")
struct LinearizabilityTests {
  struct Example: Sendable, CustomTestStringConvertible {
    var name: String
    var holds: Bool
    /// (invoked, returned or nil, input, output or nil)
    var calls: [(Int64, Int64?, History.Input, History.Output?)]
    var testDescription: String { name }
  }

  static func write(_ value: Int64) -> History.Input { .register("x", .write(value)) }
  static let read = History.Input.register("x", .read)
  static func cas(_ expected: Int64?, _ new: Int64) -> History.Input { .register("x", .compareAndSet(expected: expected, new: new)) }
  static let written = History.Output.register(.written)
  static func value(_ value: Int64?) -> History.Output { .register(.value(value)) }
  static func swapped(_ swapped: Bool) -> History.Output { .register(.swapped(swapped)) }
  static func add(_ element: Int64) -> History.Input { .set("s", .add(element)) }
  static func remove(_ element: Int64) -> History.Input { .set("s", .remove(element)) }
  static let elements = History.Input.set("s", .read)
  static func are(_ elements: Set<Int64>) -> History.Output { .set(.elements(elements)) }
  static let done = History.Output.set(.done)
  static func changed(_ changed: Bool) -> History.Output { .set(.changed(changed)) }

  static let examples: [Example] = [
    Example(name: "one after the other", holds: true, calls: [(1, 2, write(1), written), (3, 4, read, value(1))]),
    Example(name: "a stale read", holds: false, calls: [(1, 2, write(1), written), (3, 4, write(2), written), (5, 6, read, value(1))]),
    Example(name: "a lost write", holds: false, calls: [(1, 2, write(1), written), (3, 4, read, value(nil))]),
    Example(
      name: "two overlapping writes read in both orders", holds: false,
      calls: [(1, 9, write(1), written), (1, 9, write(2), written), (10, 11, read, value(1)), (12, 13, read, value(2))]),
    Example(name: "a read beside the write", holds: true, calls: [(1, 9, write(1), written), (2, 3, read, value(nil)), (4, 5, read, value(1))]),
    Example(name: "a read goes back", holds: false, calls: [(1, 9, write(1), written), (2, 3, read, value(1)), (4, 5, read, value(nil))]),
    Example(name: "an unknown write is seen late", holds: true, calls: [(1, nil, write(1), nil), (2, 3, read, value(nil)), (8, 9, read, value(1))]),
    Example(
      name: "an unknown write comes and goes", holds: false, calls: [(1, nil, write(1), nil), (2, 3, read, value(1)), (8, 9, read, value(nil))]),
    Example(name: "a value from nowhere", holds: false, calls: [(1, 2, read, value(5))]),
    Example(name: "both swap the same value", holds: false, calls: [(1, 5, cas(nil, 1), swapped(true)), (2, 6, cas(nil, 2), swapped(true))]),
    Example(name: "the second is refused", holds: true, calls: [(1, 5, cas(nil, 1), swapped(true)), (2, 6, cas(nil, 2), swapped(false))]),
    Example(name: "refused without reason", holds: false, calls: [(1, 5, cas(nil, 1), swapped(false))]),
    Example(name: "refused for a write nobody saw", holds: true, calls: [(1, nil, write(3), nil), (2, 6, cas(nil, 2), swapped(false))]),
    Example(name: "an element is lost", holds: false, calls: [(1, 2, add(1), done), (3, 4, add(2), done), (5, 6, elements, are([2]))]),
    Example(name: "elements come in either order", holds: true, calls: [(1, 6, add(1), done), (2, 6, add(2), done), (3, 5, elements, are([2]))]),
    Example(
      name: "readers disagree about the order", holds: false,
      calls: [(1, 6, add(1), done), (1, 6, add(2), done), (2, 3, elements, are([2])), (4, 5, elements, are([1]))]),
    Example(name: "both add it first", holds: false, calls: [(1, 5, add(1), changed(true)), (2, 6, add(1), changed(true))]),
    Example(name: "it was there for no reason", holds: false, calls: [(1, 5, add(1), changed(false))]),
    Example(name: "it was there after an unknown add", holds: true, calls: [(1, nil, add(1), nil), (2, 6, add(1), changed(false))]),
    Example(
      name: "an add is carried out again", holds: false,
      calls: [(1, 2, add(1), changed(true)), (3, 4, remove(1), changed(true)), (5, 6, elements, are([1]))]),
    Example(
      name: "an unknown swap is seen by a refusal alone", holds: true,
      calls: [(1, nil, cas(nil, 1), nil), (2, 3, read, value(nil)), (4, 5, cas(nil, 2), swapped(false))]),
    Example(
      name: "an unknown swap is seen by a refusal and undone", holds: false,
      calls: [(1, nil, cas(nil, 1), nil), (2, 3, cas(nil, 2), swapped(false)), (4, 5, read, value(nil))]),
    Example(name: "an element returns", holds: false, calls: [(1, 2, add(1), done), (3, 4, remove(1), done), (5, 6, elements, are([1]))]),
  ]

  @Test("histories with a known answer", arguments: examples)
  func known(_ example: Example) {
    var history = History()
    for (client, call) in example.calls.enumerated() {
      let id = history.invoke(client: client, at: call.0, call.2)
      if let output = call.3 { history.complete(id, at: call.1!, output) }
    }
    if example.holds {
      #expect(throws: Never.self) { try history.check() }
    } else {
      #expect(throws: History.Violation.self) { try history.check() }
    }
  }

  @Test("a refused call never happened")
  func refused() {
    var history = History()
    history.fail(history.invoke(client: 1, at: 1, Self.write(1)))
    let read = history.invoke(client: 1, at: 2, Self.read)
    history.complete(read, at: 3, Self.value(1))
    #expect(throws: History.Violation.self) { try history.check() }
  }

  /// Every order of the calls that time allows, tried one by one.
  private func isExplained<S: Specification>(_: S.Type, _ calls: [Call<S.Input, S.Output>], _ state: S.State) -> Bool {
    if calls.allSatisfy({ $0.output == nil }) { return true }
    let earliest = calls.map(\.returned).min()!
    for (place, call) in calls.enumerated() where call.invoked <= earliest {
      guard let next = S.step(state, call.input, call.output) else { continue }
      var rest = calls
      rest.remove(at: place)
      if isExplained(S.self, rest, next) { return true }
    }
    return false
  }

  /// Compares with all orders; `draw` is one call.
  private func compare<S: Specification>(
    _: S.Type, histories: Int, calls count: Int = 6, _ wrap: (S.Input, S.Output) -> (History.Input, History.Output),
    _ draw: (inout SystemRandomNumberGenerator) -> (S.Input, S.Output)
  ) {
    var generator = SystemRandomNumberGenerator()
    var (good, bad) = (0, 0)
    for _ in 0..<histories {
      var history = History()
      var calls: [Call<S.Input, S.Output>] = []
      for client in 0..<count {
        let start = Int64.random(in: 0..<12, using: &generator)
        let end = start + Int64.random(in: 0..<8, using: &generator)
        let isKnown = Int.random(in: 0..<5, using: &generator) > 0
        let (input, output) = draw(&generator)
        calls.append(Call(client: client, input: input, output: isKnown ? output : nil, invoked: start, returned: isKnown ? end : .max))
        let wrapped = wrap(input, output)
        let id = history.invoke(client: client, at: start, wrapped.0)
        if isKnown { history.complete(id, at: end, wrapped.1) }
      }
      let holds = (try? history.check()) != nil
      #expect(holds == isExplained(S.self, calls, S.initial), "\(calls)")
      if holds { good += 1 } else { bad += 1 }
    }
    #expect(good > 50 && bad > 50)
  }

  @Test("2,000 small random histories get the answer that trying every order gives")
  func exhaustive() {
    compare(Register.self, histories: 2000, { (.register("x", $0), .register($1)) }) { generator in
      switch Int.random(in: 0..<4, using: &generator) {
      case 0, 1: return (.read, .value([nil, 1, 2, 3].randomElement(using: &generator)!))
      case 2: return (.write(.random(in: 1...3, using: &generator)), .written)
      default:
        let input = Register.Input.compareAndSet(
          expected: [nil, 1, 2].randomElement(using: &generator)!, new: .random(in: 1...3, using: &generator))
        return (input, .swapped(.random(using: &generator)))
      }
    }
  }

  @Test("2,000 of registers that are only swapped, mostly with values of their own")
  func exhaustiveSwaps() {
    compare(Register.self, histories: 2000, { (.register("x", $0), .register($1)) }) { generator in
      if Int.random(in: 0..<3, using: &generator) == 0 { return (.read, .value([nil, 1, 2, 3].randomElement(using: &generator)!)) }
      let input = Register.Input.compareAndSet(
        expected: [nil, nil, 1, 2].randomElement(using: &generator)!, new: .random(in: 1...8, using: &generator))
      return (input, .swapped(.random(using: &generator)))
    }
  }

  @Test("4,000 of sets")
  func exhaustiveSets() {
    for removes in [false, true] {
      compare(ElementSet.self, histories: 2000, { (.set("s", $0), .set($1)) }) { generator in
        let element = Int64.random(in: 1...2, using: &generator)
        switch Int.random(in: 0..<(removes ? 5 : 4), using: &generator) {
        case 0, 1: return (.add(element), Int.random(in: 0..<4, using: &generator) == 0 ? .done : .changed(.random(using: &generator)))
        case 2, 3: return (.read, .elements([[], [1], [1, 2]].randomElement(using: &generator)!))
        default: return (.remove(element), .changed(.random(using: &generator)))
        }
      }
    }
  }

  @Test("5,000 calls of 20 clients, a tenth of them of unknown fate, take seconds")
  func long() throws {
    var history = History()
    var generator = SystemRandomNumberGenerator()
    var state: Int64?
    var busyUntil = Array(repeating: Int64(0), count: 20)
    // Takes effect in the middle of each call; calls are made in the order of their middles.
    for number in 0..<5_000 {
      let middle = Int64(number) * 10
      let client = busyUntil.indices.min { busyUntil[$0] < busyUntil[$1] }!
      let start = max(busyUntil[client] + 1, middle - Int64.random(in: 0..<80, using: &generator))
      guard start <= middle else { continue }
      let end = middle + Int64.random(in: 1..<80, using: &generator)
      busyUntil[client] = end
      let isRead = Int.random(in: 0..<3, using: &generator) == 0
      let id = history.invoke(client: client, at: start, isRead ? Self.read : Self.write(Int64(number)))
      let isUnknown = Int.random(in: 0..<10, using: &generator) == 0
      if !isRead && (!isUnknown || Bool.random(using: &generator)) { state = Int64(number) }
      if !isUnknown { history.complete(id, at: end, isRead ? Self.value(state) : Self.written) }
    }
    try history.check()
  }
}
