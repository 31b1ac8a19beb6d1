/// A mount's options, read (runtime-spec, config.md, "Linux mount options"; mount(8)).
public struct MountOptions: Hashable, Sendable {
  /// mount(2)'s flags (linux/mount.h, MS_*).
  public var flags: UInt64 = 0
  /// Flags taken away again by their opposites; for binds, which otherwise keep what the source has.
  public var cleared: UInt64 = 0
  /// mount_setattr(2)'s, for everything below, too ("rro" and so on).
  public var recursiveSet: UInt64 = 0
  public var recursiveCleared: UInt64 = 0
  /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, with MS_REC; 0: none is asked for.
  public var propagation: UInt64 = 0
  /// What the file system itself reads.
  public var data: [String] = []
  public var copyUp = false
  /// crun's (crun.1): a symbolic link as source is itself bound, or made again in the root; one as target is itself covered.
  public var bindsLink = false
  public var copiesLink = false
  public var coversLink = false
  /// Ids are mapped: with the mount's own mappings, or these, or the container's.
  public var idMap: IDMap?
  public struct IDMap: Hashable, Sendable {
    public var recursive = false
    /// crun's "idmap=uids=0-1000-10;gids=0-1000-10" (crun.1); several are joined by "#".
    public var uids: [Config.IDMapping] = []
    public var gids: [Config.IDMapping] = []
  }
  public var isRemount: Bool { flags & Self.remount != 0 }
  public var isBind: Bool { flags & Self.bind != 0 }

  public static let readOnly: UInt64 = 1
  public static let remount: UInt64 = 32
  public static let bind: UInt64 = 4096
  public static let recursive: UInt64 = 16384
  public static let `private`: UInt64 = 1 << 18
  public static let kernelRelatime: UInt64 = 1 << 21
  public static let strictatime: UInt64 = 1 << 24

  static let flagNames: [String: (clear: Bool, flag: UInt64)] = [
    "async": (true, 16), "atime": (true, 1024), "bind": (false, bind), "defaults": (false, 0), "dev": (true, 4), "diratime": (true, 2048),
    "dirsync": (false, 128), "exec": (true, 8), "iversion": (false, 1 << 23), "lazytime": (false, 1 << 25), "loud": (true, 1 << 15),
    "mand": (false, 64), "nomand": (true, 64), "noatime": (false, 1024), "nodev": (false, 4), "nodiratime": (false, 2048), "noexec": (false, 8),
    "noiversion": (true, 1 << 23),
    "nolazytime": (true, 1 << 25), "norelatime": (true, kernelRelatime), "nostrictatime": (true, strictatime), "nosuid": (false, 2),
    "nosymfollow": (false, 256), "rbind": (false, bind | recursive), "relatime": (false, kernelRelatime), "remount": (false, remount),
    "ro": (false, readOnly), "rw": (true, readOnly), "silent": (false, 1 << 15), "strictatime": (false, strictatime), "suid": (true, 2),
    "symfollow": (true, 256),
    "sync": (false, 16),
  ]
  static let propagationNames: [String: UInt64] = [
    "private": 1 << 18, "rprivate": 1 << 18 | recursive, "slave": 1 << 19, "rslave": 1 << 19 | recursive, "shared": 1 << 20,
    "rshared": 1 << 20 | recursive, "unbindable": 1 << 17, "runbindable": 1 << 17 | recursive,
  ]
  /// mount_setattr(2): MOUNT_ATTR_*.
  static let recursiveNames: [String: (clear: Bool, attribute: UInt64)] = [
    "rro": (false, 1), "rrw": (true, 1), "rnosuid": (false, 2), "rsuid": (true, 2), "rnodev": (false, 4), "rdev": (true, 4),
    "rnoexec": (false, 8), "rexec": (true, 8), "rnodiratime": (false, 0x80), "rdiratime": (true, 0x80), "rnosymfollow": (false, 0x20_0000),
    "rsymfollow": (true, 0x20_0000),
    // Access times are one field of which relatime is the zero: what takes a way of keeping them away leaves that one, wherever it was set.
    "rnoatime": (false, 0x10), "ratime": (true, 0x10), "rstrictatime": (false, 0x20), "rnostrictatime": (true, 0x20), "rrelatime": (true, times),
    "rnorelatime": (true, 0),
  ]
  private static let times: UInt64 = 0x30
  /// Every name that is understood.
  public static let names: [String] =
    (Array(flagNames.keys) + Array(propagationNames.keys) + Array(recursiveNames.keys) + [
      "idmap", "ridmap", "tmpcopyup", "src-nofollow", "dest-nofollow", "copy-symlink",
    ]).sorted()
  /// Named by the specification or by runc, and not done here.
  static let refused: Set<String> = ["acl", "noacl"]

  /// Throws for what is known and cannot be done, with `path` before the index.
  public init(_ options: [String], path: String) throws(OCIError) {
    for (index, option) in options.enumerated() {
      if let known = Self.flagNames[option] {
        if known.clear {
          flags &= ~known.flag
          cleared |= known.flag
        } else {
          flags |= known.flag
          cleared &= ~known.flag
        }
      } else if let value = Self.propagationNames[option] {
        propagation = value
      } else if let known = Self.recursiveNames[option] {
        if known.clear {
          recursiveSet &= ~known.attribute
          recursiveCleared |= known.attribute
        } else {
          if known.attribute & Self.times != 0 { recursiveSet &= ~Self.times }
          recursiveSet |= known.attribute
          recursiveCleared &= ~known.attribute
        }
      } else if option == "tmpcopyup" {
        copyUp = true
      } else if option == "src-nofollow" {
        bindsLink = true
      } else if option == "dest-nofollow" {
        coversLink = true
      } else if option == "copy-symlink" {
        copiesLink = true
      } else if option == "idmap" || option == "ridmap" || option.hasPrefix("idmap=") || option.hasPrefix("ridmap=") {
        idMap = try Self.idMap(option, "\(path).options[\(index)]")
      } else if Self.refused.contains(option) {
        throw OCIError("\(path).options[\(index)]", "\"\(option)\" is not supported")
      } else {
        data.append(option)
      }
    }
  }
}

extension MountOptions {
  private static func idMap(_ option: String, _ path: String) throws(OCIError) -> IDMap {
    var map = IDMap(recursive: option.hasPrefix("r"))
    for kind in option.split(separator: "=", maxSplits: 1).dropFirst().joined().split(separator: ";") {
      let halves = kind.split(separator: "=", maxSplits: 1)
      guard halves.count == 2, halves[0] == "uids" || halves[0] == "gids" else { throw OCIError(path, "\"\(kind)\" is neither uids=… nor gids=…") }
      for range in halves[1].split(separator: "#") {
        let numbers = range.split(separator: "-", omittingEmptySubsequences: false).map { UInt32($0) }
        guard numbers.count == 3, let first = numbers[0], let host = numbers[1], let size = numbers[2] else {
          throw OCIError(path, "\"\(range)\" is not ID-HOSTID-SIZE")
        }
        let mapping = Config.IDMapping(containerID: first, hostID: host, size: size)
        if halves[0] == "uids" { map.uids.append(mapping) } else { map.gids.append(mapping) }
      }
    }
    return map
  }

  /// `linux.rootfsPropagation` as mount(2)'s flags; 0 when absent.
  public static func propagation(_ name: String?) -> UInt64 { name.flatMap { propagationNames[$0] } ?? 0 }
}
