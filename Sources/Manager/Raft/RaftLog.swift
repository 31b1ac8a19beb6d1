import DequeModule

/// The log as the core sees it: a tail of entries in memory, the term of every entry that exists, and how far it is
/// handed out, durable, committed and applied. compacted <= applied <= applying <= min(stable, committed); stable <= handedOut <= last.
struct RaftLog: Sendable {
  /// What one `Ready` made somebody write.
  struct Write: Sendable {
    var number: UInt64
    /// The last index that is durable once the write is; lowered when the log is truncated behind it meanwhile.
    var last: LogIndex
    var term: Term
    var votedForItself: Bool
    var snapshotIndex: LogIndex?
  }

  private var cache: Deque<Entry>
  /// Index of the first cached entry; one beyond the last entry when the cache is empty.
  private var cacheFirst: LogIndex
  private var cachedBytes = 0
  private let maxCachedBytes: Int
  let reader: any LogReader

  private(set) var compactedIndex: LogIndex
  private(set) var compactedTerm: Term
  /// A term for every run of entries: a log has few terms, so any entry's term is found without reading it.
  private var starts: [TermStart]

  private(set) var committed: LogIndex
  private(set) var applying: LogIndex
  private(set) var applied: LogIndex
  private(set) var handedOut: LogIndex
  private(set) var stable: LogIndex
  private(set) var writes: Deque<Write> = []
  /// Restored, not handed out yet.
  private(set) var snapshotToHandOut: SnapshotMetadata?
  /// Restored, not durable yet.
  private(set) var pendingSnapshotIndex: LogIndex?

  init(stored: StoredState, reader: any LogReader, maxCachedBytes: Int) {
    self.reader = reader
    self.maxCachedBytes = maxCachedBytes
    compactedIndex = stored.compactedIndex
    compactedTerm = stored.compactedTerm
    starts = stored.earlierTerms
    cache = []
    let first = stored.entries.first?.index ?? stored.compactedIndex + 1
    cacheFirst = first
    let last = first + LogIndex(stored.entries.count) - 1
    let applied = max(stored.applied, stored.compactedIndex)
    let committed = max(stored.hardState.commit, applied)
    self.applied = applied
    self.committed = committed
    applying = applied
    handedOut = last
    stable = last
    precondition(stored.compactedIndex < first, "stored entries begin before the point that the log was compacted to")
    precondition(
      first == stored.compactedIndex + 1 || stored.earlierTerms.first?.firstIndex == stored.compactedIndex + 1,
      "stored entries begin at \(first), the log was compacted to \(stored.compactedIndex), and earlierTerms does not say what lies between")
    precondition(committed <= last, "commit index \(committed) is beyond the last stored entry \(last)")
    precondition(first <= applied + 1, "stored entries begin at \(first), after the first one to apply, \(applied + 1)")
    cache.reserveCapacity(stored.entries.count)
    for entry in stored.entries { push(entry) }
    evict()
  }

  var lastIndex: LogIndex { cacheFirst + LogIndex(cache.count) - 1 }
  func isCached(_ index: LogIndex) -> Bool { index >= cacheFirst }
  var lastTerm: Term { starts.last?.term ?? compactedTerm }

  /// Nil: compacted away or beyond the end. Never reads storage.
  func term(at index: LogIndex) -> Term? {
    if index == compactedIndex { return compactedTerm }
    guard index > compactedIndex, index <= lastIndex else { return nil }
    return starts[run(of: index)].term
  }

  /// Position in `starts` of the run that holds the index.
  private func run(of index: LogIndex) -> Int {
    if let last = starts.last, last.firstIndex <= index { return starts.count - 1 }
    var (low, high) = (0, starts.count - 1)
    while low < high {
      let middle = (low + high + 1) / 2
      if starts[middle].firstIndex <= index { low = middle } else { high = middle - 1 }
    }
    return low
  }

  func matches(index: LogIndex, term: Term) -> Bool { self.term(at: index) == term }

  /// Raft section 5.4.1.
  func isUpToDate(lastIndex: LogIndex, lastTerm: Term) -> Bool {
    lastTerm > self.lastTerm || (lastTerm == self.lastTerm && lastIndex >= self.lastIndex)
  }

  /// The last index at or before this one whose term is at most the given one: where two logs may still agree. Steps over whole terms.
  /// Term 0 in the answer: not known here.
  func lastPossibleMatch(index: LogIndex, term: Term) -> (index: LogIndex, term: Term) {
    let index = min(index, lastIndex)
    if index > compactedIndex {
      var position = run(of: index)
      if starts[position].term <= term { return (index, starts[position].term) }
      while position > 0 {
        position -= 1
        if starts[position].term <= term { return (starts[position + 1].firstIndex - 1, starts[position].term) }
      }
    }
    if index >= compactedIndex, compactedTerm <= term { return (compactedIndex, compactedTerm) }
    return (min(index, compactedIndex == 0 ? 0 : compactedIndex - 1), 0)
  }

  /// Entries first...last, cut at `maxBytes`, at least one. Empty: storage cannot answer now.
  func slice(first: LogIndex, last: LogIndex, maxBytes: Int) -> [Entry] {
    guard first <= last, first > compactedIndex else { return [] }
    guard first >= cacheFirst else {
      let read = reader.entries(first: first, last: min(last, cacheFirst - 1), maxBytes: maxBytes)
      return read.first?.index == first ? read : []
    }
    let start = Int(first - cacheFirst)
    var end = start
    var bytes = 0
    let stop = Int(min(last, lastIndex) - cacheFirst)
    while end <= stop {
      bytes += cache[end].byteCount
      if bytes > maxBytes, end > start { break }
      end += 1
    }
    return Array(cache[start..<end])
  }

