import Model

extension Scheduler {
  /// A node that takes more of the batch.
  struct Candidate: Sendable {
    var place: Int32
    var failing: Bool
    var ofService: Int32
    var tasks: Int32
    var room: Int32
    var placed: Int32 = 0

    static func < (a: Self, b: Self) -> Bool {
      if a.failing != b.failing { return !a.failing }
      if a.ofService != b.ofService { return a.ofService < b.ofService }
      if a.tasks != b.tasks { return a.tasks < b.tasks }
      return a.place < b.place
    }
  }

  /// Places `count` equal tasks of a service. Nothing is remembered: the placement counts once its assignments are observed.
  /// O(nodes + count log nodes).
  public func place(_ service: ServiceID, spec: ServiceSpec, count: Int, now: Timestamp) -> Placement {
    let filters = Filters(spec)
    let running = serviceTasks[service] ?? [:]
    let anyFailed = failures[service] != nil
    var objections = Objections()
    var candidates: [Candidate] = []
    for place in loads.indices where places[nodes[place].id] == place {
      let ofService = running.isEmpty ? 0 : running[place] ?? 0
      switch filters.room(self, at: place, running: ofService) {
      case .success(let room):
        candidates.append(
          Candidate(
            place: Int32(place), failing: anyFailed && isFailing(service, at: place, now: now), ofService: ofService, tasks: loads[place].tasks,
            room: room))
      case .failure(let refused): objections.add(refused.objection)
      }
    }
    let keys = (spec.taskTemplate.placement?.preferences ?? []).compactMap { $0.spread.flatMap { SpreadKey($0.spreadDescriptor) } }
    var spread = Spread(candidates, over: keys[...], nodes: nodes)
    var chosen: [NodeID] = []
    chosen.reserveCapacity(count)
    while chosen.count < count {
      let (place, filled) = spread.take() ?? (-1, nil)
      if place < 0 { break }
      chosen.append(nodes[place].id)
      if let filled {
        let before = filled.ofService - filled.placed
        objections.add(filters.limit(self, at: place, running: before, placed: filled.placed))
      }
    }
    return Placement(nodes: chosen, shortfall: chosen.count < count ? objections.explanation : nil)
  }

  /// Whether this very node takes one task (global services); nil: it does.
  public func objection(of node: NodeID, to service: ServiceID, spec: ServiceSpec) -> String? {
    guard let place = places[node] else { return "the node has left" }
    switch Filters(spec).room(self, at: place, running: serviceTasks[service]?[place] ?? 0) {
    case .success: return nil
    case .failure(let refused):
      var objections = Objections()
      objections.add(refused.objection)
      return objections.explanation
    }
  }
}

/// Candidates in a tree of label values, one level for each preference; the branch with the fewest tasks of the service is taken
/// first. Without preferences it is one heap.
struct Spread: Sendable {
  private var heap: [Scheduler.Candidate] = []
  private var branches: [Spread] = []
  /// Tasks of the service beneath.
  private var tasks: Int32 = 0

  init(_ candidates: [Scheduler.Candidate], over keys: ArraySlice<SpreadKey>, nodes: [Node]) {
    tasks = candidates.reduce(0) { $0 + $1.ofService }
    guard let key = keys.first else {
      heap = candidates
      for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { sink(index) }
      return
    }
    var groups: [String: [Scheduler.Candidate]] = [:]
    for candidate in candidates { groups[key.value(of: nodes[Int(candidate.place)]), default: []].append(candidate) }
    branches = groups.sorted { $0.key < $1.key }.map { Spread($0.value, over: keys.dropFirst(), nodes: nodes) }
  }

  var isEmpty: Bool { heap.isEmpty && branches.isEmpty }

  /// The best place, and its candidate when it is full now.
  mutating func take() -> (place: Int, filled: Scheduler.Candidate?)? {
    if let best = branches.indices.min(by: { branches[$0].tasks < branches[$1].tasks }) {
      let taken = branches[best].take()
      if branches[best].isEmpty { branches.remove(at: best) }
      tasks += 1
      return taken
    }
    guard !heap.isEmpty else { return nil }
    tasks += 1
    heap[0].ofService += 1
    heap[0].tasks += 1
    heap[0].placed += 1
    let place = Int(heap[0].place)
    var filled: Scheduler.Candidate?
    if heap[0].placed == heap[0].room {
      filled = heap[0]
      let last = heap.removeLast()
      if !heap.isEmpty { heap[0] = last }
    }
    if !heap.isEmpty { sink(0) }
    return (place, filled)
  }

  private mutating func sink(_ start: Int) {
    var index = start
    while true {
      let left = 2 * index + 1
      guard left < heap.count else { return }
      let right = left + 1
      let child = right < heap.count && heap[right] < heap[left] ? right : left
      guard heap[child] < heap[index] else { return }
      heap.swapAt(child, index)
      index = child
    }
  }
}
