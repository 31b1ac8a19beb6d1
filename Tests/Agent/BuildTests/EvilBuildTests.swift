import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import Build

/// A Dockerfile or a context that means harm.
struct EvilBuild: Sendable, CustomTestStringConvertible {
  var name: String
  /// HOST: a folder of the host with something to lose.
  var lines: String
  var files: [String: String] = [:]
  /// What the error says; nil: it is built, and the trick does nothing.
  var refusal: String?
  /// What RUNs write.
  var output: String?
  var testDescription: String { name }

  static let all: [EvilBuild] = [
    EvilBuild(name: "COPY of ..", lines: "COPY ../../etc/passwd /x", refusal: "leads out of the context"),
    EvilBuild(name: "a bind of ..", lines: "RUN --mount=target=/x,source=../../etc cat /x/passwd", refusal: "leads out of the context"),
    EvilBuild(name: "COPY of a link to the host", lines: "COPY l /x", files: ["l": "-> HOST/secret"], refusal: "it is not in the context"),
    EvilBuild(
      name: "COPY of a link upwards", lines: "COPY l /x", files: ["l": "-> ../../../../../..HOST/secret"], refusal: "it is not in the context"),
    EvilBuild(name: "COPY through a link", lines: "COPY l/secret /x", files: ["l": "-> HOST"], refusal: "it is not in the context"),
    EvilBuild(name: "COPY of a pattern through a link", lines: "COPY l/secre* /x/", files: ["l": "-> HOST"], refusal: "it is not in the context"),
    EvilBuild(
      name: "a bind of a link", lines: "RUN --mount=target=/x,source=l cat /x/secret", files: ["l": "-> HOST"], refusal: "it is not in the context"),
    EvilBuild(
      name: "COPY --from a stage, through a link", lines: "RUN busybox ln -s HOST /way\nFROM base:1\nCOPY --from=0 /way/secret /x",
      refusal: "it is not in that image or stage"),
    EvilBuild(
      name: "COPY of what .dockerignore leaves out", lines: "COPY a /", files: ["a": "1", ".dockerignore": "a"], refusal: "it is not in the context"),
    EvilBuild(
      name: "a Dockerfile that is a link", lines: "", files: ["Dockerfile": "-> HOST/Dockerfile"], refusal: "there is no Dockerfile in the context"),
    EvilBuild(name: "ADD of an archive with ..", lines: "ADD up.tar /x/", refusal: "its name leads out"),
    EvilBuild(name: "ADD of an archive whose link leads out", lines: "ADD link.tar /x/", refusal: "a part of its path is a symbolic link"),
    EvilBuild(name: "chown to 2^32", lines: "COPY --chown=4294967296 a /x", files: ["a": "1"], refusal: "4294967296 is not an id"),
    EvilBuild(name: "chown to 2^32 - 1", lines: "COPY --chown=4294967295 a /x", files: ["a": "1"], refusal: "4294967295 is not an id"),
    EvilBuild(
      name: "chown to a name that is a number",
      lines: "RUN echo 99999999999:x:0:0::/: >>/etc/passwd\nCOPY --chown=99999999999 a /x", files: ["a": "1"], refusal: "99999999999 is not an id"),
    EvilBuild(name: "WORKDIR of user 2^32", lines: "USER 4294967296\nWORKDIR /x", refusal: "4294967296 is not an id"),
    EvilBuild(name: "a group of 2^32", lines: "COPY --chown=app:4294967296 a /x", files: ["a": "1"], refusal: "4294967296 is not an id"),
    EvilBuild(name: "USER 2^32", lines: "USER 4294967296\nRUN id -u", refusal: "4294967296"),
    EvilBuild(name: "USER 2^32 - 1", lines: "USER 4294967295\nRUN id -u", refusal: "4294967295"),
    EvilBuild(
      name: "USER of a name that is a number", lines: "RUN echo 4294967296:x:0:0::/: >>/etc/passwd\nUSER 4294967296\nRUN id -u", refusal: "4294967296"
    ),
    EvilBuild(
      name: "a cache of user 2^32 - 1", lines: "RUN --mount=type=cache,target=/c,uid=4294967295 true", refusal: "uid=4294967295 is no number"),
    EvilBuild(name: "WORKDIR through an image's link", lines: "RUN busybox ln -s HOST /way\nWORKDIR /way/made", output: ""),
    EvilBuild(
      name: "COPY through an image's link", lines: "RUN busybox ln -s HOST /way\nCOPY a /way/secret\nCOPY a /way/made/a", files: ["a": "1"],
      output: ""),
    EvilBuild(
      name: "a step that puts a link where its mount was",
      lines: "RUN --mount=type=tmpfs,target=/p/folder/empty busybox mv /p /q && busybox ln -s HOST /p && echo moved", output: "moved\n"),
    EvilBuild(name: "a cache whose id is a path", lines: "RUN --mount=type=cache,target=/c,id=../../../../../..HOST/made echo x >/c/x", output: ""),
    EvilBuild(
      name: "RUN writes to what the host lent", lines: "RUN for f in hosts resolv.conf; do (echo x >>/etc/$f) 2>/dev/null || echo read-only; done",
      output: "read-only\nread-only\n"),
    EvilBuild(
      name: "RUN writes to a bind", lines: "RUN --mount=target=/x sh -c 'echo x 2>/dev/null >>/x/a' || echo read-only", files: ["a": "1"],
      output: "read-only\n"),
  ]
}

