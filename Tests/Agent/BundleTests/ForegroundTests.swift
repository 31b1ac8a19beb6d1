import Foundation
import Glibc
import LinuxSystem
import Testing

/// A process in the foreground: its terminal and its signals.
@Suite(.enabled(if: isRoot), .serialized) struct ForegroundTests {
  @Test("a terminal is its user's, who opens it by name; its group stays tty")
  func owner() throws {
    let world = try BundleWorld()
    try world.specify()
    let script = "stat -c %u:%g:%a /dev/pts/0 /dev/console; echo again > /dev/stdout && echo too > /dev/console && echo fine"
    try world.configure(["sh", "-c", script]) { config in
      config.object("process") {
        $0["terminal"] = true
        $0["user"] = ["uid": 1000, "gid": 1000]
      }
    }
    let result = try world.call(["run", "--bundle", world.bundle, "one"])
    #expect(result.out == "1000:5:620\r\n1000:5:620\r\nagain\r\ntoo\r\nfine\r\n", "\(result)")
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "two"]).code == 0)
    let more = try world.call(["exec", "-t", "-u", "1000:1000", "two", "sh", "-c", "stat -c %u:%g $(tty); echo again > /dev/stdout && echo fine"])
    #expect(more.out == "1000:5\r\nagain\r\nfine\r\n", "\(more)")
    #expect(try world.call(["delete", "-f", "two"]).code == 0)
  }

  @Test("much input does not stand against much output")
  func both() throws {
    let world = try BundleWorld()
    try world.specify()
    let (input, script) = (world.folder + "/input", world.folder + "/script")
    let text = String(repeating: "a line that comes back while the next ones are still going in\n", count: 16_000)
    try Files.writeAtomically(input, text, durable: false)
    try world.configure(["sh", "-c", "stty -echo; tee /tmp/got"]) { $0.object("process") { $0["terminal"] = true } }
    try Files.writeAtomically(
      script, "#!/bin/sh\nexec timeout -s KILL 100 \(world.program) --root \(world.folder)/root run --bundle \(world.bundle) one\n", mode: 0o755,
      durable: false)
    let result = try world.call([], program: script, input: input)
    #expect(result.code == 0 && result.out.utf8.count >= text.utf8.count, "\(result.code), \(result.out.utf8.count) bytes, \(result.err)")
    #expect(try Files.text(world.bundle + "/rootfs/tmp/got") == text)
  }

  @Test("a run that ends deletes its own container, not another that has its name by then")
  func namesake() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    let words = [world.program, "--root", world.folder + "/root", "run", "--bundle", world.bundle, "one"]
    let first = try ChildProcess.start(world.program, words) { posix_spawn_file_actions_addopen(&$0, 0, "/dev/null", O_RDONLY, 0) }
    for _ in 0..<2000 {
      if try world.call(["state", "one"]).out.contains("\"running\"") { break }
      usleep(20_000)
    }
    // It hears of its process's end when all is done.
    kill(first, SIGSTOP)
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    let second = try world.call(["run", "-d", "--bundle", world.bundle, "one"])
    #expect(second.code == 0, "\(second)")
    kill(first, SIGCONT)
    #expect(ChildProcess.exitCode(ChildProcess.reap(first)) == 128 + SIGKILL)
    #expect(try world.state("one")["status"] as? String == "running")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("every signal is handed on, and one that comes too early does not leave the container behind", arguments: ["run", "exec"])
  func signals(_ command: String) throws {
    let world = try BundleWorld()
    try world.specify()
    let (script, pidFile, rootfs) = (world.folder + "/script", world.folder + "/pid", world.bundle + "/rootfs")
    let program =
      "for i in 3 10 20 21 30 37 64; do trap \"echo $i >> /tmp/told\" $i; done; trap 'exit 9' TERM; echo > /tmp/up; while true; do sleep 0.05; done"
    var arguments = "run --bundle \(world.bundle) one"
    if command == "exec" {
      try world.configure(["sleep", "1000"])
      #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
      arguments = "exec one sh /program"
      try Files.writeAtomically(rootfs + "/program", program, durable: false)
    } else {
      let wait = "echo > \(world.folder)/waits; while ! [ -e \(world.folder)/go ]; do sleep 0.05; done"
      try world.configure(["sh", "-c", program]) { config in
        config.object("hooks") { $0["createRuntime"] = [["path": "/bin/sh", "args": ["sh", "-c", wait], "timeout": 60]] }
      }
    }
    try Files.writeAtomically(
      script, "#!/bin/sh\necho $$ > \(pidFile)\nexec \(world.program) --root \(world.folder)/root \(arguments)\n", mode: 0o755, durable: false)
    let done = DispatchSemaphore(value: 0)
    let result = Box()
    Thread {
      result.value = try? world.call([], program: script)
      done.signal()
    }.start()
    func wait(for file: String) { for _ in 0..<2000 where !Files.exists(file) { usleep(20_000) } }
    func runtime() throws -> Int32 { try #require(Int32(try Files.text(pidFile).filter { $0 != "\n" })) }
    if command == "run" {
      wait(for: world.folder + "/waits")
      #expect(kill(try runtime(), SIGUSR2) == 0)
      #expect(done.wait(timeout: .now() + 1) == .timedOut, "\(String(describing: result.value))")
      try Files.writeAtomically(world.folder + "/go", "", durable: false)
    }
    wait(for: rootfs + "/tmp/up")
    for signal in [3, 10, 20, 21, 30, 37, 64] as [Int32] {
      #expect(kill(try runtime(), signal) == 0)
      for _ in 0..<1000 where !told().contains("\(signal)") { usleep(20_000) }
    }
    func told() -> [String] { ((try? Files.text(rootfs + "/tmp/told")) ?? "").split(separator: "\n").map(String.init) }
    #expect(told() == ["3", "10", "20", "21", "30", "37", "64"])
    #expect(kill(try runtime(), SIGTERM) == 0)
    #expect(done.wait(timeout: .now() + 60) == .success)
    #expect(result.value?.code == 9, "\(String(describing: result.value))")
    if command == "exec" { #expect(try world.call(["delete", "-f", "one"]).code == 0) }
    #expect(try world.call(["list", "-q"]).out == "")
  }
}
