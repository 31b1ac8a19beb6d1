import CLinux
import Glibc
import LinuxSystem

/// Layers seen as one tree, by a descriptor: mounted, opened, and taken out of every path at once, so that a crash leaves no mount.
/// Blocking. The tree is gone when the descriptor is closed.
public struct RootTree: Sendable {
  public let descriptor: SharedDescriptor

  /// - Parameters:
  ///   - layers: folders, base first.
  ///   - work: an own, empty folder on the layers' file system.
  ///   - upper: what is written goes there; nil: read-only.
  public init(layers: [String], work: String, upper: String?) throws {
    for folder in ["mount", "work"] { try Files.makeDirectories("\(work)/\(folder)", mode: 0o755) }
    // Descriptors' names are short: a page is all that mount(2) takes. Two layers at least, or there is nothing to mount when read-only.
    var folders = Array(layers.reversed())
    while folders.count < 2 {
      folders.append("\(work)/empty\(folders.count)")
      try Files.makeDirectories(folders.last!, mode: 0o755)
    }
    let opened = try folders.map { SharedDescriptor(try .open($0, O_RDONLY | O_DIRECTORY)) }
    var data = "lowerdir=" + opened.map { "/proc/self/fd/\($0.rawValue)" }.joined(separator: ":")
    let sides = try [upper, upper == nil ? nil : "\(work)/work"].compactMap { $0 }.map { SharedDescriptor(try .open($0, O_RDONLY | O_DIRECTORY)) }
    if sides.count == 2 { data += ",upperdir=/proc/self/fd/\(sides[0].rawValue),workdir=/proc/self/fd/\(sides[1].rawValue)" }
    data += CLINUX_OVERLAY_OPTIONS
    let target = "\(work)/mount"
    guard data.utf8.count < 4000 else { throw SystemError("mount \(layers.count) layers on", target, Errno(E2BIG)) }
    try check(mount("overlay", target, "overlay", UInt(MS_NODEV | MS_NOSUID), data), "mount the layers on", target)
    defer { umount2(target, Int32(MNT_DETACH)) }
    descriptor = SharedDescriptor(try .open(target, O_RDONLY | O_DIRECTORY))
    withExtendedLifetime((opened, sides)) {}
  }
}
