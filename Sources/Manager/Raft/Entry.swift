import Model

/// A leader's reign; at most one leader in each. 0: before the first election.
public typealias Term = UInt64
/// Position in the log, from 1. 0: before the first entry.
public typealias LogIndex = UInt64

/// One line of the replicated log.
public struct Entry: Hashable, Sendable {
  public enum Kind: UInt8, Hashable, Sendable {
    /// What a client proposed; opaque here.
    case command = 0
    /// An encoded `ConfigurationChange`; whoever applies it hands it to `RaftCore.applyConfigurationChange`.
    case configuration = 1
    /// A leader's first entry of its term (Raft section 8); nothing to apply.
    case empty = 2
  }

  public var term: Term
  public var index: LogIndex
  public var kind: Kind
  public var data: [UInt8]

  public init(term: Term, index: LogIndex, kind: Kind = .command, data: [UInt8] = []) {
    self.term = term
    self.index = index
    self.kind = kind
    self.data = data
  }

  /// What it weighs in messages and caches, in bytes: data and a flat 24 for the rest.
  public var byteCount: Int { data.count + 24 }
}

/// What must be durable before a promise built on it leaves this host.
public struct HardState: Hashable, Sendable {
  public var term: Term
  public var vote: RaftID?
  /// May lag on disk, since it is found again from the leader; but it goes to the disk with every entry of kind `configuration`. Members
  /// count by the configuration that is applied, and nobody stands for election before it has applied what it knows to be committed: one
  /// that forgot could restart two configurations back.
  public var commit: LogIndex

  public init(term: Term = 0, vote: RaftID? = nil, commit: LogIndex = 0) {
    self.term = term
    self.vote = vote
    self.commit = commit
  }
}

public enum Role: Hashable, Sendable { case follower, preCandidate, candidate, leader }

/// What need not survive a restart.
public struct SoftState: Hashable, Sendable {
  public var role: Role
  public var leader: RaftID?
  public init(role: Role, leader: RaftID?) {
    self.role = role
    self.leader = leader
  }
}

/// Names a snapshot; its bytes are the shell's.
public struct SnapshotMetadata: Hashable, Sendable {
  /// The last entry whose effect it holds.
  public var index: LogIndex
  public var term: Term
  public var confState: ConfState

  public init(index: LogIndex = 0, term: Term = 0, confState: ConfState = ConfState()) {
    self.index = index
    self.term = term
    self.confState = confState
  }
}

/// Entries from `firstIndex` until the next start have this term.
public struct TermStart: Hashable, Sendable {
  public var term: Term
  public var firstIndex: LogIndex
  public init(term: Term, firstIndex: LogIndex) {
    self.term = term
    self.firstIndex = firstIndex
  }
}

/// The durable log, asked for what the core no longer keeps in memory. Called synchronously from within `ready`.
public protocol LogReader: Sendable {
  /// Entries first...last, fewer if they exceed `maxBytes` (at least one). Empty: not readable now; the core asks again later.
  func entries(first: LogIndex, last: LogIndex, maxBytes: Int) -> [Entry]
  /// A snapshot the shell could send now, at or after the point the log was compacted to; nil: none yet, ask later.
  func snapshot() -> SnapshotMetadata?
}
