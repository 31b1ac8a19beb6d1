import Foundation
import Model
import Raft
import Store
import Wire

// Raft's values <-> protobuf. What comes from outside is checked here.

extension WireRaftBatch {
  public init(_ messages: [Raft.Message], from address: String = "") {
    self.init()
    self.messages = messages.map(WireRaftMessage.init)
    senderAddress = address
  }
}

extension WireRaftMessage {
  public init(_ message: Raft.Message) {
    self.init()
    from = message.from.rawValue
    to = message.to.rawValue
    term = message.term
    body =
      switch message.body {
      case .preVote(let request): .preVote(WireRaftVoteRequest(request))
      case .preVoteResponse(let response): .preVoteResponse(WireRaftVoteResponse(response))
      case .vote(let request): .vote(WireRaftVoteRequest(request))
      case .voteResponse(let response): .voteResponse(WireRaftVoteResponse(response))
      case .append(let append): .append(WireRaftAppend(append))
      case .appended(let index): .appended(index)
      case .appendRejected(let rejection): .appendRejected(WireRaftAppendRejection(rejection))
      case .heartbeat(let commit, let round):
        .heartbeat(
          .with {
            $0.commit = commit
            $0.round = round
          })
      case .heartbeatResponse(let round): .heartbeatResponse(round)
      case .snapshot(let metadata): .snapshot(WireRaftSnapshotMetadata(metadata))
      case .timeoutNow: .timeoutNow(true)
      case .readIndex(let context): .readIndex(context)
      case .readIndexResponse(let index, let context):
        .readIndexResponse(
          .with {
            $0.index = index
            $0.context = context
          })
      }
  }

  public func model() throws(WireError) -> Raft.Message {
    guard from != 0, to != 0 else { throw WireError("a Raft message without sender or receiver") }
    let body: Raft.Message.Body =
      switch self.body {
      case .preVote(let request): .preVote(request.model)
      case .preVoteResponse(let response): .preVoteResponse(response.model)
      case .vote(let request): .vote(request.model)
      case .voteResponse(let response): .voteResponse(response.model)
      case .append(let append): .append(try append.model())
      case .appended(let index): .appended(upTo: index)
      case .appendRejected(let rejection):
        .appendRejected(.init(index: rejection.index, hintIndex: rejection.hintIndex, hintTerm: rejection.hintTerm))
      case .heartbeat(let heartbeat): .heartbeat(commit: heartbeat.commit, round: heartbeat.round)
      case .heartbeatResponse(let round): .heartbeatResponse(round: round)
      case .snapshot(let metadata): .snapshot(metadata.model)
      case .timeoutNow: .timeoutNow
      case .readIndex(let context): .readIndex(context: context)
      case .readIndexResponse(let answer): .readIndexResponse(index: answer.index, context: answer.context)
      case nil: throw WireError("a Raft message of unknown kind")
      }
    return Raft.Message(from: RaftID(from), to: RaftID(to), term: term, body: body)
  }
}

extension WireRaftVoteRequest {
  init(_ request: Raft.Message.VoteRequest) {
    self.init()
    lastIndex = request.lastIndex
    lastTerm = request.lastTerm
    isTransfer = request.isTransfer
  }
  var model: Raft.Message.VoteRequest { .init(lastIndex: lastIndex, lastTerm: lastTerm, isTransfer: isTransfer) }
}

extension WireRaftVoteResponse {
  init(_ response: Raft.Message.VoteResponse) {
    self.init()
    switch response {
    case .granted: granted = true
    case .refused(let index, let term):
      commit = index
      commitTerm = term
    }
  }
  var model: Raft.Message.VoteResponse { granted ? .granted : .refused(commit: commit, commitTerm: commitTerm) }
}

extension WireRaftAppend {
  init(_ append: Raft.Message.Append) {
    self.init()
    previousIndex = append.previousIndex
    previousTerm = append.previousTerm
    commit = append.commit
    entries = append.entries.map { entry in
      .with {
        $0.term = entry.term
        $0.index = entry.index
        $0.kind = UInt32(entry.kind.rawValue)
        $0.data = Data(entry.data)
      }
    }
  }
  func model() throws(WireError) -> Raft.Message.Append {
    var result: [Entry] = []
    result.reserveCapacity(entries.count)
    for entry in entries {
      guard let kind = UInt8(exactly: entry.kind).flatMap(Entry.Kind.init) else { throw WireError("a Raft entry of kind \(entry.kind)") }
      guard entry.index == previousIndex &+ 1 &+ UInt64(result.count) else { throw WireError("entries with a gap at \(entry.index)") }
      result.append(Entry(term: entry.term, index: entry.index, kind: kind, data: Array(entry.data)))
    }
    return .init(previousIndex: previousIndex, previousTerm: previousTerm, commit: commit, entries: result)
  }
}

extension WireRaftAppendRejection {
  init(_ rejection: Raft.Message.AppendRejection) {
    self.init()
    index = rejection.index
    hintIndex = rejection.hintIndex
    hintTerm = rejection.hintTerm
  }
}

extension WireRaftSnapshotMetadata {
  init(_ metadata: SnapshotMetadata) {
    self.init()
    index = metadata.index
    term = metadata.term
    configuration = .with {
      $0.voters = metadata.confState.voters.map(\.rawValue)
      $0.votersOutgoing = metadata.confState.votersOutgoing.map(\.rawValue)
      $0.learners = metadata.confState.learners.map(\.rawValue)
      $0.learnersNext = metadata.confState.learnersNext.map(\.rawValue)
      $0.autoLeave = metadata.confState.autoLeave
    }
  }
  var model: SnapshotMetadata {
    SnapshotMetadata(
      index: index, term: term,
      confState: ConfState(
        voters: configuration.voters.map(RaftID.init), votersOutgoing: configuration.votersOutgoing.map(RaftID.init),
        learners: configuration.learners.map(RaftID.init), learnersNext: configuration.learnersNext.map(RaftID.init),
        autoLeave: configuration.autoLeave))
  }
}

extension WireRaftMember {
  init(_ member: Membership.Member) {
    self.init()
    raftID = member.raftID.rawValue
    node = member.node?.data ?? Data()
    address = member.address
    role = member.role.rawValue
    outgoing = member.isOutgoingVoter
  }
  func model() throws(WireError) -> Membership.Member {
    guard let role = Membership.Role(rawValue: role) else { throw WireError("a member in the role \(role)") }
    guard raftID != 0 else { throw WireError("a member without Raft id") }
    var member = Membership.Member(raftID: RaftID(raftID), node: node.isEmpty ? nil : try NodeID(wire: node), address: address, role: role)
    member.isOutgoingVoter = outgoing
    return member
  }
}