  /// Bytes of data in entries that are still in memory.
  func dataBytes(first: LogIndex, last: LogIndex) -> Int {
    var sum = 0
    var index = max(first, cacheFirst)
    while index <= min(last, lastIndex) {
      sum += cache[Int(index - cacheFirst)].data.count
      index += 1
    }
    return sum
  }

  /// Whether a configuration entry is committed and not applied.
  var hasUnappliedConfiguration: Bool {
    var index = max(applied + 1, cacheFirst)
    while index <= committed {
      if cache[Int(index - cacheFirst)].kind == .configuration { return true }
      index += 1
    }
    return false
  }

  // MARK: Growth and truncation

  mutating func append(_ entry: Entry) {
    precondition(entry.index == lastIndex + 1)
    push(entry)
  }

  private mutating func push(_ entry: Entry) {
    if starts.last?.term != entry.term { starts.append(TermStart(term: entry.term, firstIndex: entry.index)) }
    cache.append(entry)
    cachedBytes += entry.byteCount
  }

  /// A follower's append after `previousIndex`, which is known to match. Throws when it contradicts what is committed.
  mutating func appendAsFollower(_ entries: [Entry]) throws(RaftError) {
    var position = 0
    while position < entries.count, entries[position].index <= lastIndex {
      let entry = entries[position]
      if let own = term(at: entry.index), own != entry.term {
        guard entry.index > committed else {
          throw .inconsistent("the leader's entry \(entry.index) has term \(entry.term), the one committed here has term \(own)")
        }
        truncate(after: entry.index - 1)
        break
      }
      position += 1
    }
    for entry in entries[position...] { push(entry) }
  }

  private mutating func truncate(after index: LogIndex) {
    while lastIndex > index, let entry = cache.popLast() { cachedBytes -= entry.byteCount }
    while let start = starts.last, start.firstIndex > index { starts.removeLast() }
    handedOut = min(handedOut, index)
    stable = min(stable, index)
    // A write on its way no longer vouches for what was cut: the same index may return with another entry before it is done.
    for position in writes.indices { writes[position].last = min(writes[position].last, index) }
  }

  /// Everything is replaced by a snapshot.
  mutating func restore(_ snapshot: SnapshotMetadata) {
    cache.removeAll(keepingCapacity: true)
    cachedBytes = 0
    starts.removeAll()
    cacheFirst = snapshot.index + 1
    compactedIndex = snapshot.index
    compactedTerm = snapshot.term
    committed = snapshot.index
    applying = snapshot.index
    handedOut = snapshot.index
    stable = 0
    for position in writes.indices { writes[position].last = 0 }
    snapshotToHandOut = snapshot
    pendingSnapshotIndex = snapshot.index
  }

  // MARK: Progress

  /// Answers whether it rose.
  mutating func commit(to index: LogIndex) throws(RaftError) -> Bool {
    guard index > committed else { return false }
    guard index <= lastIndex else {
      throw .inconsistent(
        "entry \(index) is committed and was acknowledged from here, but the log ends at \(lastIndex): was its disk lost or replaced?")
    }
    committed = index
    return true
  }

  var hasEntriesToHandOut: Bool { handedOut < lastIndex }

  mutating func takeEntriesToPersist() -> [Entry] {
    guard handedOut < lastIndex else { return [] }
    defer { handedOut = lastIndex }
    return Array(cache[Int(handedOut + 1 - cacheFirst)...])
  }

  mutating func takeSnapshot() -> SnapshotMetadata? {
    defer { snapshotToHandOut = nil }
    return snapshotToHandOut
  }

  mutating func noteWrite(number: UInt64, term: Term, votedForItself: Bool, snapshotIndex: LogIndex?) {
    writes.append(Write(number: number, last: handedOut, term: term, votedForItself: votedForItself, snapshotIndex: snapshotIndex))
  }

  /// The oldest write that this number covers.
  mutating func finishWrite(upTo number: UInt64) -> Write? {
    guard let write = writes.first, write.number <= number else { return nil }
    writes.removeFirst()
    stable = max(stable, write.last)
    if let index = write.snapshotIndex {
      applied = max(applied, index)
      applying = max(applying, index)
      if pendingSnapshotIndex == index { pendingSnapshotIndex = nil }
    }
    return write
  }

  var hasEntriesToApply: Bool { applying < min(committed, stable) }

  mutating func takeEntriesToApply(maxBytes: Int) -> [Entry] {
    guard hasEntriesToApply else { return [] }
    let entries = slice(first: applying + 1, last: min(committed, stable), maxBytes: maxBytes)
    if let last = entries.last { applying = last.index }
    return entries
  }

  mutating func apply(upTo index: LogIndex) {
    precondition(index <= applying, "applied up to \(index), but only \(applying) was handed out")
    guard index > applied else { return }
    applied = index
    evict()
  }

  /// Storage has dropped entries up to here.
  mutating func compact(upTo index: LogIndex) {
    precondition(index <= applied, "compacted up to \(index), but only \(applied) is applied")
    guard index > compactedIndex, let term = term(at: index) else { return }
    while let first = cache.first, first.index <= index { dropFirst() }
    cacheFirst = max(cacheFirst, index + 1)
    let kept = run(of: index)
    starts.removeFirst(kept)
    if index == lastIndex { starts.removeAll() } else { starts[0].firstIndex = index + 1 }
    if let second = starts.dropFirst().first, second.firstIndex == index + 1 { starts.removeFirst() }
    compactedIndex = index
    compactedTerm = term
  }

  private mutating func evict() {
    let bound = min(stable, applied)
    while cachedBytes > maxCachedBytes, let first = cache.first, first.index <= bound { dropFirst() }
  }

  private mutating func dropFirst() {
    cachedBytes -= cache.removeFirst().byteCount
    cacheFirst += 1
  }
}
