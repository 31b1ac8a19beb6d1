import CLinux
import Glibc
import LinuxSystem
import Testing
import TreeArchive

@testable import Build

/// What overlayfs may leave in an upper folder that no layer can say.
@Suite("Upper folders", .serialized, .enabled(if: geteuid() == 0))
struct OverlayTests {
  private static let parameter = "/sys/module/overlay/parameters/metacopy"

  @Test("a file without its content, and a folder under another's name, are errors and no part of a layer", arguments: ["metacopy", "redirect"])
  func attributes(_ name: String) throws {
    let folder = try temporary()
    defer { try? Files.removeTree(folder) }
    try Files.makeDirectories(folder + "/sub")
    try Files.writeAtomically(folder + "/sub/file", "x", durable: false)
    let marked = try OwnedDescriptor.open(folder + (name == "metacopy" ? "/sub/file" : "/sub"), O_RDONLY)
    // An empty value is what the kernel writes (fs/overlayfs/util.c, ovl_set_metacopy_xattr).
    #expect(clinux_fsetxattr(marked.rawValue, "trusted.overlay.\(name)", "/x", name == "metacopy" ? 0 : 2) == 0)
    for isOverlay in [true, false] {
      var options = TreeArchive.Options()
      options.isOverlay = isOverlay
      let tree = try TreeArchive([.init(SharedDescriptor(try .open(folder, O_RDONLY | O_DIRECTORY)), "", as: "")], options)
      var chunk = [UInt8](repeating: 0, count: 1 << 16)
      let read = { while try chunk.withUnsafeMutableBytes({ try tree.read(into: $0) }) > 0 {} }
      // Elsewhere such a file is whatever it seems to be.
      if isOverlay { #expect(throws: SystemError.self) { try read() } } else { try read() }
    }
  }

  @Test(
    "where overlays copy metadata alone unless told not to, a step that changes a mode has the file's content in its layer",
    // The machine's: whoever sets it sees to it that nothing else mounts overlays then.
    .enabled(if: getenv("ORCH_TEST_METACOPY") != nil && access(parameter, W_OK) == 0))
  func metacopy() async throws {
    let before = try Files.text(Self.parameter)
    let set = { (value: String) throws in
      let file = try OwnedDescriptor.open(Self.parameter, O_WRONLY)
      try Files.writeAll(file.rawValue, Array(value.utf8), name: Self.parameter)
    }
    let world = try await World()
    try set("Y")
    defer { try? set(before) }
    let result = try await world.build(["Dockerfile": "FROM base:1\nRUN busybox chmod 600 /etc/passwd\nWORKDIR /etc\nRUN mv /srv /moved"])
    #expect(try await world.run(result.image, "busybox grep -c root /etc/passwd; ls -d /moved") == "1\n/moved\n")
    let layer = try #require(result.image.layerPaths.first { Files.exists($0 + "/etc/passwd") && !Files.exists($0 + "/bin") })
    #expect(try Files.text(layer + "/etc/passwd").contains("root"))
  }

  private func temporary() throws -> String {
    var template = Array("/tmp/orch-upper-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemError("make", "a folder", .current) }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
