import CLinux
import Glibc

/// mount(2) and umount2(2) with the flags by name.
public enum Mounts {
  public struct Flags: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let readOnly = Flags(rawValue: 1)
    public static let noSetUserID = Flags(rawValue: 2)
    public static let noDevices = Flags(rawValue: 4)
    public static let noExecute = Flags(rawValue: 8)
    public static let remount = Flags(rawValue: 32)
    public static let bind = Flags(rawValue: 4096)
    public static let recursive = Flags(rawValue: 16384)
    public static let makePrivate = Flags(rawValue: 1 << 18)
    public static let makeSlave = Flags(rawValue: 1 << 19)
    public static let makeShared = Flags(rawValue: 1 << 20)
  }

  public static func mount(_ source: String, on target: String, type: String? = nil, _ flags: Flags = [], data: String? = nil) throws(SystemError) {
    try checkResult(clinux_mount(source, target, type, flags.rawValue, data), "mount \(type ?? source) on", target)
  }

  /// Lazy; fine when nothing is mounted there.
  public static func detach(_ target: String) throws(SystemError) {
    let result = clinux_umount(target, Int32(CLINUX_MNT_DETACH) | 8 /* UMOUNT_NOFOLLOW */)
    if result == -EINVAL || result == -ENOENT { return }
    try checkResult(result, "unmount", target)
  }
}
