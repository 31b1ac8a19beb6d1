import Glibc
import LinuxSystem
import Logging
import Model
import Netlink

@testable import AgentNetwork

/// Hosts and an outside as network namespaces on one underlay, 192.168.77.0/24: host N is .N, outside .100. Everything is removed by
/// `remove`, which also happens at the end of `with`.
final class NamespaceWorld: Sendable {
  let folder: String
  let hosts: Int
  let thread: NetworkThread

  static func with(_ hosts: Int, _ body: (NamespaceWorld) async throws -> Void) async throws {
    let world = try NamespaceWorld(hosts: hosts)
    do {
      try await world.build()
      try await body(world)
    } catch {
      world.remove()
      throw error
    }
    world.remove()
  }

  private init(hosts: Int) throws {
    folder = "/tmp/orch-network-\(UInt64.random(in: 0...UInt64.max))"
    self.hosts = hosts
    thread = try NetworkThread(name: "test-world")
    mkdir(folder, 0o700)
  }

  func namespace(_ name: String) -> String { "\(folder)/\(name)" }
  func host(_ number: Int) -> String { namespace("host\(number)") }
  var outside: String { namespace("outside") }

  /// With br_netfilter (docker's hosts have it) bridged frames meet the rules as well. Kernels without it have no such file.
  func showBridgedFrames(_ on: Bool) async throws {
    for file in ["iptables", "ip6tables"].map({ "/proc/sys/net/bridge/bridge-nf-call-\($0)" }) {
      for number in 1...hosts { _ = try await run(in: host(number), "sh", "-c", "[ ! -e \(file) ] || echo \(on ? 1 : 0) > \(file)") }
    }
  }

