/// A fault that is planted to see whether it is found. None of them is in the product: disks, wires and outputs of the cores are changed
/// on their way, or a core's memory is, in a build with -DPLANTED.
enum Fault: String, CaseIterable {
  // Consensus
  case voteNotWritten, termNotWritten, secondVote, voteForShorterLog
  case olderTermCommittedByCounting, commitBeforeQuorum, heartbeatCommitsUnknown
  case acknowledgedBeforeSync, failedSyncIgnored, damagedTailCut, writeAheadLogCut, checksumIgnored, tailNotCut
  case appendWithoutMatch, learnerCounted, wipedMemberVotes, staleRead, readFromFollower, answeredBeforeCommit
  case leaseTooLong, leaseDespitePauses
  case inflightLimitForgotten
  // Store
  case appliedIndexLags, slicesKept, snapshotOfOlderState, snapshotWithoutMembership, entrySkipped, versionCheckSkipped
  // Orchestration
  case addressReused, portReused, decisionsOverlap, placedTwice, changeDropped, stateGoesBack, managerWritesAgentsState
  // Agents
  case drainNotAwaited, brokenSessionNotAwaited, drainNotInherited, containerStartedAgain, reportLost, stopForgotten, silentNodeKept,
    sessionUnconfirmed, restNotAwaited,
    networkReused, appliedBeforeKept, unhealthyServes

  var meaning: String {
    switch self {
    case .voteNotWritten: "a vote is not written with its term"
    case .termNotWritten: "the term is not written"
    case .secondVote: "a member forgets whom it voted for in the term"
    case .voteForShorterLog: "a vote for a candidate whose log is behind"
    case .olderTermCommittedByCounting: "a leader commits an entry of an older term by counting its copies"
    case .commitBeforeQuorum: "a leader commits what only itself has"
    case .heartbeatCommitsUnknown: "a heartbeat tells the leader's commit index, beyond what the follower is known to have"
    case .acknowledgedBeforeSync: "a write is said to be durable before its fsync"
    case .failedSyncIgnored: "a failed fsync is taken for a success"
    case .damagedTailCut: "the log is silently cut at a damaged entry"
    case .writeAheadLogCut: "the write-ahead log is taken to end at a damaged frame"
    case .checksumIgnored: "checksums of entries are not verified"
    case .tailNotCut: "conflicting entries after the new ones stay in the log"
    case .appendWithoutMatch: "a follower takes entries without looking whether the one before matches"
    case .learnerCounted: "learners count as voters"
    case .wipedMemberVotes: "a wiped member comes back with an empty log under its old id"
    case .staleRead: "whoever believes to lead answers reads at once"
    case .readFromFollower: "every manager answers reads from its own state"
    case .leaseTooLong: "a leader trusts its lease for as long as it believes to lead"
    case .leaseDespitePauses: "leases are used where managers' processes stand still"
    case .answeredBeforeCommit: "a proposal is answered when it is appended"
    case .inflightLimitForgotten: "no bound on what is on its way to one follower"
    case .appliedIndexLags: "the applied index is written behind the rows: an entry is applied twice after a crash"
    case .slicesKept: "a start leaves rows of a flush that did not become whole"
    case .snapshotOfOlderState: "a snapshot claims a newer index than its state has"
    case .snapshotWithoutMembership: "a snapshot comes with the members of the first day"
    case .entrySkipped: "a restart skips an entry that was not applied"
    case .versionCheckSkipped: "conditions on versions are dropped"
    case .addressReused: "the allocator forgets which addresses tasks hold"
    case .portReused: "the allocator forgets which ports services hold"
    case .decisionsOverlap: "a second decision is made while the first is under way"
    case .placedTwice: "a slot gets two tasks at once"
    case .changeDropped: "the leader misses one change in fifty"
    case .stateGoesBack: "a report of an earlier state replaces a later one"
    case .managerWritesAgentsState: "the manager says of tasks on a lost node that they failed"
    case .drainNotAwaited: "a task is stopped before others were told not to call it"
    case .drainNotInherited: "a new leader does not wait for those who live by its predecessor's word"
    case .brokenSessionNotAwaited: "a host whose session broke counts as having been told"
    case .containerStartedAgain: "a restarted agent starts its tasks' containers again"
    case .reportLost: "one report in ten is lost between session and state"
    case .stopForgotten: "an agent forgets one stop in five"
    case .silentNodeKept: "a silent node is never said to be down"
    case .restNotAwaited: "an address that became free is given again at once"
    case .networkReused: "a removed network's VNI and subnet are given again at once"
    case .appliedBeforeKept: "an agent says that it lives by assignments which its disk does not keep yet"
    case .unhealthyServes: "hosts are told that an unhealthy task serves"
    case .sessionUnconfirmed: "whoever believes to lead tells a new session everything at once"
    }
  }
}
