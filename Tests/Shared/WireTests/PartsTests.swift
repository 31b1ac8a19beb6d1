import Model
import Testing
import Wire

/// Sets and reports that are larger than a frame.
struct PartsTests {
  private func file(_ number: UInt128, _ bytes: Int) -> AssignmentItem {
    .file(StoredFile(kind: .config, id: FileID(value: number), name: "c\(number)", data: [UInt8](repeating: 7, count: bytes), createdAt: .zero))
  }
  private func endpoint(_ number: UInt128) -> AssignmentItem {
    var record = EndpointRecord(
      task: TaskID(value: number << 64), service: ServiceID(value: .max), network: NetworkID(value: .max), node: NodeID(value: .max), slot: .max,
      address: IPv4Address(.max), underlay: IPv4Address(.max), ready: true)
    record.lacksIPv6 = true
    record.lost = true
    record.hostname = String(repeating: "h", count: 63)
    return .endpoint(record)
  }
  private func size(_ part: WireAssignments) throws -> Int { try (part.serializedBytes() as [UInt8]).count }

  @Test("a set of five configs of 900 KiB, one of 3 MiB and 20,000 endpoints travels in parts that fit, and arrives as it was")
  func whole() throws {
    let items = (1...5).map { file($0, 900 << 10) } + [file(6, 3 << 20)] + (1...20_000).map { endpoint($0) } + [file(7, 10)]
    let keys = (1...20_000).map { AssignmentItem.Key.endpoint(TaskID(value: UInt128.max - $0), NetworkID(value: .max)) }
    let message = AssignmentsMessage(complete: false, appliesTo: 8, resultsIn: 9, updates: items, removals: keys)
    let parts = try WireAssignments(message).parts()
    for part in parts { #expect(try size(part) <= WireAssignments.partBytes || part.updates.count == 1) }
    #expect(parts.map(\.continues) == [Bool](repeating: true, count: parts.count - 1) + [false])
    #expect(parts.count <= 20)
    var assembly = AssignmentsAssembly()
    for part in parts.dropLast() { #expect(try assembly.add(part) == nil) }
    #expect(try assembly.add(parts.last!) == message)
    // And the next begins anew.
    #expect(try assembly.add(WireAssignments(message)) == message)
  }

  @Test("what is small, or empty, is one part")
  func small() throws {
    for items in [[], [file(1, 5), endpoint(2)]] {
      let message = AssignmentsMessage(complete: true, appliesTo: 0, resultsIn: 1, updates: items, removals: [])
      let wire = try WireAssignments(message)
      #expect(try wire.parts() == [wire])
    }
  }

  @Test("a set that is cut off by another is an error, not a mixture")
  func cut() throws {
    func parts(_ number: UInt64) throws -> [WireAssignments] {
      let items = [file(1, 900 << 10), file(2, 900 << 10)]
      return try WireAssignments(AssignmentsMessage(complete: true, appliesTo: 0, resultsIn: number, updates: items, removals: [])).parts()
    }
    var assembly = AssignmentsAssembly()
    _ = try assembly.add(try parts(1)[0])
    #expect(throws: (any Error).self) { try assembly.add(try parts(2)[0]) }
    #expect(try assembly.add(try parts(3)[0]) == nil)
    #expect(try assembly.add(try parts(3)[1])?.updates.count == 2)
  }

  @Test("reports are taken by number and by bytes, in order, at least one at a time")
  func reports() throws {
    func report(_ number: Int, _ bytes: Int) -> TaskReport {
      TaskReport(
        task: TaskID(value: UInt128(number)),
        status: TaskStatus(state: .failed, timestamp: .zero, message: "m", error: String(repeating: "e", count: bytes)))
    }
    var waiting = (1...1500).map { report($0, 10) } + (1501...1600).map { report($0, 20 << 10) } + [report(1601, 2 << 20)]
    let all = waiting
    var seen: [TaskReport] = []
    var batches = 0
    while !waiting.isEmpty {
      let batch = try WireReports.take(from: &waiting)
      #expect(try batch.reports.count == 1 || (batch.serializedBytes() as [UInt8]).count <= 1 << 20)
      #expect(batch.reports.count <= 1000)
      seen += try batch.reports.map { try $0.model() }
      batches += 1
    }
    #expect(seen == all)
    #expect(batches <= 5)
  }
}
