import Glibc
import LinuxSystem
import Testing

@testable import Runtime

/// A small real world: a busybox root in a temporary folder, a runtime with its own folders and cgroup parent.
final class World: Sendable {
  let folder: String
  let layer: String
  let configuration: RuntimeConfiguration
  let runtime: ContainerRuntime
  static let parent = "orch-test-\(getpid())"

  init() throws {
    folder = "/tmp/orch-runtime-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    layer = folder + "/layer"
    for name in ["bin", "etc", "tmp", "home/app"] { try Files.makeDirectories(layer + "/" + name, mode: 0o755) }
    try Files.writeAtomically(layer + "/bin/busybox", try Files.read("/bin/busybox"), mode: 0o755, durable: false)
    for name in [
      "sh", "true", "false", "sleep", "cat", "id", "env", "echo", "hostname", "ls", "pwd", "kill", "head", "dd", "mount", "grep", "touch", "mkdir",
      "seq", "tail", "stty", "test", "mknod", "unshare", "chmod", "stat", "readlink", "wc", "ps", "printf", "tty",
    ] {
      symlink("busybox", layer + "/bin/" + name)
    }
    try Files.writeAtomically(
      layer + "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n4242:x:0:0::/:/bin/sh\n", mode: 0o644, durable: false
    )
    try Files.writeAtomically(layer + "/etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\nlogs:x:3000:\n", mode: 0o644, durable: false)
    let here = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    let candidates = [here + "/orch-init", ".build/debug/orch-init", ".build/x86_64-unknown-linux-gnu/debug/orch-init"]
    configuration = RuntimeConfiguration(
      stateDirectory: folder + "/state", dataDirectory: folder + "/data", cgroupParent: Self.parent,
      initPath: candidates.first { Files.exists($0) } ?? candidates[0])
    runtime = try ContainerRuntime(configuration: configuration)
  }
  deinit {
    try? Files.removeTree(folder)
    if let host = try? CgroupHost.detect() { try? host.group(parent: Self.parent, name: "").remove() }
  }

  func config(_ id: String, _ args: String...) -> ContainerConfig { ContainerConfig(id: id, layers: [layer], args: args) }
  func shell(_ id: String, _ script: String) -> ContainerConfig { ContainerConfig(id: id, layers: [layer], args: ["sh", "-c", script]) }

  func output(_ id: String) async throws -> (stdout: String, stderr: String) {
    var (out, err): ([UInt8], [UInt8]) = ([], [])
    for try await line in runtime.logs(id) { if line.stream == .stdout { out += line.bytes } else { err += line.bytes } }
    return (String(decoding: out, as: UTF8.self), String(decoding: err, as: UTF8.self))
  }
  /// Runs to the end and removes it.
  func run(_ config: ContainerConfig) async throws -> (exit: ContainerExit, stdout: String, stderr: String) {
    _ = try await runtime.start(config)
    let exit = try await runtime.wait(config.id)
    let (out, err) = try await output(config.id)
    try await runtime.delete(config.id)
    return (exit, out, err)
  }
}

import Cgroups

let isRoot = geteuid() == 0

@Suite(.enabled(if: isRoot), .serialized) struct LifeTests {
  @Test("a container runs, its exit code and output are kept, and nothing is left of it")
  func life() async throws {
    let world = try World()
    let (exit, out, err) = try await world.run(world.shell("life", "echo hello; echo oops >&2; printf rest; exit 7"))
    #expect(exit.code == 7)
    #expect(exit.signal == nil)
    #expect(!exit.oomKilled)
    #expect(out == "hello\nrest")
    #expect(err == "oops\n")
    #expect(try Files.list(world.configuration.stateDirectory + "/containers") == [])
    #expect(try Files.list(world.configuration.dataDirectory + "/containers") == [])
    let mounts = try Files.text("/proc/self/mountinfo")
    #expect(!mounts.contains(world.folder))
  }
}
