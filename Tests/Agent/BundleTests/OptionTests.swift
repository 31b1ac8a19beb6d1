import CLinux
import Foundation
import Glibc
import LinuxSystem
import Testing

@testable import orch_runtime

/// What callers of runc and crun write.
@Suite(.enabled(if: isRoot), .serialized) struct OptionTests {
  @Test("options of crun and runc are taken, in every form of theirs")
  func taken() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    let made = try world.call([
      "--log-level", "debug", "--criu", "/usr/sbin/criu", "--rootless=false", "-debug", "run", "-detach", "-bundle", world.bundle, "--no-subreaper",
      "one",
    ])
    #expect(made.code == 0, "\(made)")
    #expect(try world.call(["create", "-bundle=\(world.bundle)", "-f", "config.json", "-no-subreaper", "two"]).err.contains("is not empty"))
    // After the container's name all is the program's.
    #expect(try world.call(["exec", "-user", "1000:1000", "one", "echo", "-user", "-env", "--", "-x"]).out == "-user -env -- -x\n")
    #expect(try world.call(["update", "-cpu-quota", "-1", "-pids-limit=77", "one"]).code == 0)
    #expect(try world.call(["-V", "x"]).out.contains("orch-runtime version"))
    let spec = world.folder + "/else.json"
    #expect(try world.call(["spec", "-f", spec]).code == 0 && Files.exists(spec))
    let refused = try world.call(["update", "--l3-cache-schema", "L3:0=f", "one"])
    #expect(refused.code == 1 && refused.err.contains("--l3-cache-schema: is not supported"), "\(refused)")
    // Of 0, whether there is a process.
    #expect(try world.call(["kill", "one", "0"]).code == 0)
    #expect(try world.call(["kill", "one", "-1"]).code == 1)
    #expect(try world.call(["kill", "--regex", "^none$", "KILL"]).code == 0)
    #expect(try world.call(["kill", "-r", "^on", "KILL"]).code == 0)
    while try world.state("one")["status"] as? String != "stopped" { usleep(20_000) }
    let late = try world.call(["kill", "one", "0"])
    #expect(late.code == 1 && late.err.contains("container not running"), "\(late)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  /// What the parser itself has, as `--experimental-dump-help` tells it.
  private struct Help: Decodable {
    struct Command: Decodable {
      struct Argument: Decodable {
        struct Name: Decodable {
          var kind: String
          var name: String
        }
        var kind: String
        var names: [Name]?
      }
      var commandName: String
      var arguments: [Argument]?
      var subcommands: [Command]?
    }
    var command: Command
  }

  @Test("every option of every command is taken with one dash as well, and has the word after it when the parser gives it one")
  func everyOption() throws {
    let help = try JSONDecoder().decode(Help.self, from: Data(BundleWorld().call(["--experimental-dump-help"]).out.utf8)).command
    let commands = try #require(help.subcommands)
    let names = Set(commands.map(\.commandName))
    #expect(names.isSuperset(of: ["create", "exec", "update"]))
    var count = 0
    // `help` is the parser's own.
    for (before, arguments) in [([], help.arguments)] + commands.map({ ([$0.commandName], $0.arguments) }) where before != ["help"] {
      for argument in arguments ?? [] where argument.kind != "positional" {
        for name in argument.names ?? [] {
          // A word that is an option by itself, and stays as it is when it is a value.
          let next = argument.kind == "option" ? "-all" : "--all"
          let normal = (name.kind == "long" ? "--" : "-") + name.name
          for word in Set(["-" + name.name, normal]) {
            #expect(Words.normalized(before + [word, "-all"], commands: names).words == before + [normal, next])
          }
          count += 1
        }
      }
    }
    #expect(count > 100)
  }

  @Test("a relative --root is that of the caller's folder, whatever the bundle's is")
  func relativeRoot() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["true"])
    func call(_ arguments: String...) throws -> Int32 {
      // env changes to the folder before it executes.
      let words = ["/usr/bin/env", "-C", world.folder, world.program, "--root", "./root"] + arguments
      return ChildProcess.exitCode(ChildProcess.reap(try ChildProcess.start(words[0], words) { _ = clinux_spawn_closefrom(&$0, 3) }))
    }
    #expect(try call("create", "--bundle", "bundle", "one") == 0)
    #expect(!Files.exists(world.bundle + "/root"))
    #expect(try world.state("one")["status"] as? String == "created")
    #expect(try call("start", "one") == 0)
    #expect(try call("delete", "--force", "one") == 0)
    #expect(try call("run", "--bundle", "bundle", "two") == 0)
    #expect(try Files.list(world.folder + "/root").filter { !$0.hasPrefix("@") }.isEmpty)
  }

  @Test("--log is looked for before the command alone, where the parser failed")
  func ownLog() {
    #expect(Words.value(of: "--log", in: ["--root", "r", "--log", "f", "run"]) == "f")
    #expect(Words.value(of: "--log", in: ["--log=f", "run"]) == "f")
    #expect(Words.value(of: "--log", in: ["--root", "r", "run", "--log", "f"]) == nil)
    #expect(Words.value(of: "--log", in: ["run", "--bundle", "b", "--log", "f"]) == nil)
  }

  @Test("flags with a value: runc's by Go's words, crun's --tty by its own")
  func flagValues() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    let made = try world.call(["--debug=false", "--systemd-cgroup=0", "run", "--detach=true", "--no-pivot=F", "--bundle", world.bundle, "one"])
    #expect(made.code == 0, "\(made)")
    // Whether there is a terminal: in the foreground orch-runtime is its other end.
    for (word, isTerminal) in [
      ("--tty", true), ("--tty=true", true), ("--tty=TRUE", true), ("-t=1", true), ("-tty=yes", true), ("--tty=false", false), ("--tty=FALSE", false),
      ("--tty=no", false), ("-t=0", false), ("-tty=f", false),
    ] {
      let result = try world.call(["exec", word, "one", "sh", "-c", "tty >/dev/null && echo terminal"])
      #expect(result.out.hasPrefix("terminal") == isTerminal, "\(word): \(result)")
      #expect(result.code == (isTerminal ? 0 : 1), "\(word): \(result)")
    }
    // After the container's name all is the program's.
    #expect(try world.call(["exec", "one", "echo", "--tty=false", "-d=0"]).out == "--tty=false -d=0\n")
    let refused = try world.call(["exec", "--detach=perhaps", "one", "true"])
    #expect(refused.code == 1 && refused.err.contains("detach"), "\(refused)")
    #expect(try world.call(["delete", "--force=false", "one"]).code == 1)
    #expect(try world.call(["delete", "-f=true", "one"]).code == 0)
  }

  @Test("--log-level error hides warnings; --log takes file:, syslog: and journald:")
  func log() throws {
    let world = try BundleWorld()
    let file = world.folder + "/log"
    for (level, isSaid) in [("error", false), ("warning", true)] {
      try world.specify()
      try world.configure(["true"]) { config in config.object("process") { process in process.object("capabilities") { $0["bounding"] = ["CAP_NO"] } }
      }
      let result = try world.call(["--log-level", level, "--log", "file:" + file, "run", "--bundle", world.bundle, "one"])
      #expect(result.code == 0 && result.err.contains("CAP_NO") == isSaid, "\(result)")
      #expect((try Files.text(file)).contains("CAP_NO") == isSaid)
    }
    #expect(try world.call(["--log-level", "loud", "list"]).code == 1)

    // Each on a socket of ours, where a mount namespace has it.
    for (option, place, words) in [
      ("journald:here", "/run/systemd/journal/socket", ["PRIORITY=3\n", "ID=here\n", "container \"nobody\" does not exist\n"]),
      ("syslog:named", "/dev/log", ["<11>", "named[", "container \"nobody\" does not exist"]),
    ] {
      let socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
      defer { close(socket) }
      let path = world.folder + "/socket-" + option.prefix { $0 != ":" }
      try #require(bound(socket, path))
      let script = world.folder + "/script"
      let top = place.hasPrefix("/run") ? "/run" : "/dev"
      try Files.writeAtomically(
        script,
        """
        #!/bin/sh
        mount -t tmpfs none \(top) && mkdir -p $(dirname \(place)) && touch \(place) && mount --bind \(path) \(place) &&
        exec \(world.program) --root \(world.folder)/root --log \(option) state nobody
        """, mode: 0o755, durable: false)
      let outer = world.folder + "/outer"
      try Files.writeAtomically(outer, "#!/bin/sh\nexec unshare --mount \(script)\n", mode: 0o755, durable: false)
      let result = try world.call([], program: outer)
      #expect(result.code == 1 && result.err.contains("does not exist"), "\(result)")
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
      let text = String(decoding: bytes[..<max(count, 0)], as: UTF8.self)
      for word in words { #expect(text.contains(word), "\(option): \(text)") }
    }
  }

  @Test("--pidfd-socket is sent a pidfd, of create and of exec")
  func pidDescriptor() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(socket) }
    let path = world.folder + "/pidfd"
    try #require(bound(socket, path) && listen(socket, 4) == 0)
    func received() throws -> Int {
      var waiting = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      try #require(poll(&waiting, 1, 30_000) == 1)
      let connection = accept(socket, nil, nil)
      defer { close(connection) }
      var text = [UInt8](repeating: 0, count: 64)
      var descriptor: Int32 = -1
      let count = clinux_receive_fd(connection, &text, text.count, &descriptor)
      try #require(count > 0 && descriptor >= 0)
      defer { close(descriptor) }
      #expect(String(decoding: text[..<Int(count)], as: UTF8.self) == "pidfd-socket")
      let info = try Files.text("/proc/self/fdinfo/\(descriptor)").split(separator: "\n").first { $0.hasPrefix("Pid:") }
      return Int(info?.split(separator: "\t").last ?? "") ?? 0
    }
    let made = try world.call(["create", "--pidfd-socket", path, "--bundle", world.bundle, "one"])
    try #require(made.code == 0, "\(made)")
    #expect(try received() == world.state("one")["pid"] as? Int)
    #expect(try world.call(["start", "one"]).code == 0)
    let pidFile = world.folder + "/exec.pid"
    #expect(try world.call(["exec", "-d", "--pid-file", pidFile, "--pidfd-socket", path, "one", "sleep", "1000"]).code == 0)
    #expect(try received() == Int(Files.text(pidFile)))
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test(
    "an exec that cannot tell of its process leaves none behind",
    arguments: [["--pidfd-socket"], ["--pid-file"], ["--tty", "--console-socket"]])
  func untold(_ options: [String]) throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    // The end of its terminal alone does not end it.
    let failed = try world.call(["exec"] + options + [world.folder + "/none/such", "one", "sh", "-c", "trap '' HUP; exec sleep 1000"])
    #expect(failed.code != 0 && failed.err.contains("/none/such"), "\(failed)")
    #expect(try world.call(["ps", "-f", "json", "one"]).out == "[\(world.state("one")["pid"] as? Int ?? 0)]\n")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test(
    "what the command line has wrong is 1, as with runc, and in the log",
    arguments: [
      (["--bogus", "list"], "bogus"), (["list", "--bogus"], "bogus"), (["state"], "<id>"), (["kill"], "<id>"), (["nosuch"], "nosuch"),
      (["exec", "--preserve-fds", "x", "one", "true"], "preserve-fds"),
    ])
  func usage(_ arguments: [String], _ words: String) throws {
    let world = try BundleWorld()
    let file = world.folder + "/log"
    let result = try world.call(["--log", file, "--log-format", "json"] + arguments)
    #expect(result.code == 1 && result.err.contains(words), "\(result)")
    let entry = try? JSONDecoder().decode([String: String].self, from: Data(Files.read(file)))
    #expect(entry?["level"] == "error" && entry?["msg"]?.contains(words) == true, "\(entry ?? [:])")
    #expect(try world.call(["--help"]).code == 0)
  }

  private func bound(_ socket: Int32, _ path: String) -> Bool { (try? withUnixAddress(path) { bind(socket, $0, $1) }) == 0 }
}