  private func build() async throws {
    let names = ["underlay", "outside"] + (1...hosts).map { "host\($0)" }
    let paths = names.map(namespace)
    let (hosts, outside, underlay) = (hosts, outside, namespace("underlay"))
    let hostPaths = (1...hosts).map(host)
    try await thread.run { [thread] in
      for path in paths {
        close(Glibc.open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0o400))
        try thread.insideNew {
          guard mount("/proc/thread-self/ns/net", path, nil, UInt(MS_BIND), nil) == 0 else {
            throw NetlinkError(operation: "bind", object: path, errno: errno)
          }
          try NetlinkSocket().perform([.setLink(1, "lo", up: true)])
        }
      }
      try thread.inside(underlay) {
        let socket = try NetlinkSocket()
        try socket.perform([.addLink("under0", .bridge)])
        let bridge = try socket.links().first { $0.name == "under0" }!.index
        try socket.perform([.setLink(bridge, "under0", up: true)])
        for (number, path) in Array(hostPaths.enumerated()).map({ ($0.offset + 1, $0.element) }) + [(100, outside)] {
          let target = Glibc.open(path, O_RDONLY | O_CLOEXEC)
          defer { close(target) }
          try socket.perform([
            .addVeth(
              "port\(number)", master: bridge, mtu: 1500, peer: "eth0", peerMAC: [2, 0, 0, 0, 0, UInt8(number)], peerNamespace: target, alias: "test")
          ])
          try thread.inside(path) {
            let inner = try NetlinkSocket()
            let link = try inner.links().first { $0.name == "eth0" }!.index
            try inner.perform([.addAddress([192, 168, 77, UInt8(number)], length: 24, on: link), .setLink(link, "eth0", up: true)])
          }
          // `inside` came home; back to the underlay for the next port.
        }
      }
    }
  }

  /// Host N is fd00:192::N beside, outside fd00:192::100.
  func addIPv6() async throws {
    for (name, number) in (1...hosts).map({ ("host\($0)", $0) }) + [("outside", 100)] {
      let added = try await run(in: namespace(name), "ip", "address", "add", "fd00:192::\(number)/64", "dev", "eth0", "nodad")
      guard added.code == 0 else { throw NetlinkError(operation: "add address", object: name, errno: EINVAL) }
    }
  }
  func underlay(_ number: Int, _ family: IPFamily) -> String { family == .v6 ? "fd00:192::\(number)" : "192.168.77.\(number)" }

  func overlay(
    _ number: Int, lingering: Duration = .seconds(10), bypassesBridges: Bool = true, hearsChanges: Bool = true
  ) throws -> OverlayNetwork {
    var configuration = OverlayNetwork.Configuration(
      underlayAddress: address("192.168.77.\(number)"), runDirectory: "\(folder)/run\(number)", hostNamespace: host(number),
      bypassesBridges: bypassesBridges)
    configuration.lingering = lingering
    configuration.hearsChanges = hearsChanges
    return try OverlayNetwork(configuration: configuration, log: Logger(label: "test"))
  }

  private func remove() {
    func unbind(in folder: String) {
      guard let directory = opendir(folder) else { return }
      var names: [String] = []
      while let entry = readdir(directory) {
        names.append(withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } })
      }
      closedir(directory)
      for name in names where name != "." && name != ".." {
        let path = "\(folder)/\(name)"
        while umount2(path, 2) == 0 {}
        if unlink(path) != 0 { unbind(in: path) }
      }
      rmdir(folder)
    }
    unbind(in: folder)
  }

  // MARK: Probes

  struct Result {
    var code: Int32
    var output: String
  }

  /// Runs a program in a namespace, with its output; the child inherits the namespace of the thread that spawns it.
  func run(in path: String, _ arguments: String...) async throws -> Result {
    let child = try await spawn(in: path, arguments, capture: true)
    return await withCheckedContinuation { continuation in
      Reader.start {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while case let count = read(child.output, &buffer, buffer.count), count > 0 { bytes += buffer[..<count] }
        close(child.output)
        var status: Int32 = 0
        waitpid(child.pid, &status, 0)
        continuation.resume(returning: Result(code: status & 0x7f == 0 ? status >> 8 & 0xff : -1, output: String(decoding: bytes, as: UTF8.self)))
      }
    }
  }

  /// A small HTTP server that answers "<name> <client's address>" at /cgi-bin/who. Killed by `stop`.
  func serve(_ name: String, in path: String, port: Int = 80, at address: String? = nil) async throws -> pid_t {
    let root = "\(folder)/www-\(name)"
    mkdir(root, 0o755)
    mkdir("\(root)/cgi-bin", 0o755)
    let script = "#!/bin/sh\nprintf 'Content-type: text/plain\\r\\n\\r\\n'\nprintf '%s %s' '\(name)' \"${REMOTE_ADDR##*:}\"\n"
    let file = Glibc.open("\(root)/cgi-bin/who", O_CREAT | O_WRONLY | O_CLOEXEC, 0o755)
    write(file, script, script.utf8.count)
    close(file)
    let pid = try await spawn(in: path, ["busybox", "httpd", "-f", "-p", (address.map { "\($0):" } ?? "") + "\(port)", "-h", root], capture: false)
      .pid
    for _ in 1...100 {
      if try await ask("\(address ?? "127.0.0.1"):\(port)", from: path) != nil { break }
      try await Task.sleep(for: .milliseconds(20))
    }
    return pid
  }

  func stop(_ servers: [pid_t]) {
    for pid in servers {
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
    }
  }

  /// Who answers; nil when nobody does within 3 s.
  func ask(_ target: String, from path: String) async throws -> (name: String, client: String)? {
    guard case .answered(let text) = try await request(target, from: path) else { return nil }
    let words = (text.split(separator: "\r\n\r\n").last ?? "").split(separator: " ").map(String.init)
    // A dual-stack server writes an IPv4 client as [::ffff:10.0.0.1].
    return words.count == 2 ? (words[0], words[1].filter { $0 != "]" }) : nil
  }

  enum Outcome: Equatable {
    case answered(String)
    case failed(Int32)
    static let refused = Self.failed(ECONNREFUSED)
  }

  /// `target`: address, address:port, [IPv6 address] or [IPv6 address]:port.
  func request(_ target: String, from path: String) async throws -> Outcome {
    let isV6 = target.hasPrefix("[")
    let parts = target.drop { $0 == "[" }.split(separator: isV6 ? "]" : ":").map(String.init)
    let port = parts.count > 1 ? UInt16(parts[1].drop { $0 == ":" })! : 80
    return try await withNetworkNamespace(path) {
      let descriptor = socket(isV6 ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      defer { close(descriptor) }
      var limit = timeval(tv_sec: 3, tv_usec: 0)
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      guard SocketName(parts[0], port).with({ connect(descriptor, $0, $1) }) == 0 else { return .failed(errno) }
      let query = "GET /cgi-bin/who HTTP/1.0\r\n\r\n"
      send(descriptor, query, query.utf8.count, Int32(MSG_NOSIGNAL))
      var bytes: [UInt8] = []
      var buffer = [UInt8](repeating: 0, count: 4096)
      while case let count = recv(descriptor, &buffer, buffer.count, 0), count > 0 { bytes += buffer[..<count] }
      return .answered(String(decoding: bytes, as: UTF8.self))
    }
  }

  /// A socket, 2 s patient: listening at a port of every address, or connected.
  /// - Parameters:
  ///   - own: the port that it calls from; nil: any.
  ///   - any: every address of which family; `::` is IPv4's, too.
  func open(
    _ kind: __socket_type, in path: String, connectedTo host: String? = nil, port: UInt16, protocol: Int32 = 0, from own: UInt16? = nil,
    any: String = "0.0.0.0"
  ) async throws -> Int32 {
    try await withNetworkNamespace(path) {
      let name = SocketName(host ?? any, port)
      let descriptor = socket(name.family, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue), `protocol`)
      var limit = timeval(tv_sec: 2, tv_usec: 0)
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      limit.tv_sec = 20
      setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      if let own {
        var reuse: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, 4)
        guard SocketName(name.family == AF_INET6 ? "::" : "0.0.0.0", own).with({ bind(descriptor, $0, $1) }) == 0 else {
          throw NetlinkError(operation: "bind", object: "port \(own)", errno: errno)
        }
      }
      let failed = name.with { host == nil ? bind(descriptor, $0, $1) : connect(descriptor, $0, $1) }
      guard failed == 0, kind == SOCK_DGRAM || host != nil || listen(descriptor, 8) == 0 else {
        throw NetlinkError(operation: "open", object: "port \(port)", errno: errno)
      }
      return descriptor
    }
  }

  /// Sends one datagram back and says whose it was; nil when none came.
  func echo(_ server: Int32, most: Int = 64) -> String? {
    var bytes = [UInt8](repeating: 0, count: most)
    var count = 0
    let peer = SocketName { pointer, size in
      count = recvfrom(server, &bytes, most, 0, pointer, &size)
      return count > 0 && sendto(server, bytes, count, 0, pointer, size) == count
    }
    return peer?.host
  }

  /// From a socket that is connected to nobody.
  func tell(_ socket: Int32, _ text: String, to host: String, port: UInt16) {
    _ = SocketName(host, port).with { sendto(socket, text, text.utf8.count, 0, $0, $1) }
  }

  /// One datagram and whose it was, as "text of address:port"; nil when none came.
  func hear(_ socket: Int32) -> String? {
    var bytes = [UInt8](repeating: 0, count: 64)
    var count = 0
    let peer = SocketName { pointer, size in
      count = recvfrom(socket, &bytes, bytes.count, 0, pointer, &size)
      return count >= 0
    }
    return peer.map { "\(String(decoding: bytes[..<count], as: UTF8.self)) of \($0)" }
  }

  private struct Child: Sendable {
    var pid: pid_t
    var output: Int32
  }
  private func spawn(in path: String, _ arguments: [String], capture: Bool) async throws -> Child {
    try await thread.run(in: path) {
      var pipe: [Int32] = [-1, -1]
      guard Glibc.pipe(&pipe) == 0 else { throw NetlinkError(operation: "pipe", object: "", errno: errno) }
      _ = fcntl(pipe[0], F_SETFD, FD_CLOEXEC)
      _ = fcntl(pipe[1], F_SETFD, FD_CLOEXEC)
      var actions = posix_spawn_file_actions_t()
      posix_spawn_file_actions_init(&actions)
      defer { posix_spawn_file_actions_destroy(&actions) }
      posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
      if capture {
        posix_spawn_file_actions_adddup2(&actions, pipe[1], 1)
      } else {
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
      }
      posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
      var argv: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
      defer { for pointer in argv { free(pointer) } }
      var environment: [UnsafeMutablePointer<CChar>?] = [strdup("PATH=/usr/sbin:/usr/bin:/sbin:/bin"), nil]
      defer { free(environment[0]) }
      var pid: pid_t = 0
      // Threads of a Swift process block signals, and children inherit that: ping would wait for its alarm for ever.
      var attributes = posix_spawnattr_t()
      posix_spawnattr_init(&attributes)
      defer { posix_spawnattr_destroy(&attributes) }
      var none = sigset_t()
      sigemptyset(&none)
      posix_spawnattr_setsigmask(&attributes, &none)
      posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
      let code = posix_spawnp(&pid, arguments[0], &actions, &attributes, &argv, &environment)
      close(pipe[1])
      guard code == 0 else {
        close(pipe[0])
        throw NetlinkError(operation: "spawn", object: arguments[0], errno: code)
      }
      if !capture { close(pipe[0]) }
      return Child(pid: pid, output: pipe[0])
    }
  }

  private enum Reader {
    static func start(_ body: @escaping @Sendable () -> Void) {
      let box = Unmanaged.passRetained(Box(body))
      var thread = pthread_t()
      pthread_create(
        &thread, nil,
        { argument in
          Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
          return nil
        }, box.toOpaque())
      pthread_detach(thread)
    }
    private final class Box {
      let body: @Sendable () -> Void
      init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
  }
}

