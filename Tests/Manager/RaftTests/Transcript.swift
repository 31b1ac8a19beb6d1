import Model

@testable import Raft

/// Reads commands, drives a world of cores, writes down all they say. The manner is that of etcd-io/raft's interaction tests.
/// Hosts are processed in the order of their ids; messages arrive in the order they were sent.
struct Transcript {
  private var hosts: [RaftID: Host] = [:]
  private var configs: [RaftID: RaftConfig] = [:]
  private var network: [Message] = []
  /// Their messages, in both directions, are lost.
  private var isolated: Set<RaftID> = []
  /// Their writes stay under way until `persist`.
  private var slow: Set<RaftID> = []
  private var output: [String] = []

  /// The whole file again, with what the commands answered this time.
  static func run(_ text: String) -> String {
    var world = Transcript()
    var result: [String] = []
    var isExpectation = false
    for line in text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
      if line == "----" {
        isExpectation = true
      } else if isExpectation {
        if line.isEmpty {
          isExpectation = false
          result.append("")
        }
      } else {
        result.append(line)
        if !line.isEmpty, !line.hasPrefix("#") {
          world.output = []
          world.execute(line)
          result.append("----")
          result += world.output.isEmpty ? ["ok"] : world.output
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
      case "process-ready": processReady(ids[0])
      case "persist": persist(ids[0])
      case "slow-disk": slow.insert(ids[0])
      case "fast-disk": slow.remove(ids[0])
      case "deliver-msgs": deliver(to: ids[0], dropped: words.contains("drop"))
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

  /// add-nodes 3 [learners=N: that many of the last ones] [prevote=] [checkquorum=] [uncommitted=BYTES] [inflight=MESSAGES] [message=BYTES]
  private mutating func addNodes(_ count: Int, _ options: [String: String]) {
    let ids = (1...UInt64(count)).map(RaftID.init)
    let learners = Int(options["learners"] ?? "0")!
    let conf = ConfState(voters: Array(ids.dropLast(learners)), learners: Array(ids.suffix(learners)))
    for id in ids { add(id, options, Disk(confState: conf)) }
  }

  /// [log=1,1,2: the terms of entries that are already there] [term=] [voters=N]
  private mutating func add(_ id: RaftID, _ options: [String: String], _ disk: Disk) {
    var disk = disk
    if let voters = options["voters"] { disk.confState = ConfState(voters: (1...UInt64(voters)!).map(RaftID.init)) }
    if let terms = options["log"] {
      disk.entries = terms.split(separator: ",").enumerated().map {
        Entry(term: Term($1)!, index: LogIndex($0 + 1), data: Array("x".utf8))
      }
      disk.hardState.term = options["term"].map { Term($0)! } ?? disk.entries.last?.term ?? 0
    }
    let config = RaftConfig(
      id: id, electionTicks: 5, heartbeatTicks: 1, preVote: options["prevote"] == "true", checkQuorum: options["checkquorum"] == "true",
      maxMessageBytes: Int(options["message"] ?? "1000000")!, maxInflightMessages: Int(options["inflight"] ?? "256")!,
      maxUncommittedBytes: Int(options["uncommitted"] ?? "1000000")!, maxCachedBytes: Int(options["cache"] ?? "1000000")!, seed: id.rawValue)
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
    guard hosts[id]!.core.hasReady else { return }
    let ready = hosts[id]!.core.ready()
    output.append("\(id) ready")
    output += describe(ready).map { "  " + $0 }
    network += ready.messages
    hosts[id]!.writes.append(ready)
    do throws(RaftError) {
      output += try hosts[id]!.apply(ready.committedEntries).map { "  now " + describe($0) }
    } catch {
      output.append("error: \(error)")
    }
    if !slow.contains(id) { while !hosts[id]!.writes.isEmpty { network += hosts[id]!.persistNext() } }
  }

  private mutating func persist(_ id: RaftID) {
    guard !hosts[id]!.writes.isEmpty else { return }
    let messages = hosts[id]!.persistNext()
    output += ["\(id) persisted"] + messages.map { "  send " + describe($0) }
    network += messages
  }

  private mutating func deliver(to id: RaftID, dropped: Bool) {
    let arriving = network.filter { $0.to == id }
    network.removeAll { $0.to == id }
    for message in arriving {
      let isSnapshot = if case .snapshot = message.body { true } else { false }
      if dropped || isolated.contains(message.from) || isolated.contains(id) || hosts[id] == nil {
        output.append("lost: " + describe(message))
        if isSnapshot { hosts[message.from]!.core.reportSnapshot(id, succeeded: false) }
        continue
      }
      do throws(RaftError) {
        try hosts[id]!.core.step(message)
      } catch {
        output.append("\(id) error: \(error)")
      }
      if isSnapshot { hosts[message.from]!.core.reportSnapshot(id, succeeded: true) }
    }
  }

  private mutating func stabilize(_ ids: [RaftID]) {
    for _ in 0..<200 {
      var isQuiet = true
      for id in ids where hosts[id]!.core.hasReady {
        isQuiet = false
        processReady(id)
      }
      for id in ids where network.contains(where: { $0.to == id }) {
        isQuiet = false
        deliver(to: id, dropped: false)
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
