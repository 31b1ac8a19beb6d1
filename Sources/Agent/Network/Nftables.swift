import CNFTables
import Glibc
import Model
import Netlink
import Synchronization

/// Runs nftables text in the calling thread's network namespace, as one transaction, through libnftables.
enum Nftables {
  /// libnftables keeps global state: one caller at a time in the process.
  private static let one = Mutex<Void>(())

  /// Contexts whose commands are done, and sockets that were asked. Freeing one closes its socket, which waits for the kernel
  /// (NetlinkSocket.netfilter), though the rules hold since the command returned. So they are freed together, when every namespace has its rules.
  private struct Done: @unchecked Sendable {
    var contexts: [OpaquePointer] = []
    var sockets: [NetlinkSocket] = []
  }
  private static let done = Mutex(Done())
  private static let doneMax = 64

  /// Frees what is done; waits for the kernel.
  static func release() {
    let freed = done.withLock { done in
      defer { done = Done() }
      return done
    }
    one.withLock { _ in for context in freed.contexts { nft_ctx_free(context) } }
  }

  private static func finish(_ add: (inout Done) -> Void) {
    let isFull = done.withLock { done in
      add(&done)
      return done.contexts.count > doneMax || done.sockets.count > 4 * doneMax
    }
    if isFull { release() }
  }

  /// - Parameter before: what is loaded; nil: an agent before this one may have loaded something.
  /// - Returns: whether counters may have begun anew.
  @discardableResult
  static func load<Address>(
    _ table: RuleTable<Address>, before: RuleTable<Address>?, _ lingering: Lingering<Address>, object: String
  ) throws(NetworkProblem) -> Bool {
    if let before { return try change(table, from: before, lingering, object: object) }
    if let names = chains(Address.family), !names.isEmpty {
      // It fails when a chain of another version has another hook.
      do {
        try run(table.replacing(names) + lingering.whole, object: object)
        return true
      } catch {}
    }
    try run(table.fresh + lingering.whole, object: object)
    return true
  }

  private static func change<Address>(
    _ table: RuleTable<Address>, from before: RuleTable<Address>, _ lingering: Lingering<Address>, object: String
  ) throws(NetworkProblem) -> Bool {
    guard !before.chains.isEmpty, let changes = table.changes(from: before) else {
      try run(table.fresh + (before.chains.isEmpty ? lingering.news : lingering.whole), object: object)
      return true
    }
    do {
      for change in changes.dropLast() { try run(change, object: object) }
      try run((changes.last ?? "") + lingering.news, object: object)
      return false
    } catch {
      // Not as we believed it to be: whole.
      return try load(table, before: nil, lingering, object: object)
    }
  }

  /// Of the table `orch` of a family; nil when there is none.
  private static func chains(_ family: String) -> [String]? { list("chains \(family)").flatMap(chainNames) }
  static func chainNames(_ listing: String) -> [String]? {
    // "table ip NAME {", "	chain NAME {"
    var names: [String] = []
    var isOurs = false
    for line in listing.split(separator: "\n") {
      let words = line.split(whereSeparator: \.isWhitespace)
      if words.first == "table" { isOurs = words.count == 4 && words[2] == "orch" }
      if isOurs, words.count == 3, words[0] == "chain", words[2] == "{" { names.append(String(words[1])) }
    }
    return names.isEmpty ? nil : names
  }

  /// Whether a flow of datagrams was translated in this namespace since its table was made; nil: not known.
  static func hasTranslatedDatagrams(_ family: String) -> Bool? { packets("datagrams", family).map { $0 != 0 } }

  /// What a counter of the table `orch` counted; nil: there is none.
  static func packets(_ counter: String, _ family: String = IPv4Address.family) -> UInt64? {
    let number = family == IPv4Address.family ? AF_INET : AF_INET6
    return try? ask { socket throws(NetlinkError) in try socket.counter(counter, table: "orch", family: number).packets }
  }

  /// Of the namespace's rule set, raised by every transaction; nil: this kernel does not say.
  static func generation() -> UInt32? { try? ask { socket throws(NetlinkError) in try socket.ruleGeneration() } }

  /// By a socket of the calling thread's namespace.
  static func ask<T>(_ question: (NetlinkSocket) throws(NetlinkError) -> T) throws(NetlinkError) -> T {
    let socket = try NetlinkSocket.netfilter()
    defer { finish { $0.sockets.append(socket) } }
    return try question(socket)
  }

  private static func list(_ what: String) -> String? {
    one.withLock { _ in
      guard let context = LowDescriptors.context() else { return nil }
      defer { nft_ctx_free(context) }
      nft_ctx_buffer_output(context)
      nft_ctx_buffer_error(context)
      guard nft_run_cmd_from_buffer(context, "list \(what)") == 0 else { return nil }
      return nft_ctx_get_output_buffer(context).map { String(cString: $0) }
    }
  }

  static func run(_ text: String, object: String) throws(NetworkProblem) {
    struct Context: @unchecked Sendable { var pointer: OpaquePointer? }
    let (message, context) = one.withLock { _ -> (String?, Context) in
      guard let context = LowDescriptors.context() else { return ("no context: no memory, or no descriptor below 1024 is free", Context()) }
      nft_ctx_buffer_output(context)
      nft_ctx_buffer_error(context)
      guard nft_run_cmd_from_buffer(context, text) != 0 else {
        // Nothing to do: it drops the context's cache, 640 KiB of hash tables for the one table, that would be kept until the context is freed.
        _ = nft_run_cmd_from_buffer(context, "")
        return (nil, Context(pointer: context))
      }
      return (nft_ctx_get_error_buffer(context).map { String(cString: $0) } ?? "refused", Context(pointer: context))
    }
    if let context = context.pointer { finish { $0.contexts.append(context) } }
    if let message { throw NetworkProblem("nftables rules of \(object)", message.split(separator: "\n").first.map(String.init) ?? message) }
  }
}