@Suite("Builds that mean harm", .serialized, .enabled(if: geteuid() == 0))
struct EvilBuildTests {
  /// Names, kinds, modes and content of what a build may not touch.
  private static func look(_ path: String) -> [String] {
    var status = stat()
    guard lstat(path, &status) == 0 else { return [] }
    let isFolder = status.st_mode & S_IFMT == S_IFDIR
    let isText = status.st_mode & S_IFMT == S_IFREG && status.st_size < 100
    let below = isFolder ? ((try? Files.list(path)) ?? []).flatMap { look("\(path)/\($0)") } : []
    return ["\(path) \(status.st_mode) \(status.st_uid) \(isText ? (try? Files.text(path)) ?? "" : "")"] + below
  }

  @Test("a Dockerfile or context that means harm is refused with a sentence or does nothing to the host")
  func evil() async throws {
    let world = try await World()
    let host = world.folder + "/host"
    try Files.makeDirectories(host + "/folder/empty", mode: 0o755)
    try Files.writeAtomically(host + "/secret", "of the host", mode: 0o644, durable: false)
    try Files.writeAtomically(host + "/Dockerfile", "FROM base:1\n", mode: 0o644, durable: false)
    // Members ../up, and l -> HOST with l/through.
    let pack = """
      cd '\(world.folder)' && mkdir pack && echo x >pack/f && ln -s '\(host)' pack/l && tar -cPf up.tar -C pack --transform 's,f,../../up,' f \
      && tar -cf link.tar -C pack l && tar -rPf link.tar -C pack --transform 's,f,l/through,' f
      """
    #expect(system(pack) == 0)
    var before = Self.look(host)
    for evil in EvilBuild.all {
      var files = evil.files.mapValues { $0.replacing("HOST", with: host) }
      for name in ["up.tar", "link.tar"] where evil.lines.contains(name) { files[name] = try Files.text("\(world.folder)/\(name)") }
      if files["Dockerfile"] == nil { files["Dockerfile"] = "FROM base:1\n" + evil.lines.replacing("HOST", with: host) }
      do {
        let result = try await world.build(files)
        #expect(evil.refusal == nil, "\(evil.name) was built: \(result.output)")
        #expect(result.output == evil.output, "\(evil.name)")
        for path in result.image.layerPaths { #expect(!Self.look(path).contains { $0.hasSuffix(" of the host") }, "\(evil.name) took it along") }
      } catch {
        #expect(evil.refusal.map("\(error)".contains) == true, "\(evil.name): \(error)")
      }
      let after = Self.look(host)
      #expect(after == before, "\(evil.name) changed the host")
      before = after
      #expect(world.containers == [] && world.ingest == [], "\(evil.name) left something")
    }
    #expect(!Files.exists(world.folder + "/up") && !Files.exists(world.folder + "/images/up"))
  }

  @Test("eight builds run at once, and the ninth is told to wait")
  func crowd() async throws {
    let world = try await World()
    let context = world.folder + "/crowd"
    try Files.makeDirectories(context, mode: 0o755)
    try Files.writeAtomically(context + "/Dockerfile", "FROM scratch\nLABEL a=b\n", durable: false)
    let (began, count) = AsyncStream.makeStream(of: Void.self)
    let builds = (0..<Builder.runningMax).map { _ in
      Task {
        let told = Mutex(false)
        return try await world.builder.build(BuildRequest(), context: context) { _ in
          let isFirst = told.withLock { told in
            defer { told = true }
            return !told
          }
          guard isFirst else { return }
          count.yield()
          try await Task.sleep(for: .seconds(3600))
        }
      }
    }
    var running = 0
    for await _ in began {
      running += 1
      if running == builds.count { break }
    }
    let busy = await #expect(throws: BuildError.self) { try await world.builder.build(BuildRequest(), context: context) { _ in } }
    #expect(busy?.kind == .busy, "\(String(describing: busy))")
    for build in builds { build.cancel() }
    for build in builds { await #expect(throws: (any Error).self) { try await build.value } }
    _ = try await world.builder.build(BuildRequest(), context: context) { _ in }
  }
}
