import Foundation
import Linearizability
import Model
import Synchronization

/// Clients that write and read through the public API of all managers, each on a thread of its own, and the history of what they saw.
///
/// Registers are node labels and service labels: a change names the version that was read, and Docker's "update out of sequence" refuses
/// a stale one. Every value is written by one call alone, so a version stands for a value. Sets are networks by name.
final class ChaosClients: Sendable {
  struct Register: Hashable, Sendable {
    enum Kind: String { case node, service }
    var kind: Kind
    var name: String
    var object: String { "\(kind) \(name)" }
  }
  struct Totals: Sendable {
    var acknowledged = 0
    var unknown = 0
    var refused = 0
    var reads = 0
    var lastAcknowledged: Int64 = 0
    var longestGap: Int64 = 0
    var longestGapEnd: Int64 = 0
  }
  private struct State {
    var history = History()
    var trace: [String] = []
    var totals = Totals()
    var nextValue: Int64 = 1
    /// Which version a value was seen at: a second one means that it was written twice.
    var versions: [String: Int64] = [:]
    var writtenTwice: [String] = []
    var running: Set<Int> = []
    var stopped = false
  }

  let sockets: [String: String]
  let registers: [Register]
  private let state = Mutex(State())
  private let began = ContinuousClock.now
  /// After it no answer is waited for.
  static let patience = 6.0
  /// A new set begins, so that neither the sets nor the check of them grow with the run.
  static let epoch: Int64 = 30_000_000_000

  init(sockets: [String: String], registers: [Register]) {
    self.sockets = sockets
    self.registers = registers
  }

  /// Nanoseconds since the beginning.
  var now: Int64 { Int64((ContinuousClock.now - began) / .nanoseconds(1)) }
  var totals: Totals { state.withLock { $0.totals } }
  var history: History { state.withLock { $0.history } }
  var trace: [String] { state.withLock { $0.trace } }
  var writtenTwice: [String] { state.withLock { $0.writtenTwice } }
  func note(_ text: String) { state.withLock { $0.trace.append("\(seconds(now)) \(text)") } }

  // MARK: - Running

  func start(clients: Int, seed: UInt64) {
    state.withLock { $0.running = Set(0..<clients) }
    for client in 0..<clients {
      Thread.detachNewThread { [self] in
        var random = SplitMix64(seed: seed &+ UInt64(client) &* 7919)
        var known: [Register: Sight] = [:]
        var cleaned: Int64 = 0
        while !state.withLock({ $0.stopped }) {
          act(client, &known, &random)
          // Networks of sets that nobody reads any more.
          if client == 0, now / Self.epoch > cleaned + 1 { cleaned = clean(cleaned) }
          usleep(UInt32.random(in: 2_000...30_000, using: &random))
        }
        state.withLock { _ = $0.running.remove(client) }
      }
    }
  }

  /// Waits for calls that are under way.
  func stop() async throws {
    state.withLock { $0.stopped = true }
    while !state.withLock({ $0.running.isEmpty }) { try await Task.sleep(for: .milliseconds(20)) }
  }

