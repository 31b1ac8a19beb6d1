import AgentImage
import AgentNetwork
import CLinux
import Cgroups
import DNS
import Dockerfile
import Glibc
import LinuxSystem
import Logging
import Model
import Netlink
import Runtime
import Synchronization
import Testing
import TreeArchive

@testable import Build

/// A store, a runtime and a builder in a temporary folder, with busybox as the image base:1. Real layers, mounts and containers.
final class World: Sendable {
  let folder: String
  let store: ImageStore
  let runtime: ContainerRuntime
  let builder: Builder
  let parent: String
  /// Of the host that builds, which is not this process's.
  let network: OverlayNetwork
  var host: String { folder + "/net-host" }
  var outside: String { folder + "/net-outside" }

  /// Network namespaces: the host's, 192.0.2.1, and one behind its eth0, 192.0.2.100 (RFC 5737).
  private static func surround(_ host: String, _ outside: String) async throws {
    @Sendable func new(_ path: String) throws {
      try Files.writeAtomically(path, "", mode: 0o400, durable: false)
      try checkResult(clinux_new_network_namespace(), "make network namespace", path)
      try checkResult(mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil), "bind network namespace", path)
      try NetlinkSocket().perform([.setLink(1, "lo", up: true)])
    }
    @Sendable func address(_ last: UInt8) throws {
      let socket = try NetlinkSocket()
      let link = try socket.links().first { $0.name == "eth0" }!.index
      try socket.perform([.addAddress([192, 0, 2, last], length: 24, on: link), .setLink(link, "eth0", up: true)])
    }
    try await onOwnThread("test-network") {
      try new(outside)
      let other = try OwnedDescriptor.open(outside, O_RDONLY)
      try new(host)
      try NetlinkSocket().perform([
        .addVeth("eth0", master: 0, mtu: 1500, peer: "eth0", peerMAC: nil, peerNamespace: other.rawValue, alias: "test")
      ])
      try address(1)
      _ = try joinNetworkNamespace(outside)
      try address(100)
    }
  }

  /// - Parameter servers: that answer names; nil: the machine's own.
  init(remoteBytesMax: Int64 = 1 << 30, servers: ResolvConf? = nil) async throws {
    folder = "/tmp/orch-build-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    parent = "orch-build-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    let root = folder + "/base"
    for name in ["bin", "etc", "tmp", "srv"] { try Files.makeDirectories("\(root)/\(name)", mode: 0o755) }
    try Files.writeAtomically(root + "/bin/busybox", try Files.read("/bin/busybox"), mode: 0o755, durable: false)
    for name in ["sh", "true", "cat", "id", "env", "echo", "ls", "mkdir", "rm", "mv", "stat", "sleep", "date", "find", "sort", "wc", "touch"] {
      symlink("busybox", root + "/bin/" + name)
    }
    try Files.writeAtomically(root + "/etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n", mode: 0o644, durable: false)
    try Files.writeAtomically(root + "/etc/group", "root:x:0:\nstaff:x:50:\n", mode: 0o644, durable: false)
    for name in ["hosts", "resolv.conf"] { try Files.writeAtomically(root + "/etc/" + name, "", mode: 0o644, durable: false) }
    let here = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    let candidates = [here + "/orch-init", ".build/debug/orch-init", ".build/x86_64-unknown-linux-gnu/debug/orch-init"]
    runtime = try ContainerRuntime(
      configuration: RuntimeConfiguration(
        stateDirectory: folder + "/state", dataDirectory: folder + "/data", cgroupParent: parent,
        initPath: candidates.first { Files.exists($0) } ?? candidates[0]))
    store = try ImageStore(directory: folder + "/images")
    let log = Logger(label: "test")
    try await Self.surround(folder + "/net-host", folder + "/net-outside")
    network = try OverlayNetwork(
      configuration: .init(underlayAddress: IPv4Address("192.0.2.1")!, runDirectory: folder + "/run", hostNamespace: folder + "/net-host"), log: log)
    let names = try NameServer(upstreams: servers, log: log)
    names.update([])
    try await network.apply(networks: [], services: [], endpoints: [])
    builder = Builder(
      store: store, runtime: runtime, cacheFile: folder + "/build-cache", networks: BuildNetworks(network, names), remoteBytesMax: remoteBytesMax,
      log: log)
    try tar(root, folder + "/base.tar")
    var config = ImageConfig()
    config.env = ["PATH=/bin"]
    _ = try await store.import(folder + "/base.tar", name: "base:1", config: config)
  }
  deinit {
    for name in ["net-host", "net-outside"] { umount2("\(folder)/\(name)", Int32(MNT_DETACH)) }
    for name in (try? Files.list(folder + "/run/netns")) ?? [] { umount2("\(folder)/run/netns/\(name)", Int32(MNT_DETACH)) }
    try? Files.removeTree(folder)
    if let host = try? CgroupHost.detect() { try? host.group(parent: parent, name: "").remove() }
  }

  struct Result {
    var image: ImageRecord
    /// "3 RUN x" or "3 RUN x (cached)".
    var steps: [String]
    var output: String
    var warnings: [String]
  }

  /// Builds from these files; a name that ends with a slash is a folder.
  func build(_ files: [String: String], bytes: [String: [UInt8]] = [:], _ change: (inout BuildRequest) -> Void = { _ in }) async throws -> Result {
    let context = "\(folder)/context-\(UInt32.random(in: 0 ... .max))"
    try Files.makeDirectories(context, mode: 0o755)
    defer { try? Files.removeTree(context) }
    for (name, text) in files {
      let path = "\(context)/\(name)"
      if name.hasSuffix("/") {
        try Files.makeDirectories(path, mode: 0o755)
        continue
      }
      try Files.makeDirectories(path.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }, mode: 0o755)
      if text.hasPrefix("-> ") {
        symlink(String(text.dropFirst(3)), path)
      } else {
        try Files.writeAtomically(path, text, mode: 0o644, durable: false)
      }
    }
    for (name, content) in bytes { try Files.writeAtomically("\(context)/\(name)", content, mode: 0o644, durable: false) }
    var request = BuildRequest()
    change(&request)
    let told = Mutex<[BuildEvent]>([])
    let image = try await builder.build(request, context: context) { event in told.withLock { $0.append(event) } }
    var result = Result(image: image, steps: [], output: "", warnings: [])
    for event in told.withLock({ $0 }) {
      switch event {
      case .step(let number, _, let text): result.steps.append("\(number) \(text)")
      case .cached: result.steps[result.steps.count - 1] += " (cached)"
      case .output(let bytes, _): result.output += String(decoding: bytes, as: UTF8.self)
      case .warning(let text): result.warnings.append(text)
      case .finished: break
      }
    }
    return result
  }

  /// Runs a shell in the image and returns what it wrote.
  func run(_ image: ImageRecord, _ script: String) async throws -> String {
    let id = "look-\(UInt32.random(in: 0 ... .max))"
    var config = ContainerConfig(id: id, layers: image.layerPaths, args: ["/bin/sh", "-c", script])
    config.env = image.config.env
    config.cwd = image.config.workingDir.isEmpty ? "/" : image.config.workingDir
    _ = try await runtime.start(config)
    var output: [UInt8] = []
    for try await line in runtime.logs(id, LogOptions(follow: true)) { output += line.bytes }
    try await runtime.delete(id)
    return String(decoding: output, as: UTF8.self)
  }

  /// Files below the folder with that text in them.
  func holds(_ text: String) async throws -> [String] {
    let wanted = Array(text.utf8)
    return try await onOwnThread { [folder] in
      func look(_ path: String) -> [String] {
        var status = stat()
        guard lstat(path, &status) == 0 else { return [] }
        if status.st_mode & S_IFMT == S_IFDIR { return ((try? Files.list(path)) ?? []).flatMap { look("\(path)/\($0)") } }
        guard status.st_mode & S_IFMT == S_IFREG, let bytes = try? Files.read(path), bytes.firstRange(of: wanted) != nil else { return [] }
        return [path]
      }
      return look(folder)
    }
  }
  var containers: [String] { (try? Files.list(folder + "/data/containers")) ?? [] }
  var ingest: [String] { (try? Files.list(folder + "/images/ingest")) ?? [] }
}

