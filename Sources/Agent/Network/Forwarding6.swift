import Glibc
import LinuxSystem
import Model

/// Whether the host forwards IPv6, which makes it a router. What the administrator turned on stays as it is; what was turned on here is written
/// down before, and turned off again. Calls are for the calling thread's network namespace.
struct Forwarding6 {
  /// A file that goes with a boot, as kernel parameters do: each parameter that was changed, and its value before.
  private var record: String { "\(folder)/ipv6-forwarding" }
  let folder: String

  private static let all = "ipv6/conf/all/forwarding"

  var isOff: Bool { KernelParameter.get(Self.all) == "0" }
  var isOursToTurnOn: Bool { access(record, F_OK) == 0 || isOff }

  /// Idempotent. A host that forwards no longer hears routers on links that ask for no more than the default (accept_ra 1): those get 2, so that
  /// its own way out stays (ip-sysctl, accept_ra); where that fails nothing is forwarded.
  func turnOn() -> NetworkProblem? {
    guard isOff else { return nil }
    var before = recorded
    let links = (try? Files.list("/proc/sys/net/ipv6/conf")) ?? []
    let hearing = links.map { "ipv6/conf/\($0)/accept_ra" }.filter { KernelParameter.get($0) == "1" }
    // Of all at once it is turned off on each.
    let single = links.map { "ipv6/conf/\($0)/forwarding" }.filter { KernelParameter.get($0) == "1" }
    for path in hearing + single { before[path] = "1" }
    do {
      try Files.makeDirectories(folder, mode: 0o755)
      try Files.writeAtomically(record, before.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)\n" }.joined(), durable: false)
    } catch { return NetworkProblem("IPv6 of this host", "\(error); IPv6 is not forwarded") }
    for path in hearing { if let problem = KernelParameter.set(path, "2") { return problem } }
    return KernelParameter.set(Self.all, "1")
  }

  /// If it was turned on here. What fails is tried again at the next call.
  func turnOff() -> NetworkProblem? {
    guard access(record, F_OK) == 0 else { return nil }
    if KernelParameter.get(Self.all) == "1", let problem = KernelParameter.set(Self.all, "0") { return problem }
    for (path, value) in recorded {
      guard let now = KernelParameter.get(path), now == (path.hasSuffix("/accept_ra") ? "2" : "0") else { continue }
      if let problem = KernelParameter.set(path, value) { return problem }
    }
    unlink(record)
    return nil
  }

  private var recorded: [String: String] {
    guard let text = try? Files.text(record) else { return [:] }
    let pairs = text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }.filter { $0.count == 2 }
    return Dictionary(pairs.map { ($0[0], $0[1]) }, uniquingKeysWith: { a, _ in a })
  }
}
