import Glibc
import Model

/// The files of a daemon's state folder: `node.pem`, `ca.pem`, `node.key`; the folder 0700, the files 0600.
extension NodeIdentity {
  public static let certificateFile = "node.pem"
  public static let authorityFile = "ca.pem"
  public static let keyFile = "node.key"

  /// Blocks for three small files. nil: the folder has no identity yet. A part of one is an error.
  public static func load(folder: String) throws(IdentityError) -> NodeIdentity? {
    // The certificate is written last: without it nothing has been joined.
    guard let certificate = try SecretFile.read("\(folder)/\(certificateFile)") else { return nil }
    guard let key = try SecretFile.read("\(folder)/\(keyFile)"), let authority = try SecretFile.read("\(folder)/\(authorityFile)") else {
      throw .file(operation: "read identity in", path: folder, cause: "\(keyFile) or \(authorityFile) is missing: remove the folder and join again")
    }
    return try NodeIdentity(
      certificatePEM: String(decoding: certificate, as: UTF8.self), key: NodeKey(pem: String(decoding: key, as: UTF8.self)),
      authorityPEM: String(decoding: authority, as: UTF8.self))
  }

  /// Blocks for three fsyncs. Makes the folder (0700) when it is not there.
  public func save(folder: String) throws(IdentityError) {
    try SecretFile.makeFolder(folder)
    try SecretFile.write(Array(key.pem.utf8), to: "\(folder)/\(Self.keyFile)")
    try SecretFile.write(Array(authorityPEM.utf8), to: "\(folder)/\(Self.authorityFile)")
    try SecretFile.write(Array(certificatePEM.utf8), to: "\(folder)/\(Self.certificateFile)")
  }
}

/// Small files that only their owner may read; written whole or not at all.
public enum SecretFile {
  /// nil: there is no such file. Larger than 1 MiB is refused.
  public static func read(_ path: String) throws(IdentityError) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 {
      if errno == ENOENT { return nil }
      throw failure("open", path)
    }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      let count = Glibc.read(descriptor, &chunk, chunk.count)
      if count < 0 && errno == EINTR { continue }
      if count < 0 { throw failure("read", path) }
      if count == 0 { return bytes }
      bytes += chunk[..<count]
      if bytes.count > 1 << 20 { throw .file(operation: "read", path: path, cause: "larger than 1 MiB") }
    }
  }

  /// 0600; written aside, synced, renamed over.
  public static func write(_ bytes: [UInt8], to path: String) throws(IdentityError) {
    let aside = path + ".new"
    unlink(aside)
    let descriptor = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    if descriptor < 0 { throw failure("create", aside) }
    do throws(IdentityError) {
      defer { close(descriptor) }
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        if count < 0 { throw failure("write", aside) }
        rest = rest.dropFirst(count)
      }
      if fsync(descriptor) != 0 { throw failure("sync", aside) }
      if rename(aside, path) != 0 { throw failure("rename to", path) }
    } catch {
      unlink(aside)
      throw error
    }
  }

  /// 0700, with its parents (0755); a folder that is there gets the mode.
  public static func makeFolder(_ path: String) throws(IdentityError) {
    var made = ""
    for part in path.split(separator: "/") {
      made += (made.isEmpty && !path.hasPrefix("/") ? "" : "/") + part
      if mkdir(made, 0o755) != 0 && errno != EEXIST { throw failure("make folder", made) }
    }
    if chmod(path, 0o700) != 0 { throw failure("chmod 0700", path) }
  }

  private static func failure(_ operation: String, _ path: String) -> IdentityError {
    .file(operation: operation, path: path, cause: String(cString: strerror(errno)))
  }
}