private func tar(_ folder: String, _ target: String, _ options: TreeArchive.Options = .init()) throws {
  let tree = try TreeArchive([.init(SharedDescriptor(try .open(folder, O_RDONLY | O_DIRECTORY)), "", as: "")], options)
  let file = try OwnedDescriptor.open(target, O_WRONLY | O_CREAT | O_TRUNC)
  var chunk = [UInt8](repeating: 0, count: 1 << 20)
  while case let count = try chunk.withUnsafeMutableBytes({ try tree.read(into: $0) }), count > 0 {
    try Files.writeAll(file.rawValue, Array(chunk[..<count]), name: target)
  }
}

@Suite("Builds", .serialized, .enabled(if: geteuid() == 0))
struct BuildTests {
  @Test("the workshop's cache: a changed package.json installs again, a changed source file does not")
  func cache() async throws {
    let world = try await World()
    var files = [
      "Dockerfile": """
      FROM base:1
      WORKDIR /app
      COPY package.json ./
      RUN echo installing; cat package.json > installed
      COPY . .
      RUN cat src/main.js > built
      CMD ["cat", "built"]
      """,
      "package.json": "one", "src/main.js": "first", "node_modules/x": "big", ".dockerignore": "node_modules\nDockerfile\n",
    ]
    let first = try await world.build(files) { $0.names = ["app:1"] }
    #expect(first.steps.allSatisfy { !$0.contains("(cached)") } && first.steps.count == 7)
    #expect(first.output == "installing\n")
    #expect(try await world.run(first.image, "cat installed built; ls") == "onefirstbuilt\ninstalled\npackage.json\nsrc\n")
    #expect(first.image.config.cmd == ["cat", "built"] && first.image.config.workingDir == "/app")
    // The base's included: an entry for each layer.
    let history = try await world.store.history(of: first.image)
    #expect(history.count == 7 && history.count { !$0.isEmpty } == first.image.layerPaths.count)

    // Nothing changed: the same image, whenever.
    let again = try await world.build(files) { $0.names = ["app:2"] }
    #expect(again.image.id == first.image.id)
    #expect(again.steps.dropFirst().allSatisfy { $0.contains("(cached)") })
    #expect(world.store.list().compactMap(\.name).filter { $0.hasPrefix("app") } == ["app:1", "app:2"])

    files["src/main.js"] = "second"
    let source = try await world.build(files)
    #expect(source.output == "")
    #expect(source.steps.map { $0.contains("(cached)") } == [false, true, true, true, false, false, false])
    #expect(try await world.run(source.image, "cat built") == "second")

    // What .dockerignore leaves out decides nothing.
    files["node_modules/x"] = "other"
    #expect(try await world.build(files).image.id == source.image.id)

    files["package.json"] = "two"
    let package = try await world.build(files)
    #expect(package.output == "installing\n")
    #expect(package.steps.map { $0.contains("(cached)") } == [false, true, false, false, false, false, false])

    let forced = try await world.build(files) { $0.usesCache = false }
    #expect(forced.output == "installing\n")
    #expect(world.containers == [] && world.ingest == [])
  }

