import API
import APIClient
import ArgumentParser
import Model
import NIOCore
import Surroundings

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

struct Backup: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write the cluster's state to a file: a SQLite database of now, made while everything goes on.",
    discussion: """
      The file is readable by you alone and holds the join tokens; the CA's key in it is sealed with the managers' unlock key. Keep a manager's
      /var/lib/orch/manager/unlock.key as well, elsewhere: a new cluster is made of both (orch-manager init --from-backup). Data of volumes is
      not in it.

      Example: orch backup /backups/orch-$(date +%F).db
      Example: orch backup - | gpg -e -r ops > orch.db.gpg
      """)
  @OptionGroup var connection: Connection
  @Argument(help: "The file to make; - writes to stdout.", completion: .file()) var file: String
  @Flag(name: .shortAndLong, help: "Replace the file if it exists.") var force = false
  @Flag(help: "Take this manager's own copy, without asking the others: when their majority is lost.") var stale = false
  @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false

  func run() async throws {
    if file == "-", isatty(1) == 1 { throw ValidationError("A backup is no text: redirect stdout, or name a file") }
    if file != "-", !force, access(file, F_OK) == 0 { throw ClientError.broken("\(file) exists: choose another name, or replace it with --force") }
    let (header, body) = try await connection.client().stream(
      "/orch/v1/backup", stale ? [("stale", "1")] : [], header: BackupSummary.header)
    guard let header, let summary = try? JSONText.decode(BackupSummary.self, Array(header.utf8)) else {
      throw ClientError.broken("the manager gave no backup: is it a manager of orch?")
    }
    if file == "-" { try await pipe(body, summary) } else { try await save(body, summary) }
    if quiet { return }
    let text = "backup of cluster \(summary.cluster) at index \(summary.index): \(summary.contents); \(humanSize(summary.bytes))"
    if file == "-" { Terminal.warn(text) } else { Terminal.print("\(text) in \(file)") }
  }

  private func pipe(_ body: some AsyncSequence<ByteBuffer, any Error>, _ summary: BackupSummary) async throws {
    var (crc, count) = (CRC32C(), Int64(0))
    for try await part in body {
      let bytes = Array(part.readableBytesView)
      crc.add(bytes)
      count += Int64(bytes.count)
      Terminal.write(1, bytes)
    }
    try check(count, crc.value, summary, "what was written to stdout")
  }

  /// Beside its place, synced, read back, and only then given its name.
  private func save(_ body: some AsyncSequence<ByteBuffer, any Error>, _ summary: BackupSummary) async throws {
    let partial = "\(file).partial-\(getpid())"
    let folder = file.contains("/") ? String(file.prefix(through: file.lastIndex(of: "/")!)) : "."
    if let room = FileSystem.room(at: folder), room < summary.bytes {
      throw ClientError.broken(
        "\(file) was not made: the backup has \(humanSize(summary.bytes)), and \(humanSize(room)) are free there; make room, or name a file elsewhere"
      )
    }
    let descriptor = open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw problem("create", partial) }
    defer {
      close(descriptor)
      unlink(partial)
    }
    for try await part in body {
      var rest = Array(part.readableBytesView)[...]
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { throw problem("write", partial) }
        rest = rest.dropFirst(count)
      }
    }
    guard fsync(descriptor) == 0 else { throw problem("sync", partial) }
    var (crc, offset) = (CRC32C(), 0)
    var chunk = [UInt8](repeating: 0, count: 256 << 10)
    while case let count = pread(descriptor, &chunk, chunk.count, offset), count != 0 {
      guard count > 0 else { throw problem("read back", partial) }
      crc.add(Array(chunk[..<count]))
      offset += count
    }
    try check(Int64(offset), crc.value, summary, partial)
    // link(2) does not replace a file that somebody made meanwhile.
    guard (force ? rename(partial, file) : link(partial, file)) == 0 else {
      throw errno == EEXIST ? ClientError.broken("\(file) exists: choose another name, or replace it with --force") : problem("name", file)
    }
  }

  private func check(_ count: Int64, _ checksum: UInt32, _ summary: BackupSummary, _ what: String) throws {
    guard count == summary.bytes else {
      throw ClientError.broken("the backup was cut off: \(count) of \(summary.bytes) bytes came; try again")
    }
    guard checksum == summary.checksum else {
      throw ClientError.broken("\(what) is not what the manager sent: the disk or the connection damages data; try elsewhere")
    }
  }

  private func problem(_ operation: String, _ path: String) -> ClientError {
    .broken("\(operation) \(path): \(String(cString: strerror(errno)))\(errno == ENOSPC ? "; make room, or name a file elsewhere" : "")")
  }
}

