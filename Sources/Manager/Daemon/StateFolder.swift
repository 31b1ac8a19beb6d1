import FoundationEssentials
import Glibc
import Identity
import Model
import Transport

/// What `init` and `join` were told, for `run`.
struct Settings: Codable, Sendable {
  /// "HOST:PORT" each.
  var listen: String
  var advertise: String
  var socket: String
  var api: String?
  var apiClientAuthority: String?
}

/// The manager's folder: node.pem, node.key, ca.pem, unlock.key, manager.json, raft.db.
struct StateFolder: Sendable {
  let path: String
  var database: String { "\(path)/raft.db" }
  var unlockKeyFile: String { "\(path)/unlock.key" }
  var settingsFile: String { "\(path)/manager.json" }

  /// For `init` and `join`: empty or absent, else an error that says whose it is.
  func requireUnused() throws {
    if let identity = try NodeIdentity.load(folder: path) {
      throw UserError(
        "\(path) belongs to node \(identity.node) of cluster \(identity.cluster) already: start it with `orch-manager run`, "
          + "or choose another folder with --state-dir, or remove this one to give the node up")
    }
    let entries = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    if let entry = entries.sorted().first {
      throw UserError("\(path) is not empty (it holds \(entry)): choose another folder with --state-dir, or remove it")
    }
  }

  /// Runs `body`, which fills the folder; when it throws, what it made is removed.
  func fill<Result>(_ body: () async throws -> Result) async throws -> Result {
    let existed = access(path, F_OK) == 0
    do {
      try SecretFile.makeFolder(path)
      return try await body()
    } catch {
      if existed {
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] {
          try? FileManager.default.removeItem(atPath: "\(path)/\(entry)")
        }
      } else {
        try? FileManager.default.removeItem(atPath: path)
      }
      throw error
    }
  }

  /// Backups that were on their way when the manager before this one died.
  func removeTemporaryFiles() {
    for entry in (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? [] where entry.hasPrefix(Backend.temporaryPrefix) {
      try? FileManager.default.removeItem(atPath: "\(path)/\(entry)")
    }
  }

  func save(_ settings: Settings) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try SecretFile.write(Array(encoder.encode(settings)) + [10], to: settingsFile)
  }

  /// For `run`.
  func load() throws -> (NodeIdentity, Settings, UnlockKey) {
    guard let identity = try NodeIdentity.load(folder: path), let json = try SecretFile.read(settingsFile),
      let unlock = try UnlockKey.load(unlockKeyFile)
    else { throw UserError("\(path) holds no manager: `orch-manager init` makes a new cluster, `orch-manager join --token TOKEN ADDR` joins one") }
    do {
      return (identity, try JSONDecoder().decode(Settings.self, from: Data(json)), unlock)
    } catch {
      throw UserError("read \(settingsFile): \(error)")
    }
  }
}
