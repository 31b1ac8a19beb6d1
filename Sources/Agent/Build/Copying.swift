import AgentImage
import Dockerfile
import Glibc
import LinuxSystem
import Model
import TreeArchive

/// What one COPY or ADD takes, found and digested; written when the cache does not know it. Blocking.
struct Copying: Sendable {
  private struct Item {
    var tree: SourceTree
    var found: SourceTree.Found
    var isArchive: Bool
    /// Below the target: "" or "a/b/".
    var parents = ""
  }
  private let excludes: IgnoreRules
  private var items: [Item] = []
  /// Of names, modes and content; not of times.
  private(set) var digests: [String] = []

  /// Its name, when one file is all there is.
  var file: String? { items.count == 1 && !items[0].found.isFolder ? items[0].found.name : nil }

  /// - Parameter remote: what URLs had, each alone in its folder.
  init(_ copy: BuildStage.CopyAction, from source: SourceTree, remote: [String: SourceTree] = [:], line: Int) throws {
    let keyword = copy.unpacks ? "ADD" : "COPY"
    excludes = try IgnoreRules(patterns: copy.excludes, of: "\(keyword) --exclude", line: line)
    for word in copy.sources {
      if let tree = remote[word] {
        for name in try Files.names(in: tree.root.rawValue, path: ".") {
          try add(Item(tree: tree, found: .init(path: String(decoding: name, as: UTF8.self), isFolder: false), isArchive: false))
        }
        continue
      }
      for found in try source.find(word, line: line, keyword: keyword) where !found.isLeftOut(by: excludes) {
        var isArchive = false
        if copy.unpacks, !found.isFolder {
          let file = try OwnedDescriptor.open(inRoot: source.root.rawValue, found.path, O_RDONLY)
          isArchive = try ImageStore.isArchive("/proc/self/fd/\(file.rawValue)")
        }
        try add(Item(tree: source, found: found, isArchive: isArchive, parents: copy.parents ? Self.parents(of: found, word) : ""))
      }
    }
    if items.isEmpty, copy.files.isEmpty {
      throw DockerfileError(line, "\(keyword): --exclude leaves nothing of \(copy.sources.joined(separator: ", "))")
    }
    if let file = copy.files.first(where: { $0.name.contains("/") }) { throw DockerfileError(line, "the heredoc '\(file.name)' cannot name a file") }
  }

  private mutating func add(_ item: Item) throws {
    let archive = try item.tree.archive(item.found, as: item.found.name, without: excludes) { options in
      options.timeless = true
      if item.tree.isContext { options.owner = (0, 0) }
    }
    items.append(item)
    digests.append("\(item.parents)\(item.found.isFolder ? "folder" : item.found.name) \(try ImageStore.digest(archive))")
  }

  /// The folders of the path as it was asked for, behind a `/./` in the word if there is one; a folder's own name too.
  private static func parents(of found: SourceTree.Found, _ word: String) -> String {
    var word = Substring(word)
    while word.hasPrefix("./") { word = word.dropFirst(2) }
    var pivot = 0
    if let place = word.firstRange(of: "/./") {
      func depths(_ text: Substring, from start: Int) -> [Int] {
        // As the path is walked: "." stays, ".." goes up.
        text.split(separator: "/").reduce(into: [start]) { $0.append($1 == "." ? $0.last! : $1 == ".." ? max(0, $0.last! - 1) : $0.last! + 1) }
      }
      // What a ".." behind it leaves is gone on both sides.
      pivot = depths(word[place.upperBound...], from: depths(word[..<place.lowerBound], from: 0).last!).min()!
    }
    let parts = found.asked.split(separator: "/")
    return parts.dropLast(found.isFolder ? 0 : 1).dropFirst(pivot).map { $0 + "/" }.joined()
  }

  func write(_ copy: BuildStage.CopyAction, into root: SharedDescriptor, line: Int) throws {
    let owner = try copy.owner.map { try Target.owner($0, in: root, line: line) }
    if items.count + copy.files.count > 1, !copy.target.hasSuffix("/") {
      throw DockerfileError(line, "several files are copied, so the target is a folder: write \(copy.target)/")
    }
    for item in items {
      let adapt: (inout TreeArchive.Options) -> Void = { options in
        options.owner = owner ?? (item.tree.isContext ? (0, 0) : nil)
        options.mode = copy.mode
      }
      if item.isArchive {
        let file = try OwnedDescriptor.open(inRoot: item.tree.root.rawValue, item.found.path, O_RDONLY)
        let folder = try Target.folder(copy.target + item.parents, in: root, owner: owner)
        try ImageStore.unpack(file: "/proc/self/fd/\(file.rawValue)", into: folder.rawValue)
        continue
      }
      let (folder, name) = try Target.place(of: item.found, target: copy.target + item.parents, in: root, owner: owner)
      try ImageStore.unpack(item.tree.archive(item.found, as: name, without: excludes, adapt), into: folder.rawValue)
    }
    for file in copy.files {
      let (folder, name) = try Target.place(of: .init(path: file.name, isFolder: false), target: copy.target, in: root, owner: owner)
      var options = TreeArchive.Options()
      options.owner = owner ?? (0, 0)
      options.mode = copy.mode
      try ImageStore.unpack(TreeArchive([.init(content: Array(file.content.utf8), as: name)], options), into: folder.rawValue)
    }
  }
}