extension BackupSummary {
  var contents: String {
    func count(_ number: Int, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }
    return [count(nodes, "node"), count(stacks, "stack"), count(services, "service"), count(tasks, "task"), count(volumes, "volume")].joined(
      separator: ", ")
  }
}

struct Restore: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Bring a running cluster back to the stacks, services, networks, volumes, secrets and configs of a backup.",
    discussion: """
      Shows first what it would do. Services keep their ids where they still exist; those that the backup lacks are removed; volumes stay. Nodes
      and managers are left alone. A cluster that is lost altogether is made again with: orch-manager init --from-backup FILE

      Example: orch restore /backups/orch-2026-01-31.db
      """)
  @OptionGroup var connection: Connection
  @Argument(help: "What orch backup wrote.", completion: .file()) var file: String
  @Flag(name: .shortAndLong, help: "Do not ask.") var yes = false
  @Flag(help: "Show what would be done, and end.") var dryRun = false
  @Flag(help: "Also if the backup is of another cluster.") var otherCluster = false
  @OptionGroup var waiting: WaitOptions

  func run() async throws {
    if file == "-" { throw ValidationError("The file is read twice, to show and to do: name it") }
    let client = try connection.client()
    let plan = try await send(client, apply: false)
    if !waiting.quiet || dryRun || !yes { show(plan) }
    if dryRun { return }
    if plan.created.isEmpty && plan.updated.isEmpty && plan.removed.isEmpty { return Terminal.print("the cluster is as the backup says already") }
    if !yes {
      guard isatty(0) == 1 else { throw ClientError.broken("nothing was changed: say --yes to restore without being asked") }
      Terminal.write(1, Array("Restore? [y/N] ".utf8))
      guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else { throw ClientError.broken("nothing was changed") }
    }
    let done = try await send(client, apply: true)
    let names = (done.created + done.updated).compactMap { $0.hasPrefix("service ") ? String($0.dropFirst(8)) : nil }
    var ids: [String] = []
    for name in names { ids.append(try await client.get("/services/\(percentEncoded(name))", as: ServiceInspect.self).id) }
    if !waiting.quiet { Terminal.print("restored") }
    if !ids.isEmpty { try await waiting.wait(client, ids) }
  }

  private func send(_ client: APIClient, apply: Bool) async throws -> RestoreResponse {
    let chunks = try FileChunks(file)
    let query = (apply ? [("apply", "1")] : []) + (otherCluster ? [("other", "1")] : [])
    let body = try await client.upload("/orch/v1/restore", query, chunks, length: chunks.length, type: "application/vnd.sqlite3")
    return try JSONText.decode(RestoreResponse.self, Array(try await body.collect(upTo: 256 << 20).readableBytesView))
  }

  private func show(_ plan: RestoreResponse) {
    Terminal.print("backup of \(plan.backup.takenAt), index \(plan.backup.index): \(plan.backup.contents)")
    for (word, lines) in [("create", plan.created), ("update", plan.updated), ("remove", plan.removed), ("keep", plan.kept)] {
      for line in lines { Terminal.print(word.padded(to: 9) + line) }
    }
    if !plan.unchanged.isEmpty { Terminal.print("unchanged: \(plan.unchanged.count)") }
  }
}

extension String {
  fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