  private func act(_ client: Int, _ known: inout [Register: Sight], _ random: inout SplitMix64) {
    let host = sockets.keys.sorted().randomElement(using: &random)!
    let register = registers.randomElement(using: &random)!
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<35: known[register] = read(register, client, host)
    case 35..<75:
      guard let sight = known[register] ?? read(register, client, host) else { return }
      // What it wrote itself it must read to know the version.
      known[register] = swap(register, sight, client, host) ? nil : sight
      if Int.random(in: 0..<4, using: &random) > 0 { known[register] = nil }
    case 75..<82: add(isContended: Bool.random(using: &random), client, host)
    default: readSet(client, host)
    }
  }

  // MARK: - Registers

  /// What a client has read.
  struct Sight: Sendable {
    var id: String
    var version: Int64
    var value: Int64?
    /// The JSON of the whole spec, to be sent back with another value.
    var spec: Data
  }

  /// Nil: no answer.
  @discardableResult
  func read(_ register: Register, _ client: Int, _ host: String) -> Sight? {
    let call = invoke(client, host, .register(register.object, .read))
    let target = "/\(register.kind.rawValue)s/\(register.name)"
    guard case .answer(200, let body) = UnixHTTP.call(sockets[host]!, "GET", target, seconds: Self.patience),
      let object = try? JSONSerialization.jsonObject(with: body) as? [String: Any], let id = object["ID"] as? String,
      let version = (object["Version"] as? [String: Any])?["Index"] as? Int, let spec = object["Spec"] as? [String: Any],
      let text = try? JSONSerialization.data(withJSONObject: spec)
    else {
      failed(call)
      return nil
    }
    let value = (spec["Labels"] as? [String: String])?["chaos"].flatMap { Int64($0) }
    complete(call, .register(.value(value)), "version \(version)")
    if let value {
      state.withLock { state in
        let first = state.versions.updateValue(Int64(version), forKey: "\(register.object) \(value)") ?? Int64(version)
        if first != version { state.writtenTwice.append("\(register.object): \(value) is there at version \(first) and at version \(version)") }
      }
    }
    return Sight(id: id, version: Int64(version), value: value, spec: text)
  }

  /// Whether the version is used up.
  private func swap(_ register: Register, _ sight: Sight, _ client: Int, _ host: String) -> Bool {
    guard var spec = try? JSONSerialization.jsonObject(with: sight.spec) as? [String: Any] else { return true }
    let value = nextValue()
    spec["Labels"] = ["chaos": "\(value)"]
    guard let body = try? JSONSerialization.data(withJSONObject: spec) else { return true }
    let call = invoke(client, host, .register(register.object, .compareAndSet(expected: sight.value, new: value)))
    let target = "/\(register.kind.rawValue)s/\(sight.id)/update?version=\(sight.version)"
    switch outcome(UnixHTTP.call(sockets[host]!, "POST", target, body, seconds: Self.patience)) {
    case .done:
      complete(call, .register(.swapped(true)))
      return true
    case .refused(let why) where why.contains("update out of sequence"):
      complete(call, .register(.swapped(false)))
      return true
    case .refused(let why), .unknown(let why): unknown(call, why)
    case .never(let why): never(call, why)
    }
    return false
  }

  // MARK: - Sets

  private func name(_ epoch: Int64, _ element: Int64? = nil) -> String { "chaos-\(epoch)-\(element.map { "\($0)" } ?? "")" }

  private func add(isContended: Bool, _ client: Int, _ host: String) {
    let epoch = now / Self.epoch
    // Of two clients that add the same name one is refused.
    let element = isContended ? now / 250_000_000 : 1_000_000 + nextValue()
    let call = invoke(client, host, .set("networks \(epoch)", .add(element)))
    let body = Data(#"{"Name":"\#(name(epoch, element))","Driver":"overlay"}"#.utf8)
    switch outcome(UnixHTTP.call(sockets[host]!, "POST", "/networks/create", body, seconds: Self.patience)) {
    case .done: complete(call, .set(.changed(true)))
    case .refused(let why) where why.contains("already exists"): complete(call, .set(.changed(false)))
    case .refused(let why), .unknown(let why): unknown(call, why)
    case .never(let why): never(call, why)
    }
  }

  /// Nil: no answer.
  @discardableResult
  func readSet(_ client: Int, _ host: String) -> Set<Int64>? {
    let epoch = now / Self.epoch
    let call = invoke(client, host, .set("networks \(epoch)", .read))
    guard let elements = networks(epoch, host) else {
      failed(call)
      return nil
    }
    complete(call, .set(.elements(elements)))
    return elements
  }

  private func networks(_ epoch: Int64, _ host: String) -> Set<Int64>? {
    let filters = #"{"name":["\#(name(epoch))"]}"#.addingPercentEncoding(withAllowedCharacters: .alphanumerics)!
    guard case .answer(200, let body) = UnixHTTP.call(sockets[host]!, "GET", "/networks?filters=\(filters)", seconds: Self.patience),
      let rows = try? JSONSerialization.jsonObject(with: body) as? [[String: Any]]
    else { return nil }
    return Set(rows.compactMap { ($0["Name"] as? String).flatMap { $0.split(separator: "-").last }.flatMap { Int64($0) } })
  }

  /// The epoch that is clean now.
  private func clean(_ epoch: Int64) -> Int64 {
    let host = sockets.keys.randomElement()!
    guard let elements = networks(epoch, host) else { return epoch }
    for element in elements { _ = UnixHTTP.call(sockets[host]!, "DELETE", "/networks/\(name(epoch, element))", seconds: Self.patience) }
    return elements.isEmpty ? epoch + 1 : epoch
  }

  // MARK: - History

  private enum Outcome { case done, refused(String), never(String), unknown(String) }

  private func outcome(_ reply: UnixHTTP.Reply) -> Outcome {
    switch reply {
    case .refused(let why): return .never(why)
    case .lost(let why): return .unknown(why)
    case .answer(let status, let body):
      if status < 300 { return .done }
      let message =
        ((try? JSONSerialization.jsonObject(with: body)) as? [String: Any])?["message"] as? String ?? String(decoding: body, as: UTF8.self)
      // Nobody was asked to do anything.
      if message.contains("does not have a leader") { return .never(message) }
      return status == 503 ? .unknown(message) : .refused(message)
    }
  }

  private struct Call {
    var id: History.ID
    var number: Int
  }

  private func nextValue() -> Int64 {
    state.withLock { state in
      defer { state.nextValue += 1 }
      return state.nextValue
    }
  }

  private func invoke(_ client: Int, _ host: String, _ input: History.Input) -> Call {
    state.withLock { state in
      let number = state.history.count
      state.trace.append("\(seconds(now)) #\(number) client \(client) \(host) \(input)")
      return Call(id: state.history.invoke(client: client, at: now, input), number: number)
    }
  }

  private func complete(_ call: Call, _ output: History.Output, _ more: String = "") {
    state.withLock { state in
      let now = now
      state.trace.append("\(seconds(now)) #\(call.number) -> \(output) \(more)")
      state.history.complete(call.id, at: now, output)
      switch output {
      case .register(.value), .set(.elements): state.totals.reads += 1
      default:
        state.totals.acknowledged += 1
        let gap = now - state.totals.lastAcknowledged
        if gap > state.totals.longestGap { (state.totals.longestGap, state.totals.longestGapEnd) = (gap, now) }
        state.totals.lastAcknowledged = now
      }
    }
  }

  /// A read without an answer says nothing.
  private func failed(_ call: Call) { never(call, "no answer") }

  private func never(_ call: Call, _ why: String) {
    state.withLock { state in
      state.trace.append("\(seconds(now)) #\(call.number) -> did not happen: \(why)")
      state.history.fail(call.id)
      state.totals.refused += 1
    }
  }

  private func unknown(_ call: Call, _ why: String) {
    state.withLock { state in
      state.trace.append("\(seconds(now)) #\(call.number) -> unknown: \(why)")
      state.totals.unknown += 1
    }
  }
}

/// "12.345"
func seconds(_ nanoseconds: Int64) -> String { String(format: "%.3f", Double(nanoseconds) / 1e9) }
