/// How many stubs of each kind are held ready, when they are made and given up. A value: no clock, no process.
/// As many are wanted as starts lately found none, up to a bound; they are made one after the other and only while nothing starts; all are given
/// up after `idle` without a start, and when memory is short.
struct StubPolicy {
  enum Kind: CaseIterable, Hashable, Sendable {
    /// It has a network namespace.
    case ownNetwork
    /// It will be given one, or has the host's.
    case givenNetwork
  }
  typealias ID = UInt64

  enum Input: Hashable {
    /// The agent knows its containers; from here on there may be stubs.
    case opened
    /// A start takes `taken` or goes without.
    case starting(Kind)
    /// A start is over, however.
    case started
    case made(Kind, ID)
    case failed(Kind)
    case died(ID)
    case memoryShort
    /// A timer that was asked for.
    case timer
  }
  enum Output: Hashable {
    /// The start's: nobody else will have it.
    case take(ID)
    /// To be answered by `made` or `failed`.
    case make(Kind)
    case discard(ID)
    /// `timer` is wanted at this instant.
    case wake(at: Duration)
  }

  /// Of each kind.
  let limit: Int
  let idle: Duration
  private(set) var ready: [Kind: [ID]] = [:]
  private(set) var wanted: [Kind: Int] = [:]
  private var starts = 0
  private var making: Kind?
  /// Nothing is made until the next start: making failed or memory was short.
  private var holdsOff = false
  private var isOpen = false
  private var lastStart: Duration = .zero
  private var timerIsSet = false

  init(limit: Int, idle: Duration = .seconds(600)) {
    self.limit = limit
    self.idle = idle
  }

  /// `now`: of any clock that does not go back.
  mutating func step(_ input: Input, now: Duration) -> [Output] {
    switch input {
    case .opened:
      lastStart = now
      isOpen = true
      for kind in Kind.allCases { wanted[kind] = min(1, limit) }
      return refill(now)
    case .starting(let kind):
      starts += 1
      lastStart = now
      holdsOff = false
      guard let id = ready[kind]?.first else {
        wanted[kind] = min(limit, wanted[kind, default: 0] + 1)
        return []
      }
      ready[kind]?.removeFirst()
      return [.take(id)]
    case .started:
      starts -= 1
      return refill(now)
    case .made(let kind, let id):
      making = nil
      guard ready[kind, default: []].count < wanted[kind, default: 0] else { return [.discard(id)] + refill(now) }
      ready[kind, default: []].append(id)
      return refill(now)
    case .failed:
      making = nil
      holdsOff = true
      return []
    case .died(let id):
      for kind in Kind.allCases { ready[kind]?.removeAll { $0 == id } }
      // Whoever killed it will kill the next one, too, if it is made at once.
      return []
    case .memoryShort:
      holdsOff = true
      return discardAll()
    case .timer:
      timerIsSet = false
      if now - lastStart >= idle { return discardAll() }
      return wake()
    }
  }

  private mutating func refill(_ now: Duration) -> [Output] {
    guard isOpen, starts == 0, making == nil, !holdsOff else { return wake() }
    guard let kind = Kind.allCases.first(where: { ready[$0, default: []].count < wanted[$0, default: 0] }) else { return wake() }
    making = kind
    return [.make(kind)] + wake()
  }

  private mutating func discardAll() -> [Output] {
    let all = Kind.allCases.flatMap { ready[$0] ?? [] }
    ready = [:]
    wanted = [:]
    return all.map { .discard($0) }
  }

  private mutating func wake() -> [Output] {
    guard !timerIsSet, making != nil || ready.values.contains(where: { !$0.isEmpty }) else { return [] }
    timerIsSet = true
    return [.wake(at: lastStart + idle)]
  }
}
