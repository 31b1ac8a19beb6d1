import Dockerfile
import Glibc
import LinuxSystem
import TreeArchive

/// Where COPY takes files from: a build's context, or the root of an image or stage. Blocking.
struct SourceTree: Sendable {
  var root: SharedDescriptor
  /// Of a context.
  var rules: IgnoreRules
  /// Names that are never copied: a Dockerfile that came from elsewhere.
  var hidden: Set<String>
  /// A context's files belong to root.
  var isContext: Bool

  struct Found: Hashable {
    /// Relative; empty: the root itself.
    var path: String
    var isFolder: Bool
    /// Before links were followed.
    var asked = ""
    /// By a pattern, not by its own name.
    var isMatch = false
    func isLeftOut(by excludes: IgnoreRules) -> Bool {
      !asked.isEmpty && (!isFolder || isMatch) && excludes.excludes(String(asked.split(separator: "/").last ?? ""))
    }
    var name: String { path.split(separator: "/").last.map(String.init) ?? "" }
  }

  func includes(_ path: String) -> Bool { !rules.excludes(path) && !hidden.contains(path) }

  /// What a word of COPY means here; several for a pattern.
  func find(_ word: String, line: Int, keyword: String) throws -> [Found] {
    var parts: [String] = []
    for part in word.split(separator: "/") where part != "." {
      if part == ".." {
        if parts.popLast() == nil, isContext { throw DockerfileError(line, "\(keyword) \(word): the path leads out of the context") }
      } else {
        parts.append(String(part))
      }
    }
    var found = [""]
    for part in parts {
      guard let glob = Glob(part) else { throw DockerfileError(line, "\(keyword) \(word): the pattern does not end") }
      var next: [String] = []
      for folder in found {
        let prefix = folder.isEmpty ? "" : folder + "/"
        if !glob.isPattern {
          // Escapes gone, as in the pattern.
          next.append(prefix + part.filter { $0 != "\\" })
          continue
        }
        guard let opened = try? OwnedDescriptor.open(inRoot: root.rawValue, folder.isEmpty ? "." : folder, O_RDONLY | O_DIRECTORY) else { continue }
        for name in try Files.list("/proc/self/fd/\(opened.rawValue)") where glob.matches(name) { next.append(prefix + name) }
      }
      found = next
    }
    let isPattern = parts.contains { Glob($0)?.isPattern == true }
    var result: [Found] = []
    for path in found {
      if !path.isEmpty, rules.excludes(path), !rules.takesSomethingBack || !isPattern {
        if isPattern { continue }
        if !rules.takesSomethingBack || !isFolder(path) { throw missing(word, line, keyword) }
      }
      guard var item = try resolved(path) else {
        if isPattern { continue }
        throw missing(word, line, keyword)
      }
      (item.asked, item.isMatch) = (path, isPattern)
      result.append(item)
    }
    if result.isEmpty { throw missing(word, line, keyword) }
    return result
  }

  private func isFolder(_ path: String) -> Bool { (try? OwnedDescriptor.open(inRoot: root.rawValue, path, O_RDONLY | O_DIRECTORY)) != nil }

  private func missing(_ word: String, _ line: Int, _ keyword: String) -> DockerfileError {
    DockerfileError(
      line,
      isContext
        ? "\(keyword) \(word): it is not in the context, or .dockerignore leaves it out" : "\(keyword) \(word): it is not in that image or stage")
  }

  /// Links that a path ends with are followed inside the root.
  private func resolved(_ path: String) throws -> Found? {
    var path = path
    for _ in 0..<40 {
      if path.isEmpty { return Found(path: "", isFolder: true) }
      let slash = path.lastIndex(of: "/")
      let (parent, name) = (slash.map { String(path[..<$0]) } ?? "", slash.map { String(path[path.index(after: $0)...]) } ?? path)
      guard let folder = try? OwnedDescriptor.open(inRoot: root.rawValue, parent.isEmpty ? "." : parent, O_RDONLY | O_DIRECTORY) else { return nil }
      var status = stat()
      guard fstatat(folder.rawValue, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return nil }
      guard status.st_mode & S_IFMT == S_IFLNK else { return Found(path: path, isFolder: status.st_mode & S_IFMT == S_IFDIR) }
      var buffer = [CChar](repeating: 0, count: 4097)
      let count = try check(readlinkat(folder.rawValue, name, &buffer, 4096), "read", path)
      let target = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
      var parts: [Substring] = []
      for part in (target.hasPrefix("/") ? target : "\(parent)/\(target)").split(separator: "/") where part != "." {
        if part == ".." { _ = parts.popLast() } else { parts.append(part) }
      }
      path = parts.joined(separator: "/")
    }
    return nil
  }

  /// The members of one thing found, under the name it is to have; a folder's content has none.
  func archive(_ found: Found, as name: String, without excludes: IgnoreRules = .none, _ adapt: (inout TreeArchive.Options) -> Void) throws
    -> TreeArchive
  {
    var options = TreeArchive.Options()
    let base = found.path.isEmpty ? 0 : found.path.utf8.count + 1
    // Patterns are of the path below the folder that is copied.
    options.includes = { path in
      includes(path) && !(found.isFolder && excludes.excludes(String(decoding: path.utf8.dropFirst(base), as: UTF8.self)))
    }
    options.descends = rules.takesSomethingBack || excludes.takesSomethingBack
    // Of a context they are the user's machine's.
    options.keepsLists = !isContext
    adapt(&options)
    return try TreeArchive([.init(root, found.path, as: found.isFolder ? "" : name)], options)
  }
}
