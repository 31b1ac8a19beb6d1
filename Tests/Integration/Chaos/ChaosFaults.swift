import Foundation

/// Carries a schedule out on the hosts of a local cluster.
final class ChaosFaults {
  private let cluster: LocalCluster
  private let hosts: [String]
  private let note: (String) -> Void
  /// Daemons that nobody killed and that are gone all the same.
  private(set) var deaths: [String] = []
  /// Of managers that nobody killed since they were started.
  private var pids: [String: Int32] = [:]
  private var killed: Set<String> = []
  private var full: Set<String> = []

  init(_ cluster: LocalCluster, hosts: [String], note: @escaping (String) -> Void) {
    self.cluster = cluster
    self.hosts = hosts
    self.note = note
  }

  private enum Undo: Hashable { case start(String), resume(String), free(String), heal }

  func run(_ schedule: FaultSchedule) async throws {
    let began = ContinuousClock.now
    var events: [(at: Duration, step: FaultSchedule.Step?, undo: [Undo])] = schedule.steps.map { ($0.begins, $0, []) }
    for host in hosts { pids[host] = pid(host) }
    while !events.isEmpty {
      let next = events.indices.min { events[$0].at < events[$1].at }!
      let event = events.remove(at: next)
      try await Task.sleep(until: began + event.at, clock: .continuous)
      if let step = event.step {
        events.append((step.begins + step.lasts, nil, try begin(step)))
      } else {
        for undo in event.undo { try carryOut(undo) }
      }
    }
    try healAll()
  }

  /// Everything as a user would have it again.
  func healAll() throws {
    for host in hosts { for undo in [Undo.resume(host), .free(host)] { try carryOut(undo) } }
    try carryOut(.heal)
    for host in hosts { try carryOut(.start(host)) }
  }

  /// kill -9 of one manager, and its start.
  func restart(_ host: String) throws {
    kill(host)
    try carryOut(.start(host))
  }

  private func begin(_ step: FaultSchedule.Step) throws -> [Undo] {
    let leader = self.leader ?? hosts[Int(step.choice % UInt64(hosts.count))]
    let others = hosts.filter { $0 != leader }
    func targets(_ target: FaultSchedule.Target) -> [String] {
      switch target {
      case .leader: [leader]
      case .follower: [others[Int(step.choice % UInt64(others.count))]]
      case .all: hosts
      }
    }
    note("fault: \(step.fault) for \(seconds(Int64(step.lasts / .nanoseconds(1)))) s, the leader is on \(leader), choice \(step.choice % 6)")
    switch step.fault {
    case .kill(let target):
      for host in targets(target) { kill(host) }
      return targets(target).map { .start($0) }
    case .killHost(let target):
      for host in targets(target) {
        expectAlive(host)
        pids[host] = nil
        killed.insert(host)
        _ = try cluster.dev("kill", host)
      }
      return targets(target).map { .start($0) }
    case .pause(let target):
      for host in targets(target) { _ = try cluster.dev("pause", host, "--manager") }
      return targets(target).map { .resume($0) }
    case .isolate: for other in others { _ = try cluster.dev("partition", leader, other) }
    case .mute: for other in others { _ = try cluster.dev("partition", leader, other, "--one-way") }
    case .deafen: for other in others { _ = try cluster.dev("partition", other, leader, "--one-way") }
    case .cut(let oneWay):
      let a = hosts[Int(step.choice % 3)]
      let b = hosts.filter { $0 != a }[Int(step.choice / 3 % 2)]
      _ = try cluster.dev(["partition", a, b] + (oneWay ? ["--one-way"] : []))
    case .fill(let target):
      for host in targets(target) {
        full.insert(host)
        _ = try cluster.dev("fill", host)
      }
      return targets(target).map { .free($0) }
    }
    return [.heal]
  }

  private func carryOut(_ undo: Undo) throws {
    note("\(undo)")
    let done: Outcome
    switch undo {
    case .resume(let host): done = try cluster.dev("resume", host)
    case .free(let host):
      done = try cluster.dev("fill", host, "--free")
      full.remove(host)
      if pids[host] == nil, !killed.contains(host) { try carryOut(.start(host)) }
    case .heal: done = try cluster.dev("heal")
    case .start(let host):
      expectAlive(host)
      done = try cluster.dev("start", host)
      killed.remove(host)
      // That it starts on a full disk is not asked of it: whoever supervises it tries again.
      if !full.contains(host) { pids[host] = pid(host) }
    }
    if done.code != 0 { note("  \(done)") }
  }

  private func kill(_ host: String) {
    expectAlive(host)
    pids[host] = nil
    killed.insert(host)
    _ = try? cluster.dev("kill", host, "--manager")
  }

  // MARK: - Who lives

  private func pid(_ host: String) -> Int32? {
    guard let text = try? String(contentsOfFile: "/run/orch/dev/\(cluster.name)/\(host)/orch-manager.pid", encoding: .utf8) else { return nil }
    return Int32(text.trimmingCharacters(in: .whitespacesAndNewlines))
  }

  /// Full disks and lost networks are no reason to end.
  func expectAlive(_ host: String) {
    guard let known = pids[host] else { return }
    let stat = (try? String(contentsOfFile: "/proc/\(known)/stat", encoding: .utf8)) ?? ""
    guard stat.isEmpty || stat.contains(") Z ") else { return }
    pids[host] = nil
    let log = (try? String(contentsOfFile: "/var/lib/orch/dev/\(cluster.name)/\(host)/log/orch-manager.log", encoding: .utf8)) ?? ""
    deaths.append("the manager on \(host) ended by itself:\n" + log.split(separator: "\n").suffix(5).joined(separator: "\n"))
    note(deaths.last!)
  }

  func expectAllAlive() { for host in hosts { expectAlive(host) } }

  /// As any manager tells that answers.
  var leader: String? {
    for host in hosts.shuffled() {
      guard case .answer(200, let body) = UnixHTTP.call(cluster.socketPath(host), "GET", "/nodes", seconds: 1),
        let nodes = try? JSONSerialization.jsonObject(with: body) as? [[String: Any]]
      else { continue }
      let leads = nodes.first { ($0["ManagerStatus"] as? [String: Any])?["Leader"] as? Bool == true }
      if let name = (leads?["Description"] as? [String: Any])?["Hostname"] as? String { return name }
    }
    return nil
  }
}
