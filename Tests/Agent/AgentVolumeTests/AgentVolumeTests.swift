import Foundation
import Testing

@testable import AgentVolume

struct VolumeStoreTests {
  private func withFolder(_ body: (String) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("orch-volume-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try await body(folder)
  }

  @Test("a volume is made once, keeps its content, and is removed only when nobody uses it")
  func life() async throws {
    try await withFolder { folder in
      let store = try VolumeStore(directory: "\(folder)/volumes")
      let path = try await store.prepare("db", user: "a", copyFrom: [], target: "/data")
      try "x".write(toFile: "\(path)/file", atomically: true, encoding: .utf8)
      #expect(try await store.prepare("db", user: "b", copyFrom: [], target: "/data") == path)
      #expect(FileManager.default.fileExists(atPath: "\(path)/file"))
      store.release(user: "a")
      await #expect(throws: VolumeError.self) { try await store.remove("db") }
      store.release(user: "b")
      try await store.remove("db")
      #expect(!FileManager.default.fileExists(atPath: path))
      try await store.remove("db")
    }
  }

  @Test("a new volume begins with what the image has there; upper layers win; links lead nowhere outside", .enabled(if: geteuid() == 0))
  func copyUp() async throws {
    try await withFolder { folder in
      let files = FileManager.default
      for layer in ["base/var/data/sub", "upper/var/data"] {
        try files.createDirectory(atPath: "\(folder)/\(layer)", withIntermediateDirectories: true)
      }
      try "one".write(toFile: "\(folder)/base/var/data/a", atomically: true, encoding: .utf8)
      try "old".write(toFile: "\(folder)/base/var/data/sub/b", atomically: true, encoding: .utf8)
      try "two".write(toFile: "\(folder)/upper/var/data/a", atomically: true, encoding: .utf8)
      try files.createSymbolicLink(atPath: "\(folder)/base/var/data/passwd", withDestinationPath: "/etc/passwd")
      try files.createSymbolicLink(atPath: "\(folder)/base/link", withDestinationPath: "../../../../../../etc")
      #expect(mknod("\(folder)/upper/var/data/sub", S_IFCHR | 0o600, 0) == 0)
      let store = try VolumeStore(directory: "\(folder)/volumes")
      let path = try await store.prepare("v", user: "u", copyFrom: ["\(folder)/base", "\(folder)/upper"], target: "/var/data")
      #expect(try String(contentsOfFile: "\(path)/a", encoding: .utf8) == "two")
      #expect(!files.fileExists(atPath: "\(path)/sub"))
      #expect(try files.destinationOfSymbolicLink(atPath: "\(path)/passwd") == "/etc/passwd")
      let outside = try await store.prepare("w", user: "u", copyFrom: ["\(folder)/base"], target: "/link")
      #expect(try files.contentsOfDirectory(atPath: outside) == [])
    }
  }

  @Test("names that could leave the folder are refused", arguments: ["", ".", "..", "../x", "a/b", "-x", "é", String(repeating: "a", count: 201)])
  func names(name: String) async throws {
    try await withFolder { folder in
      let store = try VolumeStore(directory: folder)
      await #expect(throws: VolumeError.self) { try await store.prepare(name, user: "u", copyFrom: [], target: "/") }
    }
  }

  @Test("a bind mount's source must be there, or is made when asked for")
  func bind() async throws {
    try await withFolder { folder in
      let store = try VolumeStore(directory: "\(folder)/volumes")
      await #expect(throws: VolumeError.self) { try await store.checkBind("\(folder)/none", create: false) }
      await #expect(throws: VolumeError.self) { try await store.checkBind("relative", create: true) }
      try await store.checkBind("\(folder)/none", create: true)
      try await store.checkBind("\(folder)/none", create: false)
    }
  }
}
