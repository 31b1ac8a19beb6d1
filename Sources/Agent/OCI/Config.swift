// OCI: the OCI runtime specification's config.json and state.json as values, and what orch makes of them.
// Invariants: what is wrong is told by its JSON path; keys that the specification does not name are ignored, as it asks; what it names
// and orch cannot do is refused by name (Config+Check.swift), never dropped. Pure: it refuses to know files, processes and the kernel.

/// A bundle's config.json (opencontainers/runtime-spec v1.2, config.md and config-linux.md).
public struct Config: Codable, Hashable, Sendable {
  public var ociVersion: String
  public var process: ConfigProcess?
  public var root: Root?
  public var hostname: String?
  public var domainname: String?
  public var mounts: [Mount]?
  public var hooks: Hooks?
  public var annotations: [String: String]?
  public var linux: Linux?

  public struct Root: Codable, Hashable, Sendable {
    /// Absolute, or relative to the bundle.
    public var path: String
    public var readonly: Bool?
  }
  public struct Mount: Codable, Hashable, Sendable {
    public var destination: String
    public var type: String?
    public var source: String?
    public var options: [String]?
    public var uidMappings: [IDMapping]?
    public var gidMappings: [IDMapping]?
    public init(_ destination: String, type: String? = nil, source: String? = nil, options: [String]? = nil) {
      (self.destination, self.type, self.source, self.options) = (destination, type, source, options)
    }
  }
  public struct Hook: Codable, Hashable, Sendable {
    public var path: String
    public var args: [String]?
    public var env: [String]?
    /// Seconds, above zero.
    public var timeout: Int?
  }
  public struct Hooks: Codable, Hashable, Sendable {
    public var prestart: [Hook]?
    public var createRuntime: [Hook]?
    public var createContainer: [Hook]?
    public var startContainer: [Hook]?
    public var poststart: [Hook]?
    public var poststop: [Hook]?
  }
  public struct IDMapping: Codable, Hashable, Sendable {
    public var containerID: UInt32
    public var hostID: UInt32
    public var size: UInt32
    public init(containerID: UInt32, hostID: UInt32, size: UInt32) { (self.containerID, self.hostID, self.size) = (containerID, hostID, size) }
  }
}

/// config.json's `process`, and the file of `exec --process`.
public struct ConfigProcess: Codable, Hashable, Sendable {
  public var terminal: Bool?
  public var consoleSize: ConsoleSize?
  public var user: User?
  public var cwd: String
  public var env: [String]?
  public var args: [String]?
  public var capabilities: Capabilities?
  public var rlimits: [Rlimit]?
  public var noNewPrivileges: Bool?
  public var apparmorProfile: String?
  public var selinuxLabel: String?
  public var oomScoreAdj: Int?
  public var scheduler: Scheduler?
  public var ioPriority: IOPriority?
  public var execCPUAffinity: CPUAffinity?

  public struct ConsoleSize: Codable, Hashable, Sendable {
    public var height: UInt16
    public var width: UInt16
  }
  /// CPUs of what `exec` runs, as in "0-2,5": before it is in the container's cgroups, and from then on.
  public struct CPUAffinity: Codable, Hashable, Sendable {
    public var initial: String?
    public var final: String?
  }
  public struct User: Codable, Hashable, Sendable {
    public var uid: UInt32
    public var gid: UInt32
    public var umask: UInt32?
    public var additionalGids: [UInt32]?
    public init(uid: UInt32, gid: UInt32) { (self.uid, self.gid) = (uid, gid) }
    /// By hand: the decoder tells no path for a number that does not fit, and user 4294967296 must not become root (CVE-2024-40635).
    public init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: CodingKeys.self)
      func id(_ key: CodingKeys) throws -> UInt32 {
        let wide = try values.decode(Int64.self, forKey: key)
        guard let id = UInt32(exactly: wide), id != .max else {
          throw DecodingError.dataCorruptedError(forKey: key, in: values, debugDescription: "\(wide) is not an id from 0 to 4294967294")
        }
        return id
      }
      (uid, gid) = (try id(.uid), try id(.gid))
      umask = try values.decodeIfPresent(UInt32.self, forKey: .umask)
      additionalGids = try values.decodeIfPresent([UInt32].self, forKey: .additionalGids)
    }
  }
  public struct Capabilities: Codable, Hashable, Sendable {
    public var bounding: [String]?
    public var effective: [String]?
    public var inheritable: [String]?
    public var permitted: [String]?
    public var ambient: [String]?
  }
  public struct Rlimit: Codable, Hashable, Sendable {
    /// "RLIMIT_NOFILE".
    public var type: String
    public var soft: UInt64
    public var hard: UInt64
  }
  public init(args: [String], cwd: String) { (self.args, self.cwd) = (args, cwd) }
}

/// A value that is only looked at to say that it is there.
public struct Anything: Codable, Hashable, Sendable {
  public init(from decoder: any Decoder) throws {}
  public func encode(to encoder: any Encoder) throws {}
}

extension ConfigProcess.Capabilities { public static let none = ConfigProcess.Capabilities() }