  @Test("stages: only those that are needed, COPY --from a stage and an image, links and owners; a whiteout is a layer's")
  func stages() async throws {
    let world = try await World()
    let result = try await world.build([
      "Dockerfile": """
      ARG BASE=base
      FROM ${BASE}:1 AS build
      RUN mkdir /out && echo made > /out/file && mkdir /out/d && echo x > /out/d/y && rm /bin/wc && mkdir /old && touch /old/a
      FROM base:1 AS unused
      RUN exit 1
      FROM build AS again
      RUN rm -r /old && mkdir /old && touch /old/b
      FROM scratch
      COPY --from=base:1 / /
      COPY --from=build --chown=app:staff /out/ /copied/
      COPY --from=again /old /old
      COPY --from=0 /out/file /copied/name
      """
    ])
    #expect(result.steps.count == 9)
    #expect(
      try await world.run(result.image, "cat /copied/file /copied/d/y /copied/name; stat -c '%u:%g %n' /copied/* /copied; ls /old /bin/wc") == """
        made
        x
        made
        1000:50 /copied/d
        1000:50 /copied/file
        0:0 /copied/name
        1000:50 /copied
        /bin/wc

        /old:
        b

        """)
    let upper = try await world.build(["Dockerfile": "FROM base:1\nRUN rm -r /srv && rm /bin/wc && echo gone\nRUN ls -d /srv /bin/wc || true"])
    #expect(upper.output.hasPrefix("gone\n") && upper.output.contains("/srv: No such file") && upper.output.contains("/bin/wc: No such file"))
    #expect(try await world.run(upper.image, "ls /bin/wc /srv 2>&1 || true").contains("No such file"))
  }

  @Test("WORKDIR makes folders that are its user's; those that are there stay as they are")
  func workdir() async throws {
    let world = try await World()
    let result = try await world.build([
      "Dockerfile": """
      FROM base:1
      USER 9999
      WORKDIR /work/deep
      RUN touch x && stat -c '%n %u:%g %a' /work /work/deep && stat -c '%u' x
      USER app
      WORKDIR /app
      USER app:staff
      WORKDIR in
      RUN touch y && stat -c '%n %u:%g' /app /app/in
      WORKDIR /srv
      USER ghost
      WORKDIR /ghost
      USER root
      RUN stat -c '%n %u:%g' /srv /ghost
      """
    ])
    #expect(
      result.output
        == "/work 9999:9999 755\n/work/deep 9999:9999 755\n9999\n/app 1000:1001\n/app/in 1000:50\n/srv 0:0\n/ghost 0:0\n")
  }

  @Test("a base whose layer says nothing of its folders: steps see them as the layers below have them, and leave them so")
  func implicitFolders() async throws {
    let world = try await World()
    let script = """
      cd \(world.folder) && mkdir -p low/tmp low/home up/tmp up/home && chmod 1777 low/tmp && chmod 700 low/home && chown 9 low/home && \
      touch up/tmp/x up/home/y && tar -C low -cf low.tar tmp home && tar -C up --no-recursion -cf up.tar tmp/x home/y
      """
    #expect(system(script) == 0)
    let base = try #require(try world.store.resolve("base:1"))
    let (folder, store) = (world.folder, world.store)
    let layers = try await store.holding {
      // The upper first.
      let up = try await store.addLayer(tar: folder + "/up.tar").diffID
      let layers = store.layers(of: base) + [try await store.addLayer(tar: folder + "/low.tar").diffID, up]
      let image = BuiltImage(config: base.config, layers: layers, created: .zero, history: [])
      _ = try await store.commit(config: image.configuration(), names: ["implicit:1"])
      return layers
    }
    #expect(layers.count == 3)
    let seen = "/tmp 1777 0\n/home 700 9\n"
    let look = "stat -c '%n %a %u' /tmp /home"
    let result = try await world.build([
      "Dockerfile": "FROM implicit:1\nRUN \(look); touch /tmp/z\nCOPY Dockerfile /home/d\nRUN \(look)"
    ])
    #expect(result.output == seen + seen)
    #expect(try await world.run(result.image, look + "; ls /tmp /home") == seen + "/home:\nd\ny\n\n/tmp:\nx\nz\n")
    // An entry of the history for each layer, whatever stands between them.
    let history = try await store.history(of: result.image)
    #expect(history.count { !$0.isEmpty } == 5 && store.layers(of: result.image).count == 5)
  }

  @Test("access control lists go from stage to stage and into the layers of steps, those of a context do not")
  func accessLists() async throws {
    let world = try await World()
    // Version 2 (linux/posix_acl_xattr.h): the owner, user 1234, the group and the mask may all; others nothing.
    let list: [UInt8] =
      [2, 0, 0, 0]
      + [(1, 7, UInt32.max), (2, 7, 1234), (4, 5, UInt32.max), (16, 7, UInt32.max), (32, 0, UInt32.max)]
      .flatMap { (tag: UInt8, mode: UInt8, id: UInt32) in [tag, 0, mode, 0] + (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * $0)) } }
    func has(_ path: String, _ kind: String = "access") -> Bool { clinux_lgetxattr(path, "system.posix_acl_\(kind)", nil, 0) == list.count }
    let root = world.folder + "/listed"
    try Files.makeDirectories(root + "/d/e", mode: 0o755)
    try Files.writeAtomically(root + "/d/f", "x", mode: 0o770, durable: false)
    for (path, kind) in [("/d/f", "access"), ("/d/e", "access"), ("/d/e", "default")] {
      let file = try OwnedDescriptor.open(root + path, O_RDONLY)
      #expect(clinux_fsetxattr(file.rawValue, "system.posix_acl_\(kind)", list, list.count) == 0)
    }
    var options = TreeArchive.Options()
    options.keepsLists = true
    try tar(root, world.folder + "/listed.tar", options)
    _ = try await world.store.import(world.folder + "/listed.tar", name: "listed:1")
    let result = try await world.build([
      "Dockerfile": "FROM base:1\nCOPY --from=listed:1 /d /d\nRUN touch /d/f /d/e/new\nCOPY --from=listed:1 --chmod=700 /d/f /plain"
    ])
    let layers = result.image.layerPaths.filter { Files.exists($0 + "/d") }
    #expect(layers.count == 2)
    for layer in layers { #expect(has(layer + "/d/f") && has(layer + "/d/e") && has(layer + "/d/e", "default")) }
    let plain = try #require(result.image.layerPaths.last) + "/plain"
    var status = stat()
    #expect(lstat(plain, &status) == 0 && status.st_mode & 0o7777 == 0o700 && !has(plain))
    // A context's are its machine's.
    try Files.writeAtomically(root + "/Dockerfile", "FROM scratch\nCOPY d/f /f\n", mode: 0o644, durable: false)
    let copied = try #require(try await world.builder.build(BuildRequest(), context: root) { _ in }.layerPaths.last) + "/f"
    #expect(Files.exists(copied) && !has(copied))
  }

  @Test("COPY and ADD: patterns, folders, modes, heredocs, archives; RUN's environment, user and arguments; ONBUILD")
  func instructions() async throws {
    let world = try await World()
    try tar(world.folder + "/base/etc", world.folder + "/etc.tar")
    let archive = String(decoding: try Files.read(world.folder + "/etc.tar"), as: UTF8.self)
    let result = try await world.build(
      [
        "Dockerfile": """
        # syntax=docker/dockerfile:1
        FROM base:1
        ARG WHO=nobody
        ENV GREETING="hello $WHO"
        COPY *.txt one/ /files/
        COPY --chmod=0640 --chown=app a.txt /etc/moved
        COPY link /followed
        COPY <<EOF <<'RAW' /here/
        $GREETING
        EOF
        $GREETING
        RAW
        ADD etc.tar /unpacked/
        USER app
        RUN <<EOF
        id -u
        echo $GREETING from $WHO
        touch /srv/x || echo refused
        EOF
        USER 0
        ONBUILD RUN echo triggered
        EXPOSE 80
        HEALTHCHECK --interval=5s CMD true
        """,
        "a.txt": "a", "b.txt": "b", "one/sub/c": "c", "etc.tar": archive, "link": "-> a.txt",
      ]
    ) {
      $0.names = ["made:1"]
      $0.arguments = ["WHO": "ann", "UNKNOWN": "1"]
      $0.labels = ["x": "y"]
    }
    #expect(result.output.hasPrefix("1000\nhello ann from ann\n") && result.output.contains("refused"))
    #expect(result.warnings == ["no ARG takes the build arguments UNKNOWN"])
    #expect(
      try await world.run(
        result.image, "cd /; find files here unpacked | sort; cat /followed /here/EOF /here/RAW; stat -c '%a %u:%g' /etc/moved; stat -c %F /followed")
          == """
          files
          files/a.txt
          files/b.txt
          files/sub
          files/sub/c
          here
          here/EOF
          here/RAW
          unpacked
          unpacked/group
          unpacked/hosts
          unpacked/passwd
          unpacked/resolv.conf
          ahello ann
          $GREETING
          640 1000:1001
          regular file

          """)
    #expect(result.image.config.labels == ["x": "y"] && result.image.config.exposedPorts == ["80/tcp"])
    #expect(result.image.config.healthcheck?.test == ["CMD-SHELL", "true"])
    let child = try await world.build(["Dockerfile": "FROM made:1\nRUN echo own"])
    #expect(child.output == "triggered\nown\n" && child.image.config.onbuild == [])
  }

  @Test("a heredoc that names its interpreter is run by it, in its user's name; one in ONBUILD is carried out by who builds on top")
  func heredocs() async throws {
    let world = try await World()
    let file = """
      FROM base:1
      RUN <<EOF
      #!/bin/cat
      shown by cat
      EOF
      USER app
      RUN <<-script.sh
      \t#!/bin/sh -u
      \techo $0 $(id -u)
      \tls /dev/pipes
      \techo 1 >> $0 || echo refused
      \tscript.sh
      USER 0
      ONBUILD RUN <<ONE cat - > /tmp/one
      first
      ONE
      ONBUILD RUN <<TWO
      #!/bin/sh
      cat /tmp/one; echo second
      TWO
      """
    let first = try await world.build(["Dockerfile": file]) { $0.names = ["made:1"] }
    #expect(first.output.contains("#!/bin/cat\nshown by cat\n/dev/pipes/script.sh 1000\nscript.sh\n"), "\(first.output)")
    #expect(first.output.contains("\nrefused\n"), "\(first.output)")
    #expect(try await world.build(["Dockerfile": "FROM made:1"]).output == "first\nsecond\n")
    // The script is all that differs.
    let changed = try await world.build(["Dockerfile": file.replacing("shown by cat", with: "changed")])
    #expect(changed.output.hasPrefix("#!/bin/cat\nchanged\n"), "\(changed.output)")
    #expect(try await world.run(first.image, "ls -a /dev | sort; find / -name pipes -o -name 'script*' | sort").contains("pipes") == false)
  }

  @Test("a build without a network shares no RUN with one that has it, but everything else")
  func networks() async throws {
    let world = try await World()
    let files = ["Dockerfile": "FROM base:1\nCOPY a /a\nRUN cat /proc/net/dev | wc -l > /n", "a": "a"]
    let open = try await world.build(files)
    let closed = try await world.build(files) { $0.network = .none }
    #expect(closed.steps.map { $0.hasSuffix("(cached)") } == [false, true, false])
    #expect(try await world.run(closed.image, "cat /n") == "3\n")
    #expect(try await world.build(files) { $0.network = .none }.image.id == closed.image.id)
    #expect(try await world.build(files).image.id == open.image.id)
    // Nor one on the host's.
    let shared = try await world.build(files) { $0.network = .host }
    #expect(shared.steps.map { $0.hasSuffix("(cached)") } == [false, true, false])
    let asked = ["Dockerfile": "FROM base:1\nCOPY a /a\nRUN --network=none cat /proc/net/dev | wc -l > /n", "a": "a"]
    #expect(try await world.run(try await world.build(asked) { $0.network = .host }.image, "cat /n") == "3\n")
  }

  @Test("a failing step tells its code and line and leaves nothing; its finished steps stay in the cache")
  func failures() async throws {
    let world = try await World()
    func error(_ files: [String: String]) async -> String {
      do {
        _ = try await world.build(files)
        return "built"
      } catch { return "\(error)" }
    }
    #expect(await error(["Dockerfile": "FROM base:1\nRUN true\nRUN echo no; exit 7"]) == "line 3: 'RUN echo no; exit 7' ended with code 7")
    #expect(await error(["Dockerfile": "FROM base:1\nRUN [\"/nowhere\"]"]).hasPrefix("line 2: RUN [\"/nowhere\"]"))
    #expect(
      await error(["Dockerfile": "FROM base:1\nCOPY nothing /"])
        == "Dockerfile line 2: COPY nothing: it is not in the context, or .dockerignore leaves it out")
    #expect(
      await error(["Dockerfile": "FROM base:1\nCOPY hidden /", "hidden": "1", ".dockerignore": "hidden"])
        == "Dockerfile line 2: COPY hidden: it is not in the context, or .dockerignore leaves it out")
    #expect(
      await error(["Dockerfile": "FROM base:1\nCOPY ../../etc/passwd /"])
        == "Dockerfile line 2: COPY ../../etc/passwd: the path leads out of the context")
    // A link of the context leads nowhere outside of it.
    #expect(await error(["Dockerfile": "FROM base:1\nCOPY l/passwd /x", "l": "-> /etc"]).contains("it is not in the context"))
    #expect(await error(["Dockerfile": "FROM base:1\nFOO"]) == "Dockerfile line 2: FOO needs an argument")
    #expect(await error(["x": ""]) == "there is no Dockerfile in the context: name it with -f")
    // An image's link cannot lead COPY to the host.
    let host = "/tmp/orch-build-escape-\(getpid())"
    let escape = try await world.build([
      "Dockerfile": "FROM base:1\nRUN busybox ln -s \(host) /way && busybox ln -s / /top\nCOPY f /way/f\nCOPY f /top/tmp/f", "f": "x",
    ])
    #expect(!Files.exists(host) && !Files.exists("/tmp/f"))
    #expect(try await world.run(escape.image, "cat \(host)/f /tmp/f") == "xx")
    #expect(try await world.build(["Dockerfile": "FROM base:1\nRUN true"]).steps.last == "2 RUN true (cached)")
    #expect(world.containers == [] && world.ingest == [])
  }

  @Test("a build that is given up ends its container and leaves nothing")
  func cancelled() async throws {
    let world = try await World()
    let began = Mutex(false)
    let context = world.folder + "/ctx"
    try Files.makeDirectories(context, mode: 0o755)
    try Files.writeAtomically(context + "/Dockerfile", "FROM base:1\nRUN echo begun; sleep 600", durable: false)
    let task = Task {
      try await world.builder.build(BuildRequest(), context: context) { event in
        if case .output = event { began.withLock { $0 = true } }
      }
    }
    for _ in 0..<4500 where !began.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(10)) }
    task.cancel()
    await #expect(throws: (any Error).self) { try await task.value }
    #expect(world.containers == [] && world.ingest == [])
  }

  @Test("RUN --mount: files of the context and of a stage, a cache that stays, a tmpfs and a secret; nothing of them is in the image")
  func mounts() async throws {
    let world = try await World()
    let secret = "hunter2-\(UInt32.random(in: 0 ... .max))"
    func files(_ source: String) -> [String: String] {
      [
        "src/a": source, "src/b": "b", "one": "one",
        "Dockerfile": """
        FROM base:1 AS tools
        RUN mkdir /opt; echo tool > /opt/tool
        FROM base:1
        ARG WHERE=/look
        RUN --mount=target=$WHERE,source=src --mount=from=tools,source=/opt/tool,target=/t/tool,rw --mount=type=tmpfs,target=/scratch,size=1m \\
            cat /look/a /t/tool > /made; echo x >> /t/tool; echo x > /scratch/x; touch /look/c 2>/dev/null || echo read-only
        RUN --mount=type=cache,target=/var/cache/x,sharing=locked,mode=700 echo $(cat /var/cache/x/n 2>/dev/null) again; echo kept >> /var/cache/x/n; stat -c %a /var/cache/x
        RUN --mount=type=secret,id=token,required --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=none \\
            wc -c < /run/secrets/token; stat -c %a /run/secrets/token; echo ${#TOKEN}; touch /done
        """,
      ]
    }
    let secrets = ["token": Array(secret.utf8)]
    let first = try await world.build(files("1\n")) { ($0.names, $0.secrets) = (["m:1"], secrets) }
    #expect(first.output == "read-only\nagain\n700\n\(secret.utf8.count)\n400\n\(secret.utf8.count)\n")
    #expect(try await world.run(first.image, "cat /made; ls /; ls /run /t /look /scratch /var 2>&1 | wc -l").hasPrefix("1\ntool\n"))
    for path in ["/look", "/t", "/scratch", "/var", "/run"] {
      #expect(first.image.layerPaths.allSatisfy { !Files.exists($0 + path) }, "\(path) is in the image")
    }
    // In no file of the store, of the runtime and of the cache.
    let found = try await world.holds(secret)
    #expect(found.isEmpty, "\(found)")

    // The same files: cached, whatever the cache folder holds. Others: the steps from the bind on again, with the cache as it was left.
    #expect(try await world.build(files("1\n")) { $0.secrets = secrets }.steps.filter { $0.contains("RUN") }.allSatisfy { $0.hasSuffix("(cached)") })
    let second = try await world.build(files("2\n")) { $0.secrets = secrets }
    #expect(second.output.contains("kept again\n") && second.steps.contains { $0.contains("mkdir /opt") && $0.hasSuffix("(cached)") })
    await #expect { _ = try await world.build(files("3\n")) } throws: { "\($0)".contains("given no secret 'token'") }
    await #expect {
      _ = try await world.build(["Dockerfile": "FROM base:1\nRUN --mount=target=/x,source=../../etc cat /x/passwd"])
    } throws: { "\($0)".contains("leads out of the context") }

    // A pruned cache knows nothing; the images stay.
    let pruned = try await world.builder.prune()
    #expect(pruned.steps > 0 && pruned.bytes > 0)
    let third = try await world.build(files("1\n")) { $0.secrets = secrets }
    #expect(third.output.contains("\nagain\n") && third.steps.allSatisfy { !$0.hasSuffix("(cached)") })
    #expect(try await world.run(try #require(try world.store.resolve("m:1")), "cat /made") == "1\ntool\n")
    #expect(world.containers.isEmpty && world.ingest.isEmpty)
  }

  @Test("beyond their bytes the longest unused caches go, and never one that a step has")
  func cacheBytes() async throws {
    let folder = "/tmp/orch-cache-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    defer { try? Files.removeTree(folder) }
    let mounts = CacheMounts(folder, bytesMax: 250_000)
    var taken: [(name: String, path: String)] = []
    for id in ["a", "b", "c"] {
      guard case .run(let run) = try Dockerfile("FROM a\nRUN --mount=type=cache,id=\(id),target=/x x").stages[0].instructions[0].kind else { return }
      let one = try await mounts.take(run.mounts[0])
      try Files.writeAtomically(one.path + "/f", [UInt8](repeating: 65, count: 100_000), mode: 0o644)
      utimensat(AT_FDCWD, one.path, [timespec(tv_sec: 1000 + taken.count, tv_nsec: 0), timespec(tv_sec: 1000 + taken.count, tv_nsec: 0)], 0)
      taken.append(one)
    }
    func there() -> [Bool] { taken.map { Files.exists($0.path) } }
    mounts.release(taken[1].name)
    mounts.release(taken[2].name)
    // The oldest is in use; with the next one gone the others fit.
    try mounts.bound()
    #expect(there() == [true, false, true])
    mounts.release(taken[0].name)
    try mounts.bound()
    #expect(there() == [true, false, true])
  }

  @Test("a locked cache is one step's at a time, a private one is another's; too many are forgotten")
  func cacheMounts() async throws {
    let folder = "/tmp/orch-cache-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    defer { try? Files.removeTree(folder) }
    let mounts = CacheMounts(folder)
    func mount(_ text: String) throws -> RunMount {
      guard case .run(let run) = try Dockerfile("FROM a\nRUN --mount=type=cache,\(text) x").stages[0].instructions[0].kind else {
        throw BuildError(.invalid, "")
      }
      return run.mounts[0]
    }
    let locked = try mount("id=l,target=/l,sharing=locked")
    let first = try await mounts.take(locked)
    let order = Mutex<[String]>([])
    let waiting = Task {
      let second = try await mounts.take(locked)
      order.withLock { $0.append("second") }
      mounts.release(second.name)
      return second.path
    }
    let alone = try mount("id=p,target=/p,sharing=private")
    let (one, two) = (try await mounts.take(alone), try await mounts.take(alone))
    #expect(one.path != two.path)
    mounts.release(one.name)
    #expect(try await mounts.take(alone).path == one.path)
    order.withLock { $0.append("first") }
    mounts.release(first.name)
    #expect(try await waiting.value == first.path)
    #expect(order.withLock { $0 } == ["first", "second"])
    for number in 0..<80 { mounts.release(try await mounts.take(try mount("id=\(number),target=/x")).name) }
    #expect(try Files.list(folder).count <= CacheMounts.foldersMax)
    // In use: not forgotten.
    #expect(Files.exists(one.path) && Files.exists(two.path))
  }

  @Test("SOURCE_DATE_EPOCH: the same image from the same files, built twice without the cache; and what RUN may not do")
  func reproducible() async throws {
    let world = try await World()
    let files = ["Dockerfile": "FROM base:1\nCOPY a /a\nRUN echo x > /b && mkdir /c", "a": "1"]
    func built() async throws -> Digest {
      try await world.build(files) {
        $0.usesCache = false
        $0.arguments = ["SOURCE_DATE_EPOCH": "1700000000"]
      }.image.id
    }
    let (one, two) = (try await built(), try await built())
    #expect(one == two)
    let shut = try await world.build([
      "Dockerfile":
        "FROM base:1\nRUN --network=none busybox ip -o link | wc -l; busybox mount -t tmpfs t /tmp || echo no mount; busybox unshare -U true || echo no namespace; busybox mknod /dev/x b 8 0 || echo no node"
    ])
    #expect(shut.output.contains("1\n") && shut.output.contains("no mount\n") && shut.output.contains("no namespace\n"))
  }

  @Test("an exported image is the same on another host; the cache outlives the builder and is bounded by the store's sweep")
  func exported() async throws {
    let world = try await World()
    let files = ["Dockerfile": "FROM scratch\nCOPY a /a\nCOPY a /d/b", "a": "1"]
    let made = try await world.build(files) { $0.names = ["made:1"] }
    let archive = world.folder + "/made.tar"
    let file = SharedDescriptor(try .open(archive, O_WRONLY | O_CREAT | O_EXCL))
    try await world.store.save(["made:1"], format: .oci) { try Files.writeAll(file.rawValue, $0, name: archive) }
    let other = try ImageStore(directory: world.folder + "/other")
    let loaded = try await other.load(archive)
    #expect(loaded.map(\.id) == [made.image.id] && loaded.map(\.digest) == [made.image.digest])
    #expect(try other.resolve("made:1") != nil)

    // The layers stay for the cache when the image goes, also for the next agent.
    try await world.store.remove("made:1")
    _ = try await world.store.prune(all: true)
    let builder = Builder(
      store: world.store, runtime: world.runtime, cacheFile: world.folder + "/build-cache", networks: nil, log: Logger(label: "test"))
    let request = BuildRequest()
    let context = world.folder + "/again"
    try Files.makeDirectories(context, mode: 0o755)
    for (name, text) in files { try Files.writeAtomically("\(context)/\(name)", text, mode: 0o644, durable: false) }
    let cached = Mutex(0)
    let again = try await builder.build(request, context: context) { if case .cached = $0 { cached.withLock { $0 += 1 } } }
    #expect(again.id == made.image.id && cached.withLock { $0 } == 2)
  }

  @Test("what a killed agent left of its RUNs is removed; what is only called so, and other containers, stay")
  func leftovers() async throws {
    let world = try await World()
    let folder = world.runtime.configuration.dataDirectory + "/containers"
    let others = ["build-", "build-notes", "build-xyz", "keep.me", "rebuild-1"]
    for name in ["build-1f", "build-ffffffffffffffff"] + others { try Files.makeDirectories("\(folder)/\(name)/upper") }
    await world.builder.removeLeftovers(await world.runtime.leftovers())
    #expect(try Files.list(folder) == others.sorted())
  }
}
