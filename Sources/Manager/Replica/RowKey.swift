import Model

/// Names a row of the replicated state as it is on the disk.
public enum RowKey: Hashable, Sendable {
  case cluster
  case node(NodeID)
  case service(ServiceID)
  case revision(ServiceRevision.Key)
  case task(TaskID)
  case network(NetworkID)
  case volume(String)
  case stack(String)
  case file(StoredFile.Kind, FileID)

  public init?(_ change: StateChange) {
    switch change {
    case .cluster: self = .cluster
    case .revision(let key): self = .revision(key)
    case .node(let old, let new): if let id = (new ?? old)?.id { self = .node(id) } else { return nil }
    case .service(let old, let new): if let id = (new ?? old)?.id { self = .service(id) } else { return nil }
    case .task(let old, let new): if let id = (new ?? old)?.id { self = .task(id) } else { return nil }
    case .network(let old, let new): if let id = (new ?? old)?.id { self = .network(id) } else { return nil }
    case .volume(let old, let new): if let name = (new ?? old)?.name { self = .volume(name) } else { return nil }
    case .stack(let old, let new): if let name = (new ?? old)?.name { self = .stack(name) } else { return nil }
    case .file(let old, let new): if let file = new ?? old { self = .file(file.kind, file.id) } else { return nil }
    }
  }
}

/// Rows that changed, each once however often it did, in the order of their first changes.
struct ChangedRows {
  private(set) var keys: [RowKey] = []
  private var known = Set<RowKey>()

  init(_ changes: some Sequence<StateChange> = []) { insert(changes) }

  mutating func insert(_ changes: some Sequence<StateChange>) {
    for change in changes { if let key = RowKey(change), known.insert(key).inserted { keys.append(key) } }
  }
}
