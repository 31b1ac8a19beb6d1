import Glibc
import LinuxSystem

/// Named files: a tar archive's or a folder's. Blocking.
protocol Archive {
  /// nil when there is no such file.
  func source(_ name: String) throws -> FileSource?
  func size(_ name: String) -> Int64?
}

extension Archive {
  /// A small document, whole; at most 4 MiB.
  func document(_ name: String) throws -> [UInt8]? {
    guard let source = try source(name), let size = size(name) else { return nil }
    guard size <= ManifestDocument.maximumSize else {
      throw ImageError(.hostile, "read", "'\(name)'", "it has \(size) bytes, at most \(ManifestDocument.maximumSize) are read")
    }
    var bytes = [UInt8](repeating: 0, count: Int(size))
    guard try source.fill(&bytes) == bytes.count else { throw ImageError(.corrupt, "read", "'\(name)'", "it is shorter than stated") }
    return bytes
  }
}

/// Reads where members lie, once; opens them by position.
struct TarArchive: Archive {
  private let file: FileSource
  private var members: [String: Range<Int64>] = [:]

  init(_ path: String, maximumMembers: Int = 100_000) throws {
    file = try FileSource(path)
    let tar = TarReader(try FileSource(path))
    var links: [(String, String)] = []
    var entries = 0
    while let entry = try tar.next() {
      let name = Self.normalized(text(entry.name))
      guard entries < maximumMembers else { throw ImageError(.hostile, "read", "the archive", "it has more than \(maximumMembers) members") }
      entries += 1
      switch entry.kind {
      case .file:
        // The largest sizes, added to a position, are no number any more.
        let (end, overflow) = tar.position.addingReportingOverflow(entry.size)
        guard !overflow else { throw ImageError(.corrupt, "read", "the archive", "'\(text(entry.name))' has an impossible size") }
        // Of a sparse member there is no range with its content: it is none of ours.
        if entry.segments == nil { members[name] = tar.position..<end }
      case .hardLink: links.append((name, Self.normalized(text(entry.linkName))))
      case .symbolicLink:
        let folder = name.lastIndex(of: "/").map { String(name[...$0]) } ?? ""
        links.append((name, Self.normalized(folder + text(entry.linkName))))
      default: break
      }
    }
    for (name, target) in links where members[name] == nil { members[name] = members[target] }
  }

  private static func normalized(_ name: String) -> String {
    var parts: [Substring] = []
    for part in name.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return parts.joined(separator: "/")
  }

  func source(_ name: String) throws -> FileSource? { members[Self.normalized(name)].map { file.part($0) } }
  func size(_ name: String) -> Int64? { members[Self.normalized(name)].map { $0.upperBound - $0.lowerBound } }
}

/// An OCI layout's folder.
struct FolderArchive: Archive {
  let path: String
  private func full(_ name: String) -> String? { name.split(separator: "/").contains("..") ? nil : "\(path)/\(name)" }
  func source(_ name: String) throws -> FileSource? {
    guard let full = full(name), Files.exists(full) else { return nil }
    return try FileSource(full)
  }
  func size(_ name: String) -> Int64? {
    var status = stat()
    guard let full = full(name), stat(full, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
    return Int64(status.st_size)
  }
}
