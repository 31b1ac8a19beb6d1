// Build: carries out what the room Dockerfile decided: stages of an image, step by step, over the image store and the runtime.
//
// Invariants
// - A step is looked up before it is carried out; what was made is remembered under the key of what decided it, and nothing else.
// - RUN is a container like any other (namespaces, seccomp, capabilities, no_new_privs, no mount of the host but resolv.conf and hosts), on its host's
//   network where the Dockerfile or who builds asks for that, and nowhere else;
//   COPY and ADD write below the image's root only, by descriptors that no link leads out of.
// - A build that fails or is cancelled leaves no image, no container and no file; its finished steps stay in the cache.
// It refuses to know HTTP, managers and where a context comes from: it gets a folder.
import AgentImage
import Dockerfile
import Glibc
import LinuxSystem
import Logging
import Model
import Runtime
import Surroundings
import Synchronization

public struct BuildRequest: Hashable, Sendable {
  /// In the context.
  public var dockerfile = "Dockerfile"
  /// As users write names; may be empty.
  public var names: [String] = []
  public var target: String?
  public var arguments: [String: String] = [:]
  public var labels: [String: String] = [:]
  public var usesCache = true
  /// Asks the registry for bases that are here already.
  public var pulls = false
  /// For RUNs that do not say. `standard`: a namespace of the build's own, with a way out (docker's `bridge`).
  public var network = Instruction.Run.Network.standard
  /// For `RUN --mount=type=secret`, by id. In memory alone.
  public var secrets: [String: [UInt8]] = [:]
  public init() {}
}

public enum BuildEvent: Hashable, Sendable {
  case step(number: Int, of: Int, text: String)
  /// The step's result was known.
  case cached
  case output([UInt8], isError: Bool)
  case finished(Duration)
  case warning(String)
}

public struct BuildError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Kind: Hashable, Sendable {
    /// The Dockerfile, the context or the request is wrong.
    case invalid
    /// A RUN ended with this code.
    case command(Int32)
    case busy
  }
  public var kind: Kind
  public var description: String
  public init(_ kind: Kind, _ description: String) { (self.kind, self.description) = (kind, description) }
}

public final class Builder: Sendable {
  let store: ImageStore
  let runtime: ContainerRuntime
  let cache: BuildCache
  let cacheMounts: CacheMounts
  /// nil: there are none here, and a RUN that wants a network is refused.
  let networks: BuildNetworks?
  let log: Logger
  private let running = Mutex(0)
  /// Builds at once; more are refused.
  public static let runningMax = 8
  /// Of all that one build's ADD brings by URLs, which stays on the disk until its end: as a context's.
  let remoteBytesMax: Int64
  /// Names of containers begin with it: what a crash left is known by it.
  static let containerPrefix = "build-"

  /// Blocking, once at start, before anything is swept.
  public init(
    store: ImageStore, runtime: ContainerRuntime, cacheFile: String, networks: BuildNetworks?, remoteBytesMax: Int64 = 4 << 30, log: Logger
  ) {
    self.networks = networks
    self.store = store
    self.runtime = runtime
    self.log = log
    self.remoteBytesMax = remoteBytesMax
    cache = BuildCache(file: cacheFile, store: store)
    cacheMounts = CacheMounts(cacheFile + "-mounts")
  }

  /// Removes containers of builds that an earlier agent did not finish. After the runtime's `recover`.
  public func removeLeftovers(_ containers: [String]) async {
    // Cgroups may be anybody's: names as `BuildRun` makes them, 64 bits in hexadecimal.
    for id in containers where id.hasPrefix(Self.containerPrefix) && UInt64(id.dropFirst(Self.containerPrefix.count), radix: 16) != nil {
      do { try await runtime.delete(id) } catch { log.warning("container \(id) of an earlier build: \(error)") }
    }
  }

  /// Forgets every step that was built, and removes the folders that RUNs keep and none has now: the number of steps, and bytes of what went.
  public func prune() async throws -> (steps: Int, bytes: Int64) {
    try await onOwnThread("orch-build") { [self] in
      let (steps, layers) = try cache.clear()
      return (steps, try cacheMounts.prune() + layers)
    }
  }

  /// - Parameter context: a folder that only this build uses.
  public func build(
    _ request: BuildRequest, context folder: String, _ tell: @escaping @Sendable (BuildEvent) async throws -> Void
  ) async throws -> ImageRecord {
    let refused = running.withLock { count in
      count += 1
      return count > Self.runningMax
    }
    defer { running.withLock { $0 -= 1 } }
    if refused { throw BuildError(.busy, "\(Self.runningMax) builds run on this host already: try again when one has ended") }
    for name in request.names {
      do {
        if try ImageReference(name).digest != nil { throw BuildError(.invalid, "'\(name)': an image is named NAME:TAG, not by a digest") }
      } catch let error as ReferenceError { throw BuildError(.invalid, "'\(name)' is not an image's name: \(error)") }
    }
    return try await store.holding { [self] in
      let work = try await onOwnThread("orch-build") { [store] in try store.workFolder() }
      let namespace = BuildNamespace(networks, log)
      var run: BuildRun
      do {
        run = try BuildRun(self, request, context: folder, work: work, namespace, tell)
        let record = try await run.carryOut()
        await namespace.close()
        await discard(work)
        return record
      } catch {
        await namespace.close()
        await discard(work)
        if let error = error as? DockerfileError { throw BuildError(.invalid, error.description) }
        throw error
      }
    }
  }

  private func discard(_ folder: String) async {
    do { try await onOwnThread("orch-build") { try Files.removeTree(folder) } } catch { log.warning("remove \(folder): \(error)") }
    let file = cache
    do { try await onOwnThread("orch-build") { try file.save() } } catch { log.warning("keep the build cache: \(error)") }
  }
}
