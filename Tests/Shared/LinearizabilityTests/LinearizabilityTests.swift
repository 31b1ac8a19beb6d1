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
  private func isExplained(_ calls: [Call<Register.Input, Register.Output>], _ state: Int64?) -> Bool {
    if calls.allSatisfy({ $0.output == nil }) { return true }
    let earliest = calls.map(\.returned).min()!
    for (place, call) in calls.enumerated() where call.invoked <= earliest {
      guard let next = Register.step(state, call.input, call.output) else { continue }
      var rest = calls
      rest.remove(at: place)
      if isExplained(rest, next) { return true }
    }
    return false
  }

  @Test("2,000 small random histories get the answer that trying every order gives")
  func exhaustive() {
    var generator = SystemRandomNumberGenerator()
    var (good, bad) = (0, 0)
    for _ in 0..<2000 {
      var history = History()
      var calls: [Call<Register.Input, Register.Output>] = []
      for client in 0..<6 {
        let start = Int64.random(in: 0..<12, using: &generator)
        let end = start + Int64.random(in: 0..<8, using: &generator)
        let isKnown = Int.random(in: 0..<5, using: &generator) > 0
        let input: Register.Input
        let output: Register.Output
        switch Int.random(in: 0..<4, using: &generator) {
        case 0, 1: (input, output) = (.read, .value([nil, 1, 2, 3].randomElement(using: &generator)!))
        case 2: (input, output) = (.write(.random(in: 1...3, using: &generator)), .written)
        default:
          input = .compareAndSet(expected: [nil, 1, 2].randomElement(using: &generator)!, new: .random(in: 1...3, using: &generator))
          output = .swapped(.random(using: &generator))
        }
        calls.append(Call(client: client, input: input, output: isKnown ? output : nil, invoked: start, returned: isKnown ? end : .max))
        let id = history.invoke(client: client, at: start, .register("x", input))
        if isKnown { history.complete(id, at: end, .register(output)) }
      }
      let holds = (try? history.check()) != nil
      #expect(holds == isExplained(calls, nil), "\(calls)")
      if holds { good += 1 } else { bad += 1 }
    }
    #expect(good > 50 && bad > 50)
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
