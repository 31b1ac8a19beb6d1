import APIClient
import Dispatch
import Dockerfile
import LinuxSystem
import NIOCore
import Synchronization
import TreeArchive

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A folder as a build's context: what .dockerignore leaves in, and the Dockerfile wherever it is.
struct BuildContext {
  /// Its name in the context.
  let dockerfile: String
  let archive: TreeArchive

  /// Errors of the folder, of the Dockerfile's place and of .dockerignore come before anything is sent.
  init(_ folder: String, dockerfile given: String?) throws {
    for (scheme, advice) in [("http", "download it first"), ("git", "clone it first")] where folder.hasPrefix(scheme) && folder.contains("://") {
      throw ClientError.usage("the context \(folder) is an address: \(advice), and name the folder")
    }
    let root = SharedDescriptor(try .open(folder, O_RDONLY | O_DIRECTORY))
    var roots = [TreeArchive.Root(root, "", as: "")]
    var name = "Dockerfile"
    if let given {
      let inside = try Self.relative(given, in: folder)
      if given != "-", let inside {
        name = inside
      } else {
        // From elsewhere: beside the context, under a name that no COPY sees.
        name = ".dockerfile.\(UInt64.random(in: 0...UInt64.max))"
        roots.append(.init(content: try Terminal.readBytes(given), as: name))
      }
    }
    func text(_ path: String) throws -> String? {
      guard let file = try? OwnedDescriptor.open(inRoot: root.rawValue, path, O_RDONLY) else { return nil }
      return String(decoding: try Files.read(descriptor: file.rawValue, name: path, limit: IgnoreRules.maximumSize), as: UTF8.self)
    }
    let own = name + ".dockerignore"
    let ignore = try text(own).map { ($0, own) } ?? text(".dockerignore").map { ($0, ".dockerignore") }
    let rules = try IgnoreRules(ignore?.0 ?? "")
    var options = TreeArchive.Options()
    // The host needs these two, and leaves them out of COPY by the same rules.
    options.includes = { [name] path in path == name || path == ignore?.1 || !rules.excludes(path) }
    options.descends = rules.takesSomethingBack || rules.excludes(name)
    options.owner = (0, 0)
    dockerfile = name
    archive = try TreeArchive(roots, options)
  }

  /// The file's name below the folder; nil when it is elsewhere.
  private static func relative(_ file: String, in folder: String) throws -> String? {
    if file == "-" { return nil }
    guard let path = realpath(file, nil) else { throw Terminal.FileProblem(path: file, cause: String(cString: strerror(errno))) }
    defer { free(path) }
    guard let base = realpath(folder, nil) else { throw Terminal.FileProblem(path: folder, cause: String(cString: strerror(errno))) }
    defer { free(base) }
    let (whole, prefix) = (String(cString: path), String(cString: base) + "/")
    return whole.hasPrefix(prefix) ? String(whole.dropFirst(prefix.utf8.count)) : nil
  }
}

/// The context's bytes as they are asked for; read on a thread that may block.
final class ContextChunks: AsyncSequence, Sendable {
  typealias Element = ByteBuffer
  private final class Source: @unchecked Sendable {
    // One reader at a time: the next chunk is asked for when the one before it has come.
    let archive: TreeArchive?
    let descriptor: Int32
    init(_ archive: TreeArchive?, _ descriptor: Int32) { (self.archive, self.descriptor) = (archive, descriptor) }
  }
  private let source: Source
  private let failure = Mutex<String?>(nil)

  init(_ context: BuildContext) { source = Source(context.archive, -1) }
  init(descriptor: Int32) { source = Source(nil, descriptor) }

  /// Why it could not be read.
  var problem: String? { failure.withLock { $0 } }

  private func next() async throws -> ByteBuffer? {
    guard source.archive != nil else { return try await readChunk(source.descriptor, upTo: 256 << 10).map { ByteBuffer(bytes: $0) } }
    return try await withCheckedThrowingContinuation { continuation in
      DispatchQueue.global().async { [self] in
        var chunk = [UInt8](repeating: 0, count: 256 << 10)
        do {
          var count = 0
          while count < chunk.count {
            let got = try chunk.withUnsafeMutableBytes { try source.archive!.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[count...])) }
            if got == 0 { break }
            count += got
          }
          continuation.resume(returning: count == 0 ? nil : ByteBuffer(bytes: chunk[..<count]))
        } catch {
          failure.withLock { $0 = "\(error)" }
          continuation.resume(throwing: error)
        }
      }
    }
  }

  struct Iterator: AsyncIteratorProtocol {
    let chunks: ContextChunks
    func next() async throws -> ByteBuffer? { try await chunks.next() }
  }
  func makeAsyncIterator() -> Iterator { Iterator(chunks: self) }
}