/// An address of either family with a port, as the kernel takes it.
struct SocketName: CustomStringConvertible {
  private var bytes: [UInt8]
  var family: Int32 { Int32(bytes[0]) }
  /// IPv4's without what a socket of both families writes before it.
  var host: String {
    if family == AF_INET { return "\(IPv4Address(octets: Array(bytes[4..<8])))" }
    if bytes[8..<20] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] { return "\(IPv4Address(octets: Array(bytes[20..<24])))" }
    return "\(IPv6Address(octets: Array(bytes[8..<24])))"
  }
  var port: UInt16 { UInt16(bytes[2]) << 8 | UInt16(bytes[3]) }
  var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

  init(_ host: String, _ port: UInt16) {
    let number = [UInt8(port >> 8), UInt8(port & 0xff)]
    switch IPAddress(host)! {
    case .v4(let address): bytes = [UInt8(AF_INET), 0] + number + address.octets + [UInt8](repeating: 0, count: 8)
    case .v6(let address): bytes = [UInt8(AF_INET6), 0] + number + [0, 0, 0, 0] + address.octets + [0, 0, 0, 0]
    }
  }
  /// As `body` fills it; nil: it says that it did not.
  init?(_ body: (UnsafeMutablePointer<sockaddr>, inout socklen_t) -> Bool) {
    bytes = [UInt8](repeating: 0, count: 28)
    var size = socklen_t(28)
    let isDone = bytes.withUnsafeMutableBytes { body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), &size) }
    if !isDone { return nil }
  }
  func with<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
    bytes.withUnsafeBytes { body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count)) }
  }
}
