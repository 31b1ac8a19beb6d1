import Model

@testable import Raft

/// Reads commands, drives a world of cores, writes down all they say. The manner is that of etcd-io/raft's interaction tests.
/// Hosts are processed in the order of their ids; messages arrive in the order they were sent.
struct Transcript {
  var hosts: [RaftID: Host] = [:]
  var configs: [RaftID: RaftConfig] = [:]
  var network: [Message] = []
  /// Kept back by `hold`, until `release`.
  var held: [Message] = []
  /// Where a member was reached before it was wiped: messages to its old id arrive at the new one.
  var moved: [RaftID: RaftID] = [:]
  /// Their committed entries stay handed out until `apply`.
  var slowToApply: Set<RaftID> = []
  /// Whether the shell tells how the sending of a snapshot ended.
  var reportsSnapshots = true
  /// What is said goes unwritten: for what only leads to the situation.
  var isQuiet = false
  /// Their messages, in both directions, are lost.
  var isolated: Set<RaftID> = []
  /// Their writes stay under way until `persist`.
  private var slow: Set<RaftID> = []
  var output: [String] = []

  /// The whole file again, with what the commands answered this time.
  static func run(_ text: String) -> String {
    var world = Transcript()
    var result: [String] = []
    var isExpectation = false
    for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
      if line == "----" {
        isExpectation = true
      } else if isExpectation {
        isExpectation = !line.isEmpty
      } else if !line.isEmpty || result.last != "" {
        result.append(line)
        if !line.isEmpty, !line.hasPrefix("#") {
          world.output = []
          world.execute(line)
          result.append("----")
          result += world.output.isEmpty || world.isQuiet ? ["ok"] : world.output
          result.append("")
        }
      }
    }
    while result.last == "" { result.removeLast() }
    return result.joined(separator: "\n") + "\n"
  }

  private mutating func execute(_ line: String) {
    let words = line.split(separator: " ").map(String.init)
    let plain = words.dropFirst().filter { !$0.contains("=") }
    let options = Dictionary(
      words.filter { $0.contains("=") }.map { word in
        let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
        return (parts[0], parts.count > 1 ? parts[1] : "")
      }, uniquingKeysWith: { $1 })
    let ids = plain.compactMap { UInt64($0).map(RaftID.init) }
    do throws(RaftError) {
      switch words[0] {
      case "add-nodes": addNodes(Int(ids[0].rawValue), options)
      case "add-node": add(ids[0], options, Disk())
      case "campaign": hosts[ids[0]]!.core.campaign()
      case "tick": for _ in 0..<(ids.count > 1 ? Int(ids[1].rawValue) : 1) { hosts[ids[0]]!.core.tick() }
      case "tick-election": for _ in 0..<hosts[ids[0]]!.core.electionTimeout { hosts[ids[0]]!.core.tick() }
      case "tick-to-brink": while hosts[ids[0]]!.core.electionElapsed < hosts[ids[0]]!.core.electionTimeout - 1 { hosts[ids[0]]!.core.tick() }
      case "tick-heartbeat": for _ in 0..<configs[ids[0]]!.heartbeatTicks { hosts[ids[0]]!.core.tick() }
      case "propose":
        let data = plain.dropFirst().map { Array($0.utf8) } + (options["bytes"].map { [[UInt8](repeating: 120, count: Int($0)!)] } ?? [])
        let position = try hosts[ids[0]]!.core.propose(data)
        output.append("proposed term=\(position.term) \(position.first)...\(position.last)")
      case "propose-conf":
        let change = parse(Array(plain.dropFirst()), options["transition"])
        let position = try hosts[ids[0]]!.core.proposeConfigurationChange(change)
        output.append("proposed term=\(position.term) \(position.first)...\(position.last)")
      case "transfer-leadership": try hosts[ids[0]]!.core.transferLeadership(to: RaftID(UInt64(options["to"]!)!))
      case "read-index": try hosts[ids[0]]!.core.readIndex(context: ids[1].rawValue, mode: plain.contains("lease") ? .lease : .quorum)
      case "process-ready": for id in ids { processReady(id) }
      case "persist": for id in ids { persist(id) }
      case "slow-disk": slow.formUnion(ids)
      case "fast-disk": slow.subtract(ids)
      case "slow-apply": slowToApply.formUnion(ids)
      case "fast-apply": slowToApply.subtract(ids)
      case "apply": for id in ids { apply(id) }
      case "hold": hold(from: ids[0], to: ids[1])
      case "release":
        network += held
        held = []
      case "quiet": isQuiet = true
      case "loud": isQuiet = false
      case "reports": reportsSnapshots = plain.contains("on")
      case "send-snapshot": sendSnapshot(from: ids[0], to: ids[1])
      case "wipe": wipe(ids[0], as: options["as"].map { RaftID(UInt64($0)!) })
      case "deliver-msgs": for id in ids { deliver(to: id, from: options["from"].map { RaftID(UInt64($0)!) }, dropped: words.contains("drop")) }
      case "stabilize": stabilize(ids.isEmpty ? hosts.keys.sorted() : ids)
      case "isolate": isolated.formUnion(ids)
      case "heal": isolated = []
      case "restart": hosts[ids[0]]!.restart(config: configs[ids[0]]!, surviving: Int(options["surviving"] ?? "0")!)
      case "compact":
        hosts[ids[0]]!.reader.disk.compact(upTo: ids[1].rawValue)
        hosts[ids[0]]!.core.compact(upTo: ids[1].rawValue)
      case "report-snapshot": hosts[ids[0]]!.core.reportSnapshot(ids[1], succeeded: !words.contains("failed"))
      case "report-unreachable": hosts[ids[0]]!.core.reportUnreachable(ids[1])
      case "status": showStatus(ids[0])
      case "raft-log": output.append(hosts[ids[0]]!.reader.disk.entries.map(describe).joined(separator: ", "))
      default: output.append("unknown command")
      }
    } catch {
      output.append("error: \(error)")
    }
  }

  /// add-nodes 3 [learners=N: that many of the last ones] [prevote=] [checkquorum=] [lease=] [uncommitted=BYTES] [inflight=MESSAGES]
  /// [inflight-bytes=BYTES] [message=BYTES] [cache=BYTES] [reads=N]
  private mutating func addNodes(_ count: Int, _ options: [String: String]) {
    let ids = (1...UInt64(count)).map(RaftID.init)
    let learners = Int(options["learners"] ?? "0")!
    let conf = ConfState(voters: Array(ids.dropLast(learners)), learners: Array(ids.suffix(learners)))
    moved = [:]
    for id in ids { add(id, options, Disk(confState: conf)) }
  }

  /// [log=1,1,2: the terms of entries that are already there] [conf=INDEX:CHANGE: what one of them is] [term=] [voters=N]
  private mutating func add(_ id: RaftID, _ options: [String: String], _ disk: Disk) {
    var disk = disk
    if let voters = options["voters"] { disk.confState = ConfState(voters: (1...UInt64(voters)!).map(RaftID.init)) }
    if let terms = options["log"] {
      disk.entries = terms.split(separator: ",").enumerated().map {
        Entry(term: Term($1)!, index: LogIndex($0 + 1), data: Array("x".utf8))
      }
      if let parts = options["conf"]?.split(separator: ":"), let index = Int(parts[0]) {
        disk.entries[index - 1].kind = .configuration
        disk.entries[index - 1].data = parse([String(parts[1])], nil).encoded
      }
      disk.hardState.term = options["term"].map { Term($0)! } ?? disk.entries.last?.term ?? 0
    }
    let config = RaftConfig(
      id: id, electionTicks: 5, heartbeatTicks: 1, preVote: options["prevote"] == "true", checkQuorum: options["checkquorum"] == "true",
      leaseReads: options["lease"] == "true", tellsCommitsLate: options["late"] == "true", maxMessageBytes: Int(options["message"] ?? "1000000")!,
      maxInflightMessages: Int(options["inflight"] ?? "256")!,
      maxInflightBytes: Int(options["inflight-bytes"] ?? "1000000")!, maxUncommittedBytes: Int(options["uncommitted"] ?? "1000000")!,
      maxCachedBytes: Int(options["cache"] ?? "1000000")!, maxPendingReads: Int(options["reads"] ?? "100")!, seed: id.rawValue)
    configs[id] = config
    hosts[id] = Host(config: config, disk: disk)
  }

  private func parse(_ words: [String], _ transition: String?) -> ConfigurationChange {
    let changes: [ConfigurationChange.Change] = words.compactMap { word in
      guard let number = UInt64(word.dropFirst()) else { return nil }
      switch word.first {
      case "v": return .addVoter(RaftID(number))
      case "l": return .addLearner(RaftID(number))
      case "r": return .remove(RaftID(number))
      default: return nil
      }
    }
    return ConfigurationChange(
      changes, transition: transition == "explicit" ? .jointExplicit : transition == "implicit" ? .jointImplicit : .auto)
  }

  private mutating func processReady(_ id: RaftID) {
    guard hosts[id]?.core.hasReady == true else { return }
    let ready = hosts[id]!.core.ready()
    output.append("\(id) ready")
    output += describe(ready).map { "  " + $0 }
    network += ready.messages
    hosts[id]!.writes.append(ready)
    hosts[id]!.handedOut += ready.committedEntries
    if !slowToApply.contains(id) { apply(id) }
    if !slow.contains(id) { while !hosts[id]!.writes.isEmpty { network += hosts[id]!.persistNext() } }
  }

  private mutating func persist(_ id: RaftID) {
    guard !hosts[id]!.writes.isEmpty else { return }
    let messages = hosts[id]!.persistNext()
    output += ["\(id) persisted"] + messages.map { "  send " + describe($0) }
    network += messages
  }

  /// Whatever it was handed.
  private mutating func apply(_ id: RaftID) {
    let entries = hosts[id]!.handedOut
    hosts[id]!.handedOut = []
    for result in hosts[id]!.apply(entries) {
      switch result {
      case .success(let conf): output.append("  now " + describe(conf))
      case .failure(let error): output.append("  no effect: \(error)")
      }
    }
  }

  private mutating func stabilize(_ ids: [RaftID]) {
    for _ in 0..<200 {
      var isQuiet = true
      for id in ids where hosts[id]?.core.hasReady == true {
        isQuiet = false
        processReady(id)
      }
      for id in ids where network.contains(where: { place($0.to) == id }) {
        isQuiet = false
        deliver(to: id, from: nil, dropped: false)
      }
      if isQuiet { return }
    }
    output.append("never stable")
  }

  private mutating func showStatus(_ id: RaftID) {
    let status = hosts[id]!.core.status
    output.append(
      "\(id) \(status.role) term=\(status.term) leader=\(status.leader?.description ?? "-") commit=\(status.commit) applied=\(status.applied) "
        + "last=\(status.lastIndex) " + describe(status.confState))
    for peer in status.peers {
      output.append(
        "  \(peer.id): \(peer.replication) match=\(peer.match) next=\(peer.next)" + (peer.isRecentlyActive ? "" : " inactive")
          + (peer.isLearner ? " learner" : ""))
    }
  }
}
