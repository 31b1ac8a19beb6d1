import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

/// openssl's HTTPS server on a port that the kernel chose, gone with the test.
private final class TLSServer: @unchecked Sendable {
  // Written in init alone.
  private var process: pid_t = 0
  let port: Int

  /// - Parameter options: `-www`: a page about the connection, the client's certificate included; `-HTTP`: files are whole answers.
  init(_ certificate: Certificate, in folder: String, _ options: [String]) throws {
    let log = "\(folder)/s_server-\(UInt32.random(in: 0 ... .max))"
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    let words =
      [
        "sh", "-c", "cd \"$0\" && exec openssl s_server \"$@\"", folder, "-accept", "127.0.0.1:0", "-cert", certificate.path, "-key",
        certificate.keyPath,
      ] + options
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { (word: String) in strdup(word) }
    arguments.append(nil)
    var process: pid_t = 0
    let result = posix_spawn(&process, "/bin/sh", &actions, nil, arguments, environ)
    arguments.forEach { free($0) }
    guard result == 0 else { throw SystemError("start", "openssl s_server", Errno(result)) }
    var port: Int?
    for _ in 0..<1800 {
      let said = (try? Files.text(log)) ?? ""
      let place = said.split(separator: "\n", omittingEmptySubsequences: false).dropLast().first { $0.hasPrefix("ACCEPT ") }
      port = place.flatMap { $0.split(separator: ":").last.flatMap { Int($0) } }
      if port != nil { break }
      usleep(25_000)
    }
    guard let port else {
      kill(process, SIGKILL)
      waitpid(process, nil, 0)
      throw SystemError("start", "openssl s_server", .busy)
    }
    (self.process, self.port) = (process, port)
  }
  deinit {
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
  }
}

@Suite("Files by URL", .enabled(if: geteuid() == 0 && installed("openssl"))) struct RemoteFileTests {
  private let folder = Folder()
  private func store() throws -> ImageStore {
    var configuration = ImageStoreConfiguration()
    configuration.attempts = 1
    configuration.certificateFolders = [folder.path + "/certs.d"]
    return try ImageStore(directory: folder.path + "/images", configuration: configuration)
  }
  /// As for a registry that wants a client's certificate.
  private func believe(_ certificate: Certificate, at port: Int) throws {
    try Files.makeDirectories("\(folder.path)/certs.d/127.0.0.1:\(port)", mode: 0o700)
    for (name, path) in [("ca.crt", certificate.path), ("client.cert", certificate.path), ("client.key", certificate.keyPath)] {
      try folder.write("certs.d/127.0.0.1:\(port)/\(name)", Files.read(path))
    }
  }
  /// Answers each request with this head.
  private func listener(_ asked: @escaping @Sendable (Int) -> [String]) throws -> (HTTPListener, @Sendable () -> Int) {
    final class Count: Sendable { let value = Mutex(0) }
    let count = Count()
    let listener = try HTTPListener { _, client in
      let number = count.value.withLock {
        $0 += 1; return $0
      }
      HTTPListener.send(client, (asked(number) + ["Connection: close"]).joined(separator: "\r\n") + "\r\n\r\n")
    }
    return (listener, { count.value.withLock { $0 } })
  }

  @Test("a server that asks for a client's certificate sees none, asked by its own address or by a redirect to it")
  func clientCertificate() async throws {
    let certificate = try Certificate()
    let server = try TLSServer(certificate, in: folder.path, ["-www", "-verify", "1"])
    try believe(certificate, at: server.port)
    let url = "https://127.0.0.1:\(server.port)/file"
    let (redirect, _) = try listener { _ in ["HTTP/1.1 302 There", "Location: \(url)", "Content-Length: 0"] }
    let (store, file) = (try store(), folder.path + "/file")
    for url in [url, "http://127.0.0.1:\(redirect.port)/"] {
      _ = try await store.download(url, to: file, limit: 1 << 20)
      #expect(try Files.text(file).contains("no client certificate available"), "\(url)")
      unlink(file)
    }
  }

  @Test("ten redirects are followed and no more; none leaves TLS")
  func redirects() async throws {
    let store = try store()
    let (circle, circled) = try listener { _ in ["HTTP/1.1 302 There", "Location: /again", "Content-Length: 0"] }
    let tired = await #expect(throws: ImageError.self) {
      try await store.download("http://127.0.0.1:\(circle.port)/", to: folder.path + "/file", limit: 10)
    }
    #expect(tired?.description.contains("redirects too often") == true && circled() == 11, "\(String(describing: tired)) \(circled())")
    let (ten, _) = try listener {
      $0 <= 10 ? ["HTTP/1.1 302 There", "Location: /again", "Content-Length: 0"] : ["HTTP/1.1 200 OK", "Content-Length: 0"]
    }
    #expect(try await store.download("http://127.0.0.1:\(ten.port)/", to: folder.path + "/empty", limit: 10).size == 0)

    let (plain, asked) = try listener { _ in ["HTTP/1.1 200 OK", "Content-Length: 0"] }
    let certificate = try Certificate()
    try folder.write("away", Array("HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:\(plain.port)/\r\nContent-Length: 0\r\n\r\n".utf8))
    let server = try TLSServer(certificate, in: folder.path, ["-HTTP"])
    try believe(certificate, at: server.port)
    let away = await #expect(throws: ImageError.self) {
      try await store.download("https://127.0.0.1:\(server.port)/away", to: folder.path + "/file", limit: 10)
    }
    #expect(away?.description.contains("which is not HTTPS") == true && asked() == 0, "\(String(describing: away))")
  }

  @Test("a Content-Length beyond the limit is refused before anything is received")
  func length() async throws {
    // The body does not come.
    let (server, _) = try listener { _ in ["HTTP/1.1 200 OK", "Content-Length: 11"] }
    let file = folder.path + "/file"
    let error = await #expect(throws: ImageError.self) { try await store().download("http://127.0.0.1:\(server.port)/", to: file, limit: 10) }
    #expect(error?.kind == .hostile && error?.description.contains("more than 10 bytes") == true, "\(String(describing: error))")
    #expect(!Files.exists(file))
  }
}
