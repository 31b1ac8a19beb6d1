import Glibc
import Model
import Replica

/// After a write that failed: what the disk really holds, and whether it takes writes again.
extension Store {
  /// Reads as after a restart of the whole machine, and proves that the disk takes writes: `room` bytes can be had, a transaction reaches
  /// the disk. No connection to the file may be open.
  ///
  /// After a failed fsync the kernel has dropped the pages' dirty mark, not the pages: they look written and are not (the "fsyncgate" of
  /// PostgreSQL, 2018). So the cached pages are given up first; what is read then comes from the disk.
  public static func reopen(path: String, room: Int, gate: RowGate = RowGate()) throws(StoreError) -> Store {
    try findRoom(room, beside: path)
    for suffix in ["", "-wal"] {
      let descriptor = open(path + suffix, O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else { continue }
      posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
      close(descriptor)
    }
    return try Store(path: path, gate: gate)
  }

  /// Writes a row of its own and waits for the disk.
  public func proveWritable() throws(StoreError) {
    do throws(StoreError) {
      try database.transaction { () throws(StoreError) in try database.run("INSERT OR REPLACE INTO meta VALUES ('proof', ?)", .integer(appliedIndex))
      }
    } catch {
      database.leaveAsIs()
      throw error
    }
  }

  /// Throws when a process uses the file.
  public static func requireUnused(path: String) throws(StoreError) { close(try lock(path)) }

  /// Moves the file and all that belongs to it aside, for whoever wants to look at it; the new name. Refused while a process uses it.
  public static func setAside(path: String, suffix: String) throws(StoreError) -> String {
    let lock = try lock(path)
    defer { close(lock) }
    let target = "\(path).\(suffix)"
    for part in ["-wal", "-shm", ""] where access(path + part, F_OK) == 0 {
      guard rename(path + part, target + part) == 0 else { throw failure("rename", path + part, errno) }
    }
    return target
  }

  /// Who the members were, as far as a damaged file can still be read; never throws.
  public static func salvageMembers(path: String) -> [Membership.Member] {
    guard access(path, F_OK) == 0, let database = try? Database(path: path, readOnly: true) else { return [] }
    database.leaveAsIs()
    var members: [Membership.Member] = []
    guard let statement = try? database.statement("SELECT raft_id, address, role FROM members") else { return [] }
    try? database.rows(statement) { row throws(StoreError) in
      if let role = Membership.Role(rawValue: String(row.text(2).prefix { $0 != "+" })) {
        members.append(.init(raftID: RaftID(row.unsigned(0)), node: nil, address: row.text(1), role: role))
      }
      return true
    }
    return members
  }

  private static func findRoom(_ bytes: Int, beside path: String) throws(StoreError) {
    let name = path + ".room"
    let descriptor = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw failure("make", name, errno) }
    defer {
      close(descriptor)
      unlink(name)
    }
    // File systems without fallocate write zeros here (glibc's posix_fallocate).
    let code = posix_fallocate(descriptor, 0, off_t(bytes))
    guard code == 0 else { throw failure("take \(bytes) bytes for", name, code) }
    guard fsync(descriptor) == 0 else { throw failure("fsync", name, errno) }
  }

  private static func failure(_ operation: String, _ path: String, _ number: Int32) -> StoreError {
    let cause = "errno \(number), \(String(cString: strerror(number)))"
    if number == ENOSPC || number == EDQUOT { return .diskFull(operation: "\(operation) \(path)", cause: cause) }
    return .io(operation: "\(operation) \(path)", cause: cause)
  }
}
