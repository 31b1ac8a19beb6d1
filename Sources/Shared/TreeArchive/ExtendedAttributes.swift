import CLinux
import Glibc
import LinuxSystem

/// The extended attributes (xattr(7)) that an image carries: file capabilities, access control lists, and users' own. `trusted.`, `user.overlay.`
/// and the rest of `security.` and `system.` would speak to overlayfs and to the host.
public enum ExtendedAttributes {
  public static let capability = "security.capability"
  /// Names users and groups by numbers, as an owner is one: it grants nothing that owners and modes of an archive could not (acl(5)).
  public static let accessList = "system.posix_acl_access"
  /// A folder's: what is made in it inherits it.
  public static let defaultList = "system.posix_acl_default"

  public static func isKept(_ name: String) -> Bool {
    [capability, accessList, defaultList].contains(name) || (name.hasPrefix("user.") && !name.hasPrefix("user.overlay."))
  }

  /// Of an open file or folder; nil: it has none of that name, or its file system has none at all.
  public static func value(_ name: String, of descriptor: Int32) throws(SystemError) -> [UInt8]? {
    // Asked for the length first: most files have nothing.
    var count = clinux_fgetxattr(descriptor, name, nil, 0)
    var bytes: [UInt8] = []
    if count > 0 {
      bytes = [UInt8](repeating: 0, count: count)
      count = clinux_fgetxattr(descriptor, name, &bytes, count)
    }
    if count >= 0 { return Array(bytes.prefix(count)) }
    let error = Errno(Int32(-count))
    if error == Errno(ENODATA) || error == .unsupported { return nil }
    throw SystemError("read \(name) of", "a file", error)
  }

  /// Capabilities and lists of an open file or folder, in the order of their names.
  public static func named(of descriptor: Int32) throws(SystemError) -> [(name: String, value: [UInt8])] {
    var result: [(name: String, value: [UInt8])] = []
    for name in [capability, accessList, defaultList] {
      if let value = try value(name, of: descriptor) { result.append((name, value)) }
    }
    return result
  }
}
