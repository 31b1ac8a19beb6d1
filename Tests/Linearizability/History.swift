/// What clients asked of registers and sets, and what they saw. Not safe to share: guard it with a lock.
///
///     var history = History()
///     let write = history.invoke(client: 1, at: 10, .register("a", .write(7)))
///     history.complete(write, at: 12, .register(.written))   // or: fail(write) when it certainly did not happen; or nothing
///     try history.check()
public struct History: Sendable {
  public enum Input: Hashable, Sendable {
    case register(String, Register.Input)
    case set(String, ElementSet.Input)
  }
  public enum Output: Hashable, Sendable {
    case register(Register.Output)
    case set(ElementSet.Output)
  }
  public struct ID: Hashable, Sendable { fileprivate var number: Int }

  /// No order of the calls explains what was seen.
  public struct Violation: Error, CustomStringConvertible {
    /// Kind and name.
    public var object: String
    /// With the call for which no place is left, and those around it in time.
    public var description: String
  }

  struct Record: Sendable {
    var client: Int
    var input: Input
    var output: Output?
    var invoked: Int64
    var returned = Int64.max
    var failed = false
  }
  private(set) var records: [Record] = []

  public init() {}

  public var count: Int { records.count }
  /// Calls that were answered.
  public var completed: Int { records.count { $0.output != nil } }

  /// - Parameter time: of one clock for all clients; any unit.
  public mutating func invoke(client: Int, at time: Int64, _ input: Input) -> ID {
    records.append(Record(client: client, input: input, invoked: time))
    return ID(number: records.count - 1)
  }

  public mutating func complete(_ id: ID, at time: Int64, _ output: Output) {
    records[id.number].output = output
    records[id.number].returned = time
  }

  /// It certainly had no effect and never will: refused. A call whose fate is unknown is simply not completed.
  public mutating func fail(_ id: ID) { records[id.number].failed = true }

  /// Each object by itself: linearizability is local.
  public func check() throws(Violation) {
    var registers: [String: [Call<Register.Input, Register.Output>]] = [:]
    var sets: [String: [Call<ElementSet.Input, ElementSet.Output>]] = [:]
    for record in records where !record.failed {
      switch (record.input, record.output) {
      case (.register(let name, let input), .register(let output)): registers[name, default: []].append(record.call(input, output))
      case (.register(let name, let input), nil): registers[name, default: []].append(record.call(input, nil))
      case (.set(let name, let input), .set(let output)): sets[name, default: []].append(record.call(input, output))
      case (.set(let name, let input), nil): sets[name, default: []].append(record.call(input, nil))
      default: throw Violation(object: "\(record.input)", description: "\(record.input) was answered with \(record.output!)")
      }
    }
    for (name, calls) in registers.sorted(by: { $0.key < $1.key }) { try check(Register.self, "register \(name)", calls.bounded()) }
    for (name, calls) in sets.sorted(by: { $0.key < $1.key }) { try check(ElementSet.self, "set \(name)", calls.bounded()) }
  }

  private func check<S: Specification>(_: S.Type, _ object: String, _ calls: [Call<S.Input, S.Output>]) throws(Violation) {
    guard let stuck = Linearization<S>(calls).firstContradiction() else { return }
    let near = calls.filter { $0.invoked <= stuck.returned }.sorted { $0.returned < $1.returned }.suffix(12).sorted { $0.invoked < $1.invoked }
    throw Violation(
      object: object,
      description: "\(object) is not linearizable: no place for \(line(stuck)). Around it:\n" + near.map { "  \(line($0))" }.joined(separator: "\n"))
  }

  private func line<Input, Output>(_ call: Call<Input, Output>) -> String {
    let end = call.returned == .max ? "…" : "\(call.returned)"
    return "[\(call.invoked), \(end)] client \(call.client) \(call.input) -> \(call.output.map { "\($0)" } ?? "unknown")"
  }
}

extension History.Record {
  fileprivate func call<Input, Output>(_ input: Input, _ output: Output?) -> Call<Input, Output> {
    Call(client: client, input: input, output: output, invoked: invoked, returned: returned)
  }
}

// A call of unknown fate overlaps everything after it, and a few of them make the search hopeless. Values that are written once only tell
// more: what nobody saw may as well never have happened, what somebody saw had happened when that one was answered.
extension [Call<Register.Input, Register.Output>] {
  func bounded() -> Self {
    var writes: [Int64: Int] = [:]
    var seen: [Int64: Int64] = [:]
    // "The value is not what you expected" may be all that was ever seen of a write.
    let mayBeSeenByRefusal = contains { $0.output == .swapped(false) }
    // Only who expects a value replaces it, unless there are plain writes: what nobody saw stays, so it came after all that saw another.
    let staysUnlessSeen = !contains { if case .write = $0.input { true } else { false } }
    let lastSight = lazy.filter { $0.output != nil && $0.output != .swapped(false) }.map(\.invoked).max() ?? .min
    func see(_ value: Int64?, _ at: Int64) { if let value { seen[value] = Swift.min(seen[value] ?? .max, at) } }
    for call in self {
      switch (call.input, call.output) {
      case (.write(let value), _): writes[value, default: 0] += 1
      case (.compareAndSet(let expected, let new), let output):
        writes[new, default: 0] += 1
        if output == .swapped(true) { see(expected, call.returned) }
        // It may have taken effect, and then it saw what it expected: that write must not be dropped.
        if output == nil { see(expected, .max) }
      case (.read, .value(let value)): see(value, call.returned)
      case (.read, _): break
      }
    }
    return compactMap { call in
      guard call.output == nil else { return call }
      let value: Int64
      switch call.input {
      case .read: return nil
      case .write(let written): value = written
      case .compareAndSet(_, let new): value = new
      }
      guard writes[value] == 1 else { return call }
      var call = call
      if let at = seen[value] {
        call.returned = Swift.max(at, call.invoked)
      } else {
        guard mayBeSeenByRefusal else { return nil }
        if staysUnlessSeen { call.invoked = Swift.max(call.invoked, lastSight) }
      }
      return call
    }
  }
}

extension [Call<ElementSet.Input, ElementSet.Output>] {
  func bounded() -> Self {
    var removed: Set<Int64> = []
    var added: Set<Int64> = []
    var seen: [Int64: Int64] = [:]
    func see(_ element: Int64, _ at: Int64) { seen[element] = Swift.min(seen[element] ?? .max, at) }
    for call in self {
      switch (call.input, call.output) {
      case (.remove(let element), _): removed.insert(element)
      case (.add(let element), .changed(true)): added.insert(element)
      case (.add(let element), .changed(false)): see(element, call.returned)
      case (.add, _): break
      case (.read, .elements(let elements)): for element in elements { see(element, call.returned) }
      case (.read, _): break
      }
    }
    return compactMap { call in
      guard call.output == nil else { return call }
      guard case .add(let element) = call.input else { return call.input == .read ? nil : call }
      guard !removed.contains(element) else { return call }
      // Never removed: if another call is known to have added it, or nobody saw it, this one need not have done anything. Otherwise one
      // of those that were made before it was seen added it, and the others may have come after that one.
      guard !added.contains(element), let at = seen[element], call.invoked <= at else { return nil }
      var call = call
      call.returned = at
      return call
    }
  }
}
