import Model

/// The rows that changed since the flush before, on their way to the disk as they are in one state: one slice a write, since entries wait
/// as long as rows are being written. Rows lie by their keys, so that those of one page of a table are mostly in one slice.
///
/// In the middle the disk holds rows of two states, and the log can be applied to neither of them alone. So each slice but the last
/// brings the rows of before as well; a start puts them back.
struct RowFlush {
  private(set) var rows: ArraySlice<RowKey>
  let state: ClusterState
  let membership: Membership?

  /// How many of the first ones may not be cut: writing one of them can remove another's row (a name that changes hands, a service's revisions).
  private var together: Int

  init(_ changed: ChangedRows, state: ClusterState, membership: Membership?) {
    var (whole, nodes, tasks, volumes): ([RowKey], [NodeID], [TaskID], [String]) = ([], [], [], [])
    for key in changed.keys {
      switch key {
      case .node(let id): nodes.append(id)
      case .task(let id): tasks.append(id)
      case .volume(let name): volumes.append(name)
      case .cluster, .service, .revision, .network, .stack, .file: whole.append(key)
      }
    }
    together = whole.count
    rows = (whole + nodes.sorted().map(RowKey.node) + tasks.sorted().map(RowKey.task) + volumes.sorted().map(RowKey.volume))[...]
    self.state = state
    self.membership = membership
  }

  /// The last one empties `rows`.
  mutating func slice(_ count: Int) -> [RowKey] {
    let slice = rows.prefix(max(1, count, together))
    together = 0
    rows = rows.dropFirst(slice.count)
    return Array(slice)
  }
}
