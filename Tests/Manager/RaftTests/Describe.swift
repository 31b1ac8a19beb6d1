import Model

@testable import Raft

// How transcripts write things: entries as term/index, members in parentheses.

func describe(_ entry: Entry) -> String {
  let position = "\(entry.term)/\(entry.index)"
  switch entry.kind {
  case .empty: return position + " empty"
  case .configuration: return position + " conf " + (ConfigurationChange(decoding: entry.data).map(describe) ?? "?")
  case .command: return position + " \"" + (entry.data.count > 20 ? "\(entry.data.count) bytes" : String(decoding: entry.data, as: UTF8.self)) + "\""
  }
}

func describe(_ change: ConfigurationChange) -> String {
  if change.changes.isEmpty { return "leave-joint" }
  return change.changes.map { change in
    switch change {
    case .addVoter(let id): "v\(id)"
    case .addLearner(let id): "l\(id)"
    case .remove(let id): "r\(id)"
    }
  }.joined(separator: " ")
}

func describe(_ conf: ConfState) -> String {
  func list(_ ids: [RaftID]) -> String { "(" + ids.map(\.description).joined(separator: " ") + ")" }
  var text = "voters=" + list(conf.voters)
  if conf.isJoint { text += "&&" + list(conf.votersOutgoing) }
  if !conf.learners.isEmpty { text += " learners=" + list(conf.learners) }
  if !conf.learnersNext.isEmpty { text += " learners-next=" + list(conf.learnersNext) }
  return text + (conf.autoLeave ? " auto-leave" : "")
}

func describe(_ message: Message) -> String {
  let head = "\(message.from)->\(message.to) term=\(message.term) "
  func votes(_ request: Message.VoteRequest) -> String { "last=\(request.lastTerm)/\(request.lastIndex)" + (request.isTransfer ? " transfer" : "") }
  func answer(_ response: Message.VoteResponse) -> String {
    switch response {
    case .granted: "granted"
    case .refused(let commit, let term): "refused commit=\(term)/\(commit)"
    }
  }
  switch message.body {
  case .preVote(let request): return head + "pre-vote " + votes(request)
  case .vote(let request): return head + "vote " + votes(request)
  case .preVoteResponse(let response): return head + "pre-vote " + answer(response)
  case .voteResponse(let response): return head + "vote " + answer(response)
  case .append(let append):
    return head + "append after \(append.previousTerm)/\(append.previousIndex) commit=\(append.commit)"
      + (append.entries.isEmpty ? "" : " [" + append.entries.map(describe).joined(separator: ", ") + "]")
  case .appended(let index): return head + "appended up to \(index)"
  case .appendRejected(let rejection): return head + "rejected \(rejection.index) hint=\(rejection.hintTerm)/\(rejection.hintIndex)"
  case .heartbeat(let commit, let round): return head + "heartbeat commit=\(commit) round=\(round)"
  case .heartbeatResponse(let round): return head + "heartbeat response round=\(round)"
  case .snapshot(let snapshot): return head + "snapshot \(snapshot.term)/\(snapshot.index) " + describe(snapshot.confState)
  case .timeoutNow: return head + "timeout now"
  case .readIndex(let context): return head + "read index context=\(context)"
  case .readIndexResponse(let index, let context): return head + "read index response index=\(index) context=\(context)"
  }
}

func describe(_ ready: Ready) -> [String] {
  var lines: [String] = []
  if let soft = ready.softState { lines.append("\(soft.role) leader=\(soft.leader?.description ?? "-")") }
  if let snapshot = ready.snapshot { lines.append("install snapshot \(snapshot.term)/\(snapshot.index) " + describe(snapshot.confState)) }
  if let hard = ready.hardState {
    lines.append("write term=\(hard.term) vote=\(hard.vote?.description ?? "-") commit=\(hard.commit)" + (ready.mustSync ? "" : " (no sync)"))
  }
  if !ready.entries.isEmpty { lines.append("write " + ready.entries.map(describe).joined(separator: ", ")) }
  lines += ready.messages.map { "send " + describe($0) }
  lines += ready.messagesAfterPersistence.map { "then " + describe($0) }
  if !ready.committedEntries.isEmpty { lines.append("apply " + ready.committedEntries.map(describe).joined(separator: ", ")) }
  lines += ready.readStates.map { "read context=\($0.context) at index \($0.index)" }
  return lines
}
