import AgentImage
import Glibc
import LinuxSystem
import Model
import Testing

@testable import Build

/// busybox's HTTP server on a loopback port, gone with the test.
private final class Server: @unchecked Sendable {
  // Written in init alone.
  private var process: pid_t = 0
  let port = Int.random(in: 30_000..<32_000)
  let folder: String

  init(_ folder: String) async throws {
    self.folder = folder
    try Files.makeDirectories(folder + "/sub", mode: 0o755)
    var arguments: [UnsafeMutablePointer<CChar>?] = ["busybox", "httpd", "-f", "-p", "127.0.0.1:\(port)", "-h", folder].map { (word: String) in
      strdup(word)
    }
    arguments.append(nil)
    let result = posix_spawn(&process, "/bin/busybox", nil, nil, arguments, environ)
    arguments.forEach { free($0) }
    guard result == 0 else { throw SystemError("start", "busybox httpd", Errno(result)) }
  }
  deinit {
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
  }
}

@Suite("ADD and COPY's flags", .serialized, .enabled(if: geteuid() == 0))
struct AddTests {
  @Test("ADD of a URL: the file as it is, mode 0600, the server's time; cached by content; a checksum that must hold")
  func urls() async throws {
    let world = try await World()
    let server = try await Server(world.folder + "/www")
    try Files.writeAtomically(server.folder + "/sub/tool.tar", Files.read(world.folder + "/base.tar"), mode: 0o644, durable: false)
    try Files.writeAtomically(server.folder + "/one", "1", mode: 0o644, durable: false)
    let time = timespec(tv_sec: 1_000_000_000, tv_nsec: 0)
    try check(utimensat(AT_FDCWD, server.folder + "/one", [time, time], 0), "set the times of", "one")
    let url = "http://127.0.0.1:\(server.port)"
    let checksum = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    let file = """
      FROM base:1
      ARG FROM=\(url)
      ADD $FROM/one $FROM/sub/tool.tar /files/
      ADD --chmod=0755 --chown=app --checksum=\(checksum) \(url)/one?x=y /named
      ADD \(url)/one /one.d/
      """
    let result = try await world.build(["Dockerfile": file])
    let seen = try await world.run(
      result.image, "cd /; cat named; stat -c ' %a %u:%g %Y' named; stat -c '%n %a %u:%g %Y' files/one one.d/one; stat -c '%F %a' files/tool.tar")
    #expect(
      seen == """
        1 755 1000:1001 1000000000
        files/one 600 0:0 1000000000
        one.d/one 600 0:0 1000000000
        regular file 600

        """)
    #expect(try await world.build(["Dockerfile": file]).steps.filter { $0.contains("(cached)") }.count == 3)
    try Files.writeAtomically(server.folder + "/one", "2", mode: 0o644, durable: false)
    let changed = await #expect(throws: BuildError.self) { try await world.build(["Dockerfile": file]) }
    #expect(changed?.description.contains("its content has the checksum sha256:d4735e3a") == true, "\(String(describing: changed))")
    for (line, why) in [
      ("ADD \(url)/none /x", "the server has it not (404)"), ("ADD \(url)/ /x/", "the URL ends with no file's name"),
      ("ADD --checksum=\(checksum) Dockerfile /x", "--checksum is for one source that is a URL"),
      ("COPY \(url)/one /x", "COPY takes no URL, ADD does"),
      ("ADD https://example.test/a.git /x", "git repositories are not supported"),
      ("ADD --checksum=sha256:1 \(url)/one /x", "expected sha256: and 64 digits"),
    ] {
      let error = await #expect(throws: BuildError.self) { try await world.build(["Dockerfile": "FROM base:1\n" + line]) }
      #expect(error?.description.contains(why) == true, "\(line): \(String(describing: error))")
    }
    let long = await #expect(throws: ImageError.self) {
      try await world.store.download(url + "/sub/tool.tar", to: world.folder + "/long", limit: 1000)
    }
    #expect(long?.description.contains("more than 1000 bytes") == true)
  }

  @Test("COPY --parents keeps the folders above, from a pivot on; --exclude leaves out, files and below folders; both decide the cache")
  func flags() async throws {
    let world = try await World()
    let files = ["x/a.txt": "a", "x/a.md": "m", "y/a.txt": "b", "y/deep/c.txt": "c", "y/deep/c.md": "d"]
    func build(_ lines: String) async throws -> String {
      var files = files
      files["Dockerfile"] = "FROM base:1\n" + lines
      return try await world.run(try await world.build(files).image, "cd /t; find . -type f | sort")
    }
    #expect(try await build("COPY --parents x/a.txt y/a.txt /t") == "./x/a.txt\n./y/a.txt\n")
    #expect(try await build("COPY --parents=true y/./deep x/./*.txt /t/") == "./a.txt\n./deep/c.md\n./deep/c.txt\n")
    #expect(try await build("COPY --parents=false y/deep x/*.txt /t/") == "./a.txt\n./c.md\n./c.txt\n")
    #expect(try await build("COPY --exclude=*.md x/* y/deep /t/") == "./a.txt\n./c.txt\n")
    #expect(try await build("COPY --exclude=*.md y /t/") == "./a.txt\n./deep/c.md\n./deep/c.txt\n")
    #expect(try await build("COPY --link --exclude=**/*.md --exclude=a.* y /t/") == "./deep/c.txt\n")
    #expect(try await build("ADD --exclude=deep y /t/") == "./a.txt\n")
    let nothing = await #expect(throws: BuildError.self) { try await build("COPY --exclude=*.txt x/a.txt /t/") }
    #expect(nothing?.description.contains("--exclude leaves nothing of x/a.txt") == true)
  }
}