/// Places below an image's root. Links are followed inside it, as the image's own programs would.
enum Target {
  /// Where something goes: a folder that is there now, and its name in it.
  static func place(
    of found: SourceTree.Found, target: String, in root: SharedDescriptor, owner: (uid: UInt32, gid: UInt32)?
  ) throws -> (SharedDescriptor, String) {
    if found.isFolder { return (try folder(target, in: root, owner: owner), "") }
    if target.hasSuffix("/") || (try? OwnedDescriptor.open(inRoot: root.rawValue, target, O_RDONLY | O_DIRECTORY)) != nil {
      return (try folder(target, in: root, owner: owner), found.name)
    }
    let slash = target.lastIndex(of: "/")!
    return (try folder(String(target[...slash]), in: root, owner: owner), String(target[target.index(after: slash)...]))
  }

  /// mkdir -p; what is made belongs to `owner`. A link that leads to nothing has its target made.
  static func folder(
    _ path: String, in root: SharedDescriptor, owner: (uid: UInt32, gid: UInt32)?, depth: Int = 0
  ) throws -> SharedDescriptor {
    guard depth < 40 else { throw SystemError("make the folder", path, .loop) }
    var folder = root
    var walked = ""
    let parts = path.split(separator: "/").map(String.init)
    for (index, part) in parts.enumerated() {
      let parent = walked
      walked += "/\(part)"
      do throws(SystemError) {
        folder = SharedDescriptor(try .open(inRoot: root.rawValue, walked, O_RDONLY | O_DIRECTORY))
      } catch {
        guard error.errno == .noEntry else { throw error }
        if mkdirat(folder.rawValue, part, 0o755) < 0 {
          var link = [CChar](repeating: 0, count: 4097)
          let count = readlinkat(folder.rawValue, part, &link, 4096)
          guard count > 0 else { throw error }
          let target = String(decoding: link[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
          let rest = parts[(index + 1)...].joined(separator: "/")
          return try Self.folder((target.hasPrefix("/") ? target : "\(parent)/\(target)") + "/" + rest, in: root, owner: owner, depth: depth + 1)
        }
        folder = SharedDescriptor(owning: try check(openat(folder.rawValue, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "open", walked))
        try check(fchmod(folder.rawValue, 0o755), "set the mode of", walked)
        if let owner { try check(fchown(folder.rawValue, owner.uid, owner.gid), "change the owner of", walked) }
      }
    }
    return folder
  }

  /// "user", "user:group", numbers or names of the image's own /etc/passwd and /etc/group. A user alone stands for its own number as
  /// the group's too (docs.docker.com/reference/dockerfile, COPY --chown).
  static func owner(_ text: String, in root: SharedDescriptor, line: Int) throws -> (uid: UInt32, gid: UInt32) {
    let (user, group) = try ids(text, "--chown=\(text)", in: root, line: line)
    if user.id == nil { throw DockerfileError(line, "--chown=\(text): the image's /etc/passwd has no '\(user.name)'") }
    if let group, group.id == nil { throw DockerfileError(line, "--chown=\(text): the image's /etc/group has no '\(group.name)'") }
    return (user.id ?? 0, group?.id ?? user.group ?? 0)
  }

  /// The same of USER. Who is not in the image's files is root, as BuildKit has it (solver/llbsolver/ops/user_linux.go).
  static func owner(ofWorkdir text: String, in root: SharedDescriptor, line: Int) throws -> (uid: UInt32, gid: UInt32) {
    let (user, group) = try ids(text, "the user '\(text)'", in: root, line: line)
    return (user.id ?? 0, group?.id ?? user.group ?? 0)
  }

  private typealias Identity = (name: String, id: UInt32?, group: UInt32?)
  /// Ids are nil of names that the image's files have not.
  private static func ids(_ text: String, _ what: String, in root: SharedDescriptor, line: Int) throws -> (user: Identity, group: Identity?) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    func look(_ name: String, _ file: String) throws -> Identity {
      // Digits are a number and never a name; beyond 31 bits nobody's (as the runtime takes them), and 2^32 - 1 would change nothing.
      if !name.isEmpty, name.utf8.allSatisfy({ (48...57).contains($0) }) {
        guard let number = UInt32(name), number < 1 << 31 else { throw DockerfileError(line, "\(what): \(name) is not an id below 2147483648") }
        return (name, number, number)
      }
      let opened = try? OwnedDescriptor.open(inRoot: root.rawValue, file, O_RDONLY)
      if let opened, let bytes = try? Files.read(descriptor: opened.rawValue, name: file) {
        for entry in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
          let fields = entry.split(separator: ":", omittingEmptySubsequences: false)
          if fields.count > 3, fields[0] == name, let number = UInt32(fields[2]) { return (name, number, UInt32(fields[3]) ?? number) }
        }
      }
      return (name, nil, nil)
    }
    return (try look(parts[0], "etc/passwd"), parts.count == 2 ? try look(parts[1], "etc/group") : nil)
  }
}
