import Model

@testable import Raft

/// What is between the hosts, and what can become of one.
extension Transcript {
  /// What is on its way between the two is late.
  mutating func hold(from: RaftID, to: RaftID) {
    var others: [Message] = []
    for message in network { if message.from == from, message.to == to { held.append(message) } else { others.append(message) } }
    network = others
  }

  /// Who lives now where this member was.
  func place(_ id: RaftID) -> RaftID { moved[id] ?? id }

  /// Without `from`: from everyone.
  mutating func deliver(to id: RaftID, from sender: RaftID?, dropped: Bool) {
    var (arriving, others): ([Message], [Message]) = ([], [])
    for message in network {
      if place(message.to) == id, sender == nil || message.from == sender { arriving.append(message) } else { others.append(message) }
    }
    network = others
    for message in arriving {
      let isSnapshot = if case .snapshot = message.body { reportsSnapshots } else { false }
      if dropped || isolated.contains(message.from) || isolated.contains(id) || hosts[id] == nil {
        output.append("lost: " + describe(message))
        if isSnapshot { hosts[message.from]!.core.reportSnapshot(message.to, succeeded: false) }
        continue
      }
      if message.to != id { output.append("\(id) is not meant: " + describe(message)) }
      do throws(RaftError) {
        try hosts[id]!.core.step(message)
      } catch {
        output.append("\(id) error: \(error)")
      }
      if isSnapshot { hosts[message.from]?.core.reportSnapshot(message.to, succeeded: true) }
    }
  }

  /// The shell's own idea, not Raft's.
  mutating func sendSnapshot(from id: RaftID, to peer: RaftID) {
    guard let host = hosts[id], let snapshot = host.reader.snapshot() else { return }
    let message = Message(from: id, to: peer, term: host.core.term, body: .snapshot(snapshot))
    output.append("send " + describe(message))
    network.append(message)
  }

  /// Its disk is empty. `new`: it asked to join again and was given another id.
  mutating func wipe(_ id: RaftID, as new: RaftID?) {
    hosts[id] = nil
    let name = new ?? id
    var config = configs[id]!
    config.id = name
    configs[name] = config
    hosts[name] = Host(config: config, disk: Disk())
    if let new { moved[id] = new }
  }
}
