import CLinux
import Foundation
import Glibc
import LinuxSystem
import Testing

let isRoot = geteuid() == 0
let crun: String? = ["/usr/bin/crun", "/usr/local/bin/crun"].first { Files.exists($0) }
let runc: String? = ["/usr/sbin/runc", "/usr/bin/runc"].first { Files.exists($0) }

/// A busybox bundle in a temporary folder, and a runtime's program that is driven by its command line.
final class BundleWorld: Sendable {
  let folder: String
  let bundle: String
  let program: String

  init(program: String? = nil) throws {
    folder = "/tmp/orch-bundle-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    bundle = folder + "/bundle"
    let rootfs = bundle + "/rootfs"
    for name in ["bin", "etc", "tmp", "up/below", "home"] { try Files.makeDirectories(rootfs + "/" + name, mode: 0o755) }
    chmod(rootfs + "/tmp", 0o1777)
    try Files.writeAtomically(rootfs + "/bin/busybox", try Files.read("/bin/busybox"), mode: 0o755, durable: false)
    for name in [
      "sh", "true", "false", "sleep", "cat", "id", "env", "echo", "hostname", "dnsdomainname", "ls", "pwd", "kill", "mount", "grep", "touch", "mkdir",
      "stty", "ionice", "mknod", "chmod", "stat", "readlink", "ps", "tty", "dd", "head", "ulimit", "cut", "wc", "tee",
    ] {
      symlink("busybox", rootfs + "/bin/" + name)
    }
    try Files.writeAtomically(rootfs + "/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n", mode: 0o644, durable: false)
    try Files.writeAtomically(rootfs + "/up/file", "from the image\n", mode: 0o640, durable: false)
    try Files.writeAtomically(rootfs + "/up/below/deep", "deep\n", mode: 0o644, durable: false)
    let here = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    let candidates = [here + "/orch-runtime", ".build/debug/orch-runtime"]
    self.program = program ?? candidates.first { Files.exists($0) } ?? candidates[0]
  }
  deinit {
    for id in ids { _ = try? call(["delete", "--force", id]) }
    try? Files.removeTree(folder)
  }
  private var ids: [String] { (try? Files.list(folder + "/root")) ?? [] }

  /// config.json: the default one with `edit`.
  func configure(_ args: [String], _ edit: (inout [String: Any]) -> Void = { _ in }) throws {
    var config = try JSONSerialization.jsonObject(with: Data(try Files.read(folder + "/spec.json"))) as! [String: Any]
    var process = config["process"] as! [String: Any]
    process["terminal"] = false
    process["args"] = args
    config["process"] = process
    config["root"] = ["path": "rootfs", "readonly": false]
    // By default it is named by the id alone, which tests that run side by side share.
    config.object("linux") { $0["cgroupsPath"] = "/orch-bundle-test-\(getpid())-\(UInt32.random(in: 0 ... .max))" }
    edit(&config)
    try Files.writeAtomically(bundle + "/config.json", Array(try JSONSerialization.data(withJSONObject: config)), durable: false)
  }
  /// Writes the default configuration once.
  func specify(_ program: String? = nil) throws {
    let result = try call(["spec", "--bundle", folder], program: program)
    try #require(result.code == 0, "\(result.err)")
    rename(folder + "/config.json", folder + "/spec.json")
  }

  struct Result {
    var code: Int32
    var out: String
    var err: String
  }
  /// The runtime's program to its end; outputs by files, since a container keeps them.
  func call(_ arguments: [String], program other: String? = nil, input: String? = nil) throws -> Result {
    let mark = "\(folder)/call-\(UInt32.random(in: 0 ... .max))"
    defer { for end in [".out", ".err"] { unlink(mark + end) } }
    let pid = try ChildProcess.start(other ?? program, [other ?? program, "--root", folder + "/root"] + arguments) { actions in
      posix_spawn_file_actions_addopen(&actions, 0, input ?? "/dev/null", O_RDONLY, 0)
      posix_spawn_file_actions_addopen(&actions, 1, mark + ".out", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
      posix_spawn_file_actions_addopen(&actions, 2, mark + ".err", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
      _ = clinux_spawn_closefrom(&actions, 3)
    }
    return Result(code: ChildProcess.exitCode(ChildProcess.reap(pid)), out: try Files.text(mark + ".out"), err: try Files.text(mark + ".err"))
  }
  /// Configures and runs to the end.
  func run(_ script: String, _ edit: (inout [String: Any]) -> Void = { _ in }) throws -> Result {
    if !Files.exists(folder + "/spec.json") { try specify() }
    try configure(["sh", "-c", script], edit)
    return try call(["run", "--bundle", bundle, "c\(UInt32.random(in: 0 ... .max))"])
  }
  func state(_ id: String) throws -> [String: Any] {
    let result = try call(["state", id])
    try #require(result.code == 0, "\(result.err)")
    return try JSONSerialization.jsonObject(with: Data(result.out.utf8)) as! [String: Any]
  }
}

extension [String: Any] {
  /// Changes the object at this key, made when it is absent.
  mutating func object(_ key: String, _ edit: (inout [String: Any]) -> Void) {
    var inner = self[key] as? [String: Any] ?? [:]
    edit(&inner)
    self[key] = inner
  }
  mutating func append(_ key: String, _ value: Any) { self[key] = (self[key] as? [Any] ?? []) + [value] }
}
