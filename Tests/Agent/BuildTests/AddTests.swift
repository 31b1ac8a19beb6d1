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
  private(set) var port = 0
  let folder: String

  init(_ folder: String) async throws {
    self.folder = folder
    try Files.makeDirectories(folder + "/sub", mode: 0o755)
    // Another may take the port between its choice and the server's start, which then ends.
    for _ in 0..<10 {
      port = try Self.unusedPort()
      var arguments: [UnsafeMutablePointer<CChar>?] = ["busybox", "httpd", "-f", "-p", "127.0.0.1:\(port)", "-h", folder].map { (word: String) in
        strdup(word)
      }
      arguments.append(nil)
      let result = posix_spawn(&process, "/bin/busybox", nil, nil, arguments, environ)
      arguments.forEach { free($0) }
      guard result == 0 else { throw SystemError("start", "busybox httpd", Errno(result)) }
      while waitpid(process, nil, WNOHANG) == 0 {
        if (try Self.onPort(port) { Glibc.connect($0, $1, $2) }).result == 0 { return }
        try await Task.sleep(for: .milliseconds(20))
      }
      process = 0
    }
    throw SystemError("start", "busybox httpd", .busy)
  }
  deinit {
    guard process > 0 else { return }
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
  }

  private static func unusedPort() throws -> Int {
    let bound = try onPort(0) { Glibc.bind($0, $1, $2) }
    try check(bound.result, "bind", "a port of 127.0.0.1")
    return bound.port
  }
  /// Calls with a new socket and the address; the port is the socket's afterwards.
  private static func onPort(_ port: Int, _ call: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32) throws -> (result: Int32, port: Int) {
    let socket = OwnedDescriptor(
      owning: try check(Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0), "make", "a socket"))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port).bigEndian)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    return withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        let result = call(socket.rawValue, pointer, length)
        getsockname(socket.rawValue, pointer, &length)
        return (result, Int(UInt16(bigEndian: UnsafeRawPointer(pointer).load(as: sockaddr_in.self).sin_port)))
      }
    }
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
      ("ADD \(url)/.. /x/", "the URL ends with no file's name"),
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

  @Test("a source that is named twice is the later one, URL or not; changed content is a miss, a changed time alone is none")
  func order() async throws {
    let world = try await World()
    let server = try await Server(world.folder + "/www")
    let remote = server.folder + "/f"
    func serve(_ text: String, at seconds: Int) throws {
      try Files.writeAtomically(remote, text, mode: 0o644, durable: false)
      let time = timespec(tv_sec: seconds, tv_nsec: 0)
      try check(utimensat(AT_FDCWD, remote, [time, time], 0), "set the times of", remote)
    }
    try serve("remote", at: 1_000_000_000)
    let url = "http://127.0.0.1:\(server.port)/f"
    func build(_ sources: String) async throws -> (text: String, steps: [String]) {
      let result = try await world.build(["Dockerfile": "FROM base:1\nADD \(sources) /x/", "f": "local", "d/f": "folder"])
      return (try await world.run(result.image, "cat /x/f"), result.steps)
    }
    #expect(try await build("\(url) f").text == "local")
    #expect(try await build("f \(url)").text == "remote")
    #expect(try await build("\(url) f \(url)").text == "remote")
    #expect(try await build("\(url) d").text == "folder")
    func isCached() async throws -> Bool { try await build("f \(url)").steps.last?.hasSuffix("(cached)") == true }
    #expect(try await isCached())
    try serve("remote", at: 1_100_000_000)
    #expect(try await isCached())
    try serve("remotE", at: 1_100_000_000)
    #expect(try await !isCached())
    #expect(try await build("f \(url)").text == "remotE")
  }

  @Test("what a build's URLs bring has one bound for all of them")
  func budget() async throws {
    let world = try await World(remoteBytesMax: 5)
    let server = try await Server(world.folder + "/www")
    for name in ["a", "b"] { try Files.writeAtomically("\(server.folder)/\(name)", "123", mode: 0o644, durable: false) }
    let url = "http://127.0.0.1:\(server.port)"
    _ = try await world.build(["Dockerfile": "FROM base:1\nADD \(url)/a /x/"])
    let error = await #expect(throws: BuildError.self) { try await world.build(["Dockerfile": "FROM base:1\nADD \(url)/a /x/\nADD \(url)/b /x/"]) }
    #expect(
      error?.description.contains("line 3") == true && error?.description.contains("the URLs of one build may have 5 bytes together") == true,
      "\(String(describing: error))")
  }

  @Test(
    "ADD unpacks tars in xz, bzip2 and of the seventh edition; what is packed and no tar, or damaged, it copies",
    .enabled(if: ["xz", "bzip2", "tar"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 || access("/bin/" + $0, X_OK) == 0 }))
  func archives() async throws {
    let world = try await World()
    func made(_ script: String) throws -> [UInt8] {
      try #require(system("mkdir -p \(world.folder)/pack && cd \(world.folder)/pack && echo hello > member && (\(script)) > ../packed") == 0)
      return try Files.read(world.folder + "/packed")
    }
    let files = [
      "a.tar.xz": try made("tar -c member | xz"), "b.tar.bz2": try made("tar -c member | bzip2"), "c": try made("tar --format=v7 -c member"),
      "d.tar.gz": try made("tar --format=v7 -c member | gzip"), "dump.xz": try made("xz -c member"), "dump.bz2": try made("bzip2 -c member"),
      "text": Array("BZh is how this text begins".utf8), "cut.tar.xz": Array(try made("tar -c member | xz").prefix(40)),
      "zeros": [UInt8](repeating: 0, count: 4096),
    ]
    let lines = files.keys.sorted().map { "ADD \($0) /t/\($0)/" }.joined(separator: "\n")
    let result = try await world.build(["Dockerfile": "FROM base:1\n" + lines], bytes: files)
    #expect(
      try await world.run(result.image, "cd /t; find . -type f | sort") == """
        ./a.tar.xz/member
        ./b.tar.bz2/member
        ./c/member
        ./cut.tar.xz/cut.tar.xz
        ./d.tar.gz/member
        ./dump.bz2/dump.bz2
        ./dump.xz/dump.xz
        ./text/text
        ./zeros/zeros

        """)
    // How bases of distributions are made.
    try #require(system("cd \(world.folder)/base && tar -cJf ../rootfs.tar.xz .") == 0)
    let base = try await world.build(
      ["Dockerfile": "FROM scratch\nADD rootfs.tar.xz /\nENV PATH=/bin\nRUN id -u"],
      bytes: ["rootfs.tar.xz": try Files.read(world.folder + "/rootfs.tar.xz")])
    #expect(base.output == "0\n")
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
    #expect(try await build("COPY --parents y/../x/../y/./deep /t") == "./deep/c.md\n./deep/c.txt\n")
    #expect(try await build("COPY --parents x/./../y/deep /t") == "./y/deep/c.md\n./y/deep/c.txt\n")
    #expect(try await build("COPY --exclude=*.md x/* y/deep /t/") == "./a.txt\n./c.txt\n")
    #expect(try await build("COPY --exclude=*.md y /t/") == "./a.txt\n./deep/c.md\n./deep/c.txt\n")
    #expect(try await build("COPY --link --exclude=**/*.md --exclude=a.* y /t/") == "./deep/c.txt\n")
    #expect(try await build("ADD --exclude=deep y /t/") == "./a.txt\n")
    let nothing = await #expect(throws: BuildError.self) { try await build("COPY --exclude=*.txt x/a.txt /t/") }
    #expect(nothing?.description.contains("--exclude leaves nothing of x/a.txt") == true)
    let unfinished = await #expect(throws: BuildError.self) { try await build("COPY x/a.txt /t/\nADD --exclude=[a x/a.txt /t/") }
    #expect(
      unfinished?.description.contains("line 3: ADD --exclude: the pattern '[a' does not end") == true, "\(String(describing: unfinished))")
  }
}
