/// Searches an order: Wing and Gong's algorithm with Lowe's memory of what was tried ("Testing for linearizability", 2016).
///
/// Exponential in the worst case, in the number of calls that overlap; linear when few do.
struct Linearization<S: Specification> {
  /// What has taken place in some order, and the state that the order led to.
  private struct Configuration: Hashable {
    var done: Prefix
    var state: S.State
  }

  private let calls: [Call<S.Input, S.Output>]

  /// Calls in any order.
  init(_ calls: [Call<S.Input, S.Output>]) { self.calls = calls.sorted { ($0.invoked, $0.returned) < ($1.invoked, $1.returned) } }

  /// The calls that could not be placed after as many as possible were: the earliest to return first. Nil: linearizable.
  func firstContradiction() -> Call<S.Input, S.Output>? {
    var events = EventList(calls.map { ($0.invoked, $0.returned) })
    var seen: Set<Configuration> = []
    var state = S.initial
    var done = Prefix()
    var stack: [(call: Int, state: S.State)] = []
    var mostDone = -1
    var stuckAt: Int?
    var event = events.first
    while let now = event {
      if let call = events.invocation(now) {
        if let next = S.step(state, calls[call].input, calls[call].output) {
          var after = done
          after.insert(call)
          if seen.insert(Configuration(done: after, state: next)).inserted {
            stack.append((call, state))
            (state, done) = (next, after)
            events.lift(call)
            event = events.first
            continue
          }
        }
        event = events.next(now)
      } else {
        let call = events.call(now)
        // Whatever never returned need not have happened.
        if calls[call].returned == .max { return nil }
        if stack.count > mostDone { (mostDone, stuckAt) = (stack.count, call) }
        guard let last = stack.popLast() else { return calls[stuckAt ?? call] }
        state = last.state
        done.remove(last.call)
        events.unlift(last.call)
        event = events.next(events.position(of: last.call))
      }
    }
    return nil
  }
}

/// A set of small numbers that is nearly always "all up to n, and a few more".
struct Prefix: Hashable {
  /// Words before this one are full.
  private var full = 0
  private var words: [UInt64] = []

  mutating func insert(_ number: Int) {
    let word = number / 64 - full
    while words.count <= word { words.append(0) }
    words[word] |= 1 << UInt64(number % 64)
    let leading = words.prefix { $0 == .max }.count
    if leading > 0 {
      words.removeFirst(leading)
      full += leading
    }
  }

  mutating func remove(_ number: Int) {
    while number / 64 < full {
      words.insert(.max, at: 0)
      full -= 1
    }
    words[number / 64 - full] &= ~(1 << UInt64(number % 64))
    while words.last == 0 { words.removeLast() }
  }
}

/// Invocations and returns by time, in a list that calls are taken out of and put back into in constant time.
private struct EventList {
  /// Position p: event p; 0 is the head. Odd numbering is avoided: `kind` says what it is.
  private var after: [Int]
  private var before: [Int]
  /// Call of each event; ~call for its return.
  private let kind: [Int]
  private var invocations: [Int]
  private var returns: [Int]

  init(_ spans: [(invoked: Int64, returned: Int64)]) {
    // At one time invocations come first: calls that touch overlap.
    var order: [(time: Int64, isReturn: Int, call: Int)] = []
    for (call, span) in spans.enumerated() { order += [(span.invoked, 0, call), (span.returned, 1, call)] }
    order.sort { ($0.time, $0.isReturn, $0.call) < ($1.time, $1.isReturn, $1.call) }
    kind = [0] + order.map { $0.isReturn == 1 ? ~$0.call : $0.call }
    invocations = Array(repeating: 0, count: spans.count)
    returns = invocations
    for (offset, event) in order.enumerated() {
      if event.isReturn == 1 { returns[event.call] = offset + 1 } else { invocations[event.call] = offset + 1 }
    }
    after = Array(1...order.count + 1)
    before = Array(-1..<order.count)
    after[order.count] = 0
  }

  var first: Int? { next(0) }
  func next(_ event: Int) -> Int? { after[event] == 0 ? nil : after[event] }
  func invocation(_ event: Int) -> Int? { kind[event] >= 0 ? kind[event] : nil }
  func call(_ event: Int) -> Int { kind[event] >= 0 ? kind[event] : ~kind[event] }
  func position(of call: Int) -> Int { invocations[call] }

  mutating func lift(_ call: Int) {
    for event in [invocations[call], returns[call]] {
      after[before[event]] = after[event]
      if after[event] != 0 { before[after[event]] = before[event] }
    }
  }

  mutating func unlift(_ call: Int) {
    for event in [returns[call], invocations[call]] {
      after[before[event]] = event
      if after[event] != 0 { before[after[event]] = event }
    }
  }
}
