import CLinux
import Glibc
import Synchronization

/// A thread that may change its network namespace, which no thread of a pool may: work that runs inside namespaces is done here, one
/// piece after the other. Between pieces it is always in its home namespace.
public final class NetworkThread: Sendable {
  private let queue: Queue

  /// `home`: path of a namespace file; nil: the namespace of the calling thread's process.
  public init(name: String, home: String? = nil) throws(NetlinkError) {
    let path = home ?? "/proc/self/ns/net"
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw NetlinkError(operation: "open namespace", object: path, errno: errno) }
    queue = Queue(name: name, home: descriptor)
    let box = Unmanaged.passRetained(queue)
    var thread = pthread_t()
    let code = pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<Queue>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, box.toOpaque())
    guard code == 0 else {
      box.release()
      throw NetlinkError(operation: "start thread", object: name, errno: code)
    }
    pthread_detach(thread)
  }
  deinit { queue.push(nil) }

  /// In the home namespace.
  public func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
      queue.push { continuation.resume(with: Result(catching: body)) }
    }
  }

  /// In the namespace of the file at `path`.
  public func run<T: Sendable>(in path: String, _ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await run { [queue] in try queue.inside(path, body) }
  }

  /// For a caller that already runs on this thread.
  public func inside<T>(_ path: String, _ body: () throws -> T) throws -> T { try queue.inside(path, body) }
  /// Makes a new namespace, runs `body` in it, and comes home; the namespace lives as long as `body` made something hold it.
  public func insideNew<T>(_ body: () throws -> T) throws -> T { try queue.insideNew(body) }

  private final class Queue: Sendable {
    private let name: String
    private let home: Int32
    private let pending = Mutex<[(@Sendable () -> Void)?]>([])
    private let wake: Int32

    init(name: String, home: Int32) {
      self.name = name
      self.home = home
      wake = eventfd(0, Int32(EFD_CLOEXEC))
      precondition(wake >= 0, "eventfd: \(errno)")
    }
    deinit {
      close(home)
      close(wake)
    }

    func push(_ job: (@Sendable () -> Void)?) {
      pending.withLock { $0.append(job) }
      eventfd_write(wake, 1)
    }

    func run() {
      clinux_name_thread(name)
      comeHome()
      var count: eventfd_t = 0
      while true {
        while eventfd_read(wake, &count) != 0 { precondition(errno == EINTR, "eventfd: \(errno)") }
        let jobs = pending.withLock { jobs in
          defer { jobs = [] }
          return jobs
        }
        for job in jobs {
          guard let job else { return }
          job()
        }
      }
    }

    func inside<T>(_ path: String, _ body: () throws -> T) throws -> T {
      let target = open(path, O_RDONLY | O_CLOEXEC)
      guard target >= 0 else { throw NetlinkError(operation: "open namespace", object: path, errno: errno) }
      defer { close(target) }
      guard clinux_enter_network_namespace(target) == 0 else { throw NetlinkError(operation: "enter namespace", object: path, errno: errno) }
      defer { comeHome() }
      return try body()
    }

    func insideNew<T>(_ body: () throws -> T) throws -> T {
      guard clinux_new_network_namespace() == 0 else { throw NetlinkError(operation: "make namespace", object: "net", errno: errno) }
      defer { comeHome() }
      return try body()
    }

    /// Going on in a wrong namespace would configure somebody else's network: there is nothing to do but stop.
    private func comeHome() { precondition(clinux_enter_network_namespace(home) == 0, "return to the home namespace: errno \(errno)") }
  }
}
