import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import AgentImage

/// Set in a process that a test here started: STORE REFERENCE of what it pulls.
private let order = getenv("ORCH_TEST_PULL").map { String(cString: $0) }

/// Without a folder of its own, which it would leave behind.
@Suite struct KilledPull {
  /// Not a test of its own: the process that is killed.
  @Test("pulls what it was told", .enabled(if: order != nil))
  func child() async throws {
    let words = try #require(order).split(separator: " ").map(String.init)
    let store = try ImageStore(directory: words[0])
    try Files.writeAtomically(words[0] + "-begun", "", durable: false)
    _ = try await store.pull(words[1])
  }
}

@Suite(.serialized, .enabled(if: geteuid() == 0 && installed("docker-registry") && installed("skopeo"))) struct CrashTests {
  private let folder = Folder()

  /// This program again, with nothing but `child` to do.
  private func start(_ directory: String, _ reference: String) throws -> pid_t {
    unlink(directory + "-begun")
    let program = CommandLine.arguments[0]
    var arguments: [UnsafeMutablePointer<CChar>?] = [program, "--testing-library", "swift-testing", "--filter", "KilledPull/child"].map {
      (word: String) in
      strdup(word)
    }
    arguments.append(nil)
    var variables = Array(UnsafeMutableBufferPointer(start: environ, count: environCount))
    variables.append(strdup("ORCH_TEST_PULL=\(directory) \(reference)"))
    variables.append(nil)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_addopen(&actions, 1, folder.path + "/log", O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    defer {
      posix_spawn_file_actions_destroy(&actions)
      arguments.forEach { free($0) }
      free(variables[variables.count - 2])
    }
    var process: pid_t = 0
    let result = posix_spawn(&process, program, &actions, nil, arguments, variables)
    guard result == 0 else { throw SystemError("start", program, Errno(result)) }
    while !Files.exists(directory + "-begun"), waitpid(process, nil, WNOHANG) == 0 { usleep(1000) }
    return process
  }
  private var environCount: Int {
    var count = 0
    while environ[count] != nil { count += 1 }
    return count
  }

  /// Names and sizes of a layer's files, by its folder.
  private func content(_ directory: String) throws -> [String: [String]] {
    var found: [String: [String]] = [:]
    for name in try Files.list(directory + "/layers") {
      let fs = "\(directory)/layers/\(name)/fs"
      found[name] = try Files.list(fs).map { "\($0) \(try Files.read("\(fs)/\($0)").count)" }
    }
    return found
  }

  @Test("a pull that is killed at any moment leaves each layer whole or not at all, and the next one brings the rest")
  func killed() async throws {
    let registry = try Registry()
    let layers = ["a", "b", "c"].map { layer in
      var tar = TarWriter()
      for number in 0..<150 { tar.add("\(layer)-\(number)", [UInt8](repeating: UInt8(number), count: 4000 + number)) }
      return tar.finished()
    }
    #expect(registry.push(try folder.write("web.tar", savedImage(layers: layers, name: "web:1")), "web:1").code == 0)
    let (reference, directory) = ("\(registry.host)/web:1", folder.path + "/killed")
    let whole = try ImageStore(directory: folder.path + "/whole")
    let id = try await whole.pull(reference).id
    let expected = try content(folder.path + "/whole")
    #expect(expected.count == 3 && expected.values.allSatisfy { $0.count == 150 })

    // How long one takes here and now.
    let clock = ContinuousClock()
    var process = try start(directory, reference)
    let begin = clock.now
    waitpid(process, nil, 0)
    let duration = clock.now - begin
    let log = try Files.text(folder.path + "/log")
    #expect(try ImageStore(directory: directory).resolve(reference)?.id == id, "\(log)")
    var (kept, images) = (Set<Int>(), Set<Bool>())
    for moment in stride(from: 0, through: 10, by: 2) {
      try Files.removeTree(directory)
      process = try start(directory, reference)
      try await Task.sleep(for: duration * moment / 10)
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
      let store = try ImageStore(directory: directory)
      let there = try content(directory)
      for (name, files) in there { #expect(files == expected[name], "layer \(name) after \(moment)") }
      kept.insert(there.count)
      #expect(try Files.list(directory + "/ingest") == [], "\(moment)")
      let image = try store.resolve(reference)
      images.insert(image != nil)
      if image != nil { #expect(image?.id == id && there.count == 3) }
      #expect(try await store.pull(reference).id == id)
      #expect(try content(directory) == expected, "\(moment)")
    }
    // The moments were before the end, and not all before the beginning.
    #expect(images.contains(false), "\(kept)")
  }

  @Test("layers come at the same time, as many as are allowed")
  func parallel() async throws {
    let registry = try Registry()
    let layers = (0..<5).map { number in Stores.layer([("f\(number)", String(repeating: "\(number)", count: 40_000))]) }
    #expect(
      registry.push(try folder.write("web.tar", savedImage(layers: layers, name: "web:1")), "web:1", extra: ["--dest-compress=false"]).code == 0)
    let proxy = try FaultProxy(registry.port) { request, _ in request.target.contains("/blobs/") ? .slow(2000, milliseconds: 10) : nil }
    for allowed in [1, 3] {
      var configuration = ImageStoreConfiguration()
      configuration.concurrentDownloads = allowed
      let store = try ImageStore(directory: folder.path + "/\(allowed)", configuration: configuration)
      let state = Mutex((now: Set<String>(), most: 0))
      _ = try await store.pull("\(proxy.host)/web:1") { progress in
        state.withLock { state in
          if progress.phase == .downloading { state.now.insert("\(progress.layer)") }
          if progress.phase == .unpacking || progress.phase == .done { state.now.remove("\(progress.layer)") }
          state.most = max(state.most, state.now.count)
        }
      }
      #expect(state.withLock { $0.most } == allowed)
    }
  }
}
