import Glibc
import LinuxSystem
import Testing

@testable import RegistryLogin

@Suite(.serialized) struct Logins {
  /// A folder of the test's own, gone with `body`.
  private func inFolder(_ body: (String) throws -> Void) throws {
    var template = Array("/tmp/orch-login-XXXXXX".utf8CString)
    let folder = String(cString: mkdtemp(&template)!)
    defer { try? Files.removeTree(folder) }
    try body(folder)
  }

  static let files: [(String, String, RegistryCredentials?)] = [
    (#"{"auths":{"r.example:5000":{"auth":"YW5uOnNlY3JldDp4"}}}"#, "r.example:5000", .init(username: "ann", password: "secret:x")),
    (#"{"auths":{"https://r.example/v2/":{"auth":"YW5uOnNlY3JldA=="}}}"#, "r.example", .init(username: "ann", password: "secret")),
    (#"{"auths":{"https://index.docker.io/v1/":{"auth":"YW5uOnNlY3JldA=="}}}"#, "docker.io", .init(username: "ann", password: "secret")),
    (#"{"auths":{"r.example":{"username":"ann","password":"p"}}}"#, "r.example", .init(username: "ann", password: "p")),
    (#"{"auths":{"r.example":{"identitytoken":"t"}}}"#, "r.example", .init(username: "", password: "", identityToken: "t")),
    (#"{"auths":{"r.example":{"auth":"YW5uOnNlY3JldA=="}}}"#, "other.example", nil),
    (#"{"auths":{"r.example":{"auth":"YW5uOnNlY3JldA=="}}}"#, "r.example:5000", nil),
    (#"{"auths":{"r.example":{}}}"#, "r.example", nil), (#"{}"#, "r.example", nil),
  ]
  @Test("docker's config.json is read as docker reads it", arguments: files)
  func file(_ text: String, _ registry: String, _ expected: RegistryCredentials?) throws {
    try inFolder { folder in
      try Files.writeAtomically(folder + "/config.json", text)
      #expect(try CredentialsFile.credentials(for: registry, in: folder + "/config.json") == expected)
    }
  }

  static let namespaced: [(String, String?)] = [
    ("b/x", "b"), ("a/x", "a"), ("b/x/y", "deep"), ("b/xy", "b"), ("bb/x", "all"), ("", "all"),
  ]
  @Test("podman's entries for a part of a registry count for that part alone, the longest first", arguments: namespaced)
  func namespaces(_ path: String, _ user: String?) throws {
    func entry(_ user: String) -> String { #"{"username":"\#(user)","password":"p"}"# }
    try inFolder { folder in
      let entries = ["q.example/a": "a", "q.example/b": "b", "q.example/b/x/y": "deep", "q.example": "all", "https://other.example/v2/": "other"]
      func write(_ entries: [String: String]) throws {
        try Files.writeAtomically(
          folder + "/auth.json", #"{"auths":{"# + entries.map { "\"\($0)\":\(entry($1))" }.joined(separator: ",") + "}}")
      }
      try write(entries)
      #expect(try CredentialsFile.credentials(for: "q.example", path: path, in: folder + "/auth.json")?.username == user)
      try write(entries.filter { $0.key != "q.example" })
      #expect(try CredentialsFile.credentials(for: "q.example", path: path, in: folder + "/auth.json")?.username == (user == "all" ? nil : user))
    }
  }

  static let environments: [([String: String], [String])] = [
    (["HOME": "/h"], ["/run/containers/7/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]),
    (["HOME": "/h", "XDG_RUNTIME_DIR": "/x"], ["/x/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]),
    (
      ["HOME": "/h", "XDG_RUNTIME_DIR": "", "XDG_CONFIG_HOME": "/c"],
      ["/run/containers/7/auth.json", "/c/containers/auth.json", "/h/.docker/config.json"]
    ),
    (["HOME": "/h", "XDG_RUNTIME_DIR": "/x", "DOCKER_CONFIG": "/d"], ["/d/config.json"]),
    (["HOME": "/h", "DOCKER_CONFIG": "/d", "REGISTRY_AUTH_FILE": "/f"], ["/f"]), (["REGISTRY_AUTH_FILE": ""], ["/run/containers/7/auth.json"]),
  ]
  @Test("credentials are looked for where docker, podman and skopeo put them, in podman's order", arguments: environments)
  func places(_ environment: [String: String], _ files: [String]) {
    #expect(CredentialsFile.paths(environment: { environment[$0] }, user: 7) == files)
  }

  @Test("the first file that has something for the registry counts")
  func severalFiles() throws {
    try inFolder { folder in
      func write(_ name: String, _ entries: [String: String]) throws {
        let text = entries.map { "\"\($0)\":{\"username\":\"\($1)\",\"password\":\"p\"}" }.joined(separator: ",")
        try Files.writeAtomically("\(folder)/\(name)", "{\"auths\":{\(text)}}")
      }
      try write("auth.json", ["a.example": "podman"])
      try write("config.json", ["a.example": "docker", "b.example": "docker"])
      let files = ["none", "auth.json", "config.json"].map { "\(folder)/\($0)" }
      #expect(try CredentialsFile.credentials(for: "a.example", in: files)?.username == "podman")
      #expect(try CredentialsFile.credentials(for: "b.example", in: files)?.username == "docker")
      #expect(try CredentialsFile.credentials(for: "c.example", in: files) == nil)
    }
  }

  @Test("what skopeo login writes is found", .enabled(if: access("/usr/bin/skopeo", X_OK) == 0))
  func skopeo() throws {
    try inFolder { folder in
      // A registry that takes whoever comes: skopeo asks before it writes.
      let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      defer {
        shutdown(listener, Int32(SHUT_RDWR))
        close(listener)
      }
      var address = sockaddr_in()
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      (address.sin_family, address.sin_addr.s_addr) = (sa_family_t(AF_INET), UInt32(0x7f00_0001).bigEndian)
      let bound = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, length) == 0 && getsockname(listener, $0, &length) == 0 }
      }
      #expect(bound && listen(listener, 4) == 0)
      let registry = "127.0.0.1:\(UInt16(bigEndian: address.sin_port))"
      startThread("test-registry") {
        while true {
          let client = accept(listener, nil, nil)
          if client < 0 { return }
          var request = [UInt8](repeating: 0, count: 4096)
          recv(client, &request, request.count, 0)
          let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
          send(client, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
          close(client)
        }
      }
      let environment = ["XDG_RUNTIME_DIR": folder, "HOME": folder, "PATH": "/usr/bin:/bin"]
      let words = environment.map { "\($0)=\($1)" } + ["skopeo", "login", "--tls-verify=false", "-u", "ann", "-p", "secret", registry]
      let process = try ChildProcess.start("env", ["env", "-i"] + words, inPath: true) { actions in
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 2, folder + "/errors", O_WRONLY | O_CREAT, 0o600)
      }
      #expect(ChildProcess.exitCode(ChildProcess.reap(process)) == 0, "\((try? Files.text(folder + "/errors")) ?? "")")
      let files = CredentialsFile.paths(environment: { environment[$0] })
      #expect(try CredentialsFile.credentials(for: registry, in: files) == .init(username: "ann", password: "secret"))
    }
  }

  @Test("a credential helper is asked; a missing one, a failing one and one that has nothing are told apart")
  func helper() throws {
    try inFolder { folder in
      let script = """
        #!/bin/sh
        read registry
        case "$registry" in
        r.example) echo '{"ServerURL":"r.example","Username":"ann","Secret":"s"}';;
        t.example) echo '{"ServerURL":"t.example","Username":"<token>","Secret":"tok"}';;
        bad.example) echo locked; exit 3;;
        *) echo "credentials not found in native keychain"; exit 1;;
        esac
        """
      try Files.writeAtomically(folder + "/docker-credential-test", Array(script.utf8), mode: 0o755)
      let path = String(cString: getenv("PATH"))
      setenv("PATH", folder + ":" + path, 1)
      defer { setenv("PATH", path, 1) }
      let file = folder + "/config.json"
      try Files.writeAtomically(file, #"{"credsStore":"test","credHelpers":{"gone.example":"nosuch"},"auths":{"f.example":{"auth":"YTpi"}}}"#)
      #expect(try CredentialsFile.credentials(for: "r.example", in: file) == .init(username: "ann", password: "s"))
      #expect(try CredentialsFile.credentials(for: "t.example", in: file)?.identityToken == "tok")
      #expect(try CredentialsFile.credentials(for: "x.example", in: file) == nil)
      #expect(try CredentialsFile.credentials(for: "f.example", in: file) == .init(username: "a", password: "b"))
      let locked = #expect(throws: LoginError.self) { try CredentialsFile.credentials(for: "bad.example", in: file) }
      #expect(locked?.description.contains("locked") == true)
      let gone = #expect(throws: LoginError.self) { try CredentialsFile.credentials(for: "gone.example", in: file) }
      #expect(gone?.description.contains("docker-credential-nosuch") == true && gone?.description.contains("PATH") == true)
      try Files.writeAtomically(file, #"{"credsStore":"../evil"}"#)
      #expect(throws: LoginError.self) { try CredentialsFile.credentials(for: "r.example", in: file) }
      try Files.writeAtomically(file, "no json")
      #expect(throws: LoginError.self) { try CredentialsFile.credentials(for: "r.example", in: file) }
      #expect(try CredentialsFile.credentials(for: "r.example", in: folder + "/none") == nil)
    }
  }

  @Test("X-Registry-Auth is read as it was written, docker's own too")
  func header() throws {
    let ann = RegistryCredentials(username: "ann", password: "ü?>~secret")
    let header = try ann.header(for: "r.example")
    #expect(!header.contains("+") && !header.contains("/"))
    #expect(try RegistryCredentials(header: header) == ann)
    // docker sends "{}" when it has nothing.
    #expect(try RegistryCredentials(header: "e30=") == nil)
    #expect(try RegistryCredentials(header: "e30") == nil)
    #expect(try RegistryCredentials(header: "") == nil)
    for bad in ["!!!", "bm8ganNvbg=="] { #expect(throws: LoginError.self) { try RegistryCredentials(header: bad) } }
  }

  @Test("a password is in no text that is made of credentials")
  func silence() {
    let ann = RegistryCredentials(username: "ann", password: "hunter2", identityToken: "hunter3")
    var dumped = ""
    dump(Optional(ann), to: &dumped)
    for text in ["\(ann)", "\([ann])", String(reflecting: ann), "\(Optional(ann) as Any)", dumped] { #expect(!text.contains("hunter")) }
  }
}
