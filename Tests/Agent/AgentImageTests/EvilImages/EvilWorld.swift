import CLinux
import Glibc
import LinuxSystem
import Model
import Testing

@testable import AgentImage

/// A host with something to lose beside a store of images: what a hostile image may not touch.
final class EvilWorld: Sendable {
  let folder = Folder()
  var outside: String { folder.path + "/outside" }
  var images: String { folder.path + "/images" }
  /// Where absolute names lead; nothing may appear there.
  let canary: String
  let before: [String]

  init() throws {
    canary = folder.path + "/canary"
    try Files.makeDirectories(folder.path + "/outside/folder", mode: 0o755)
    try folder.write("outside/secret", Array("secret".utf8))
    try folder.write("outside/folder/inner", Array("inner".utf8))
    before = Self.look(folder.path, except: ["images", "evil.tar"])
  }

  func open() throws -> ImageStore {
    var configuration = ImageStoreConfiguration()
    configuration.maximumLayerBytes = 8 << 20
    configuration.maximumLayerEntries = 2000
    return try ImageStore(directory: images, configuration: configuration)
  }

  /// Every file below with what a trespasser would change: kind, mode, owner, links, size, times, overlayfs' marks, content.
  static func look(_ path: String, except: Set<String> = []) -> [String] {
    var lines: [String] = []
    func visit(_ path: String, _ depth: Int) {
      var status = stat()
      guard lstat(path, &status) == 0 else { return }
      let isFolder = status.st_mode & S_IFMT == S_IFDIR
      let content = status.st_mode & S_IFMT == S_IFREG ? (try? Digest(of: Files.read(path)).hex.prefix(8)).map(String.init) ?? "" : ""
      let opaque = clinux_lgetxattr(path, "trusted.overlay.opaque", nil, 0)
      let times = depth == 0 ? "" : "\(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
      lines.append(
        "\(path) \(status.st_mode) \(status.st_uid):\(status.st_gid) \(isFolder ? 0 : status.st_nlink) \(status.st_rdev) \(times) \(opaque) \(content)"
      )
      guard isFolder else { return }
      for name in (try? Files.list(path)) ?? [] where depth > 0 || !except.contains(name) { visit(path + "/" + name, depth + 1) }
    }
    visit(path, 0)
    return lines
  }

  /// What is wrong with the host now; empty: nothing.
  func damage() -> [String] {
    var found: [String] = []
    let after = Self.look(folder.path, except: ["images", "evil.tar"])
    if after != before { found.append("the host changed: \(Set(after).symmetricDifference(before).sorted())") }
    for path in [canary, "/orch-evil", "/tmp/orch-evil"] where status(path) != nil { found.append("\(path) was made") }
    if let left = try? Files.list(images + "/ingest"), !left.isEmpty { found.append("left in ingest: \(left)") }
    // Of devices only overlayfs' whiteouts, which are 0/0.
    func visit(_ path: String) {
      var status = stat()
      guard lstat(path, &status) == 0 else { return }
      let kind = status.st_mode & S_IFMT
      if (kind == S_IFCHR || kind == S_IFBLK) && status.st_rdev != 0 { found.append("a device: \(path)") }
      for name in [
        "trusted.overlay.redirect", "trusted.overlay.metacopy", "trusted.overlay.origin", "user.overlay.redirect", "system.posix_acl_access",
      ]
      where clinux_lgetxattr(path, name, nil, 0) >= 0 { found.append("\(name) on \(path)") }
      if kind == S_IFDIR { for name in (try? Files.list(path)) ?? [] { visit(path + "/" + name) } }
    }
    for layer in (try? Files.list(images + "/layers")) ?? [] { visit("\(images)/layers/\(layer)/fs") }
    return found
  }
}

/// One hostile image: how it is made, and what has to come of it.
struct Evil: Sendable, CustomTestStringConvertible {
  enum Outcome: Sendable {
    /// Nothing of it is kept; the error says this.
    case refused(String)
    /// It is taken, and the trick does nothing: checked on its layer's folder.
    case contained(@Sendable (String) -> Bool)
  }
  var name: String
  var outcome: Outcome
  /// The archive.
  var make: @Sendable (EvilWorld) -> [UInt8]
  var testDescription: String { name }

  /// Of a layer's members.
  static func layer(_ name: String, _ outcome: Outcome, _ fill: @escaping @Sendable (inout TarWriter, EvilWorld) -> Void) -> Evil {
    Evil(name: name, outcome: outcome) { world in
      var tar = TarWriter()
      fill(&tar, world)
      return savedImage(layers: [tar.finished()], name: "evil:1")
    }
  }
}
