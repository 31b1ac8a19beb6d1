import CLinux
import Glibc
import LinuxSystem
import Logging
import Model
import Synchronization

/// Answers DNS inside containers: a UDP and a TCP socket at `EmbeddedDNS` in each container's namespace, where the network's rules lead questions to
/// 127.0.0.11:53; all served by one thread.
/// Bounds: 64 TCP connections per container, 512 questions under way to other resolvers and 64 by TCP, of one container 128 and 32; beyond, connections are
/// closed and questions are answered SERVFAIL.
public final class NameServer: Sendable {
  private let loop: NameServerLoop

  /// `upstreams`: nil means the host's /etc/resolv.conf, read again when it is older than 5 s.
  public init(upstreams: ResolvConf? = nil, log: Logger) throws {
    loop = try NameServerLoop(upstreams: upstreams, log: log)
    startThread("orch-dns") { [loop] in loop.run() }
  }
  deinit { loop.push(.finish) }

  /// Of questions, since this server began: answered by the zone, by an answer of the host's servers that was kept, by asking them; those that no
  /// server answered or for which there was no room (SERVFAIL), and what was no question.
  public var counts: (answered: UInt64, kept: UInt64, forwarded: UInt64, failed: UInt64, malformed: UInt64) { loop.counters.values }

  /// From the next question on, in the order of the calls; `removals` come first. Questions wait as long as it takes: microseconds a record.
  /// The first call opens the server: until then questions wait in their sockets.
  public func update(_ updates: [AssignmentItem], removing removals: [AssignmentItem.Key] = []) { loop.update(updates, removals) }

  /// Opens the sockets in the namespace at `path` and answers on them until `stop`. A task that is served already is served anew;
  /// after a restart of the agent this is called again. Throws SystemError when the address is in use there.
  public func serve(_ task: TaskID, namespace path: String, client: DNSClient) async throws {
    loop.push(.remove(task))
    let sockets = try await onOwnThread("orch-dns-open") { try Self.sockets(path, client) }
    loop.push(.add(task, sockets, client))
  }

  /// Closes the task's sockets, which would otherwise keep its namespace alive.
  public func stop(_ task: TaskID) { loop.push(.remove(task)) }

  struct Sockets {
    var datagrams: Int32
    var listener: Int32
    /// The namespace itself, for who has servers of its own; else -1.
    var namespace: Int32 = -1
    /// Of the namespace.
    var path = ""
    func close() { for descriptor in [datagrams, listener, namespace] where descriptor >= 0 { Glibc.close(descriptor) } }
  }

  /// Those of the namespace at `path`, which the calling thread joins. Blocks.
  static func sockets(_ path: String, _ client: DNSClient) throws -> Sockets {
    let namespace = try joinNetworkNamespace(path)
    var sockets = try open()
    sockets.path = path
    if client.servers != nil { sockets.namespace = fcntl(namespace.rawValue, F_DUPFD_CLOEXEC, 0) }
    return sockets
  }

  private static func open() throws -> Sockets {
    func bound(_ kind: __socket_type) throws -> Int32 {
      let descriptor = socket(AF_INET, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
      guard descriptor >= 0 else { throw SystemError("open", "DNS socket", Errno(errno)) }
      var on: Int32 = 1
      // A burst of questions waits while another container's are answered; beyond the kernel's bound for others (CAP_NET_ADMIN).
      var room: Int32 = 1 << 20
      if kind == SOCK_DGRAM { setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, 4) }
      if kind == SOCK_STREAM { setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, 4) }
      guard withSocketAddress(EmbeddedDNS.address, EmbeddedDNS.port, { bind(descriptor, $0, $1) }) == 0,
        kind == SOCK_DGRAM || listen(descriptor, 64) == 0
      else {
        let error = errno
        close(descriptor)
        throw SystemError("bind", "\(EmbeddedDNS.address):\(EmbeddedDNS.port)", Errno(error))
      }
      return descriptor
    }
    // The old server of the same task may still be closing.
    for attempt in 1... {
      do {
        let datagrams = try bound(SOCK_DGRAM)
        do { return Sockets(datagrams: datagrams, listener: try bound(SOCK_STREAM)) } catch {
          close(datagrams)
          throw error
        }
      } catch {
        if attempt == 50 { throw error }
        usleep(10_000)
      }
    }
    preconditionFailure("unreachable")
  }
}
