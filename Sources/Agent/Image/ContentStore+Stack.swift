import CLinux
import Glibc
import LinuxSystem
import Model
import TreeArchive

// A layer may have files in folders that it has no entry for (those of crane, Bazel, hand-made tars). Such a folder is as the layers below have it:
// containerd copies it from there (pkg/archive, mkparent), once for each image. Here a layer is unpacked once for all images, and maybe before those
// below are there; and overlayfs shows a folder as its uppermost layer has it. So right above such a layer goes one of these folders alone, made when
// all below is there. It lies in the layer's own folder, once for each series of layers below, and is gone with it.
extension ContentStore {
  /// The layers' trees as overlayfs is to have them, base first. All are here.
  func stack(_ layers: [Digest]) throws -> [String] {
    // Overlayfs takes a folder once (ELOOP), and images have a layer twice: an empty one for each step that changed nothing. All that a lower one
    // has or hides, the uppermost has and hides, too.
    let layers = layers.indices.filter { !layers[($0 + 1)...].contains(layers[$0]) }.map { layers[$0] }
    var paths: [String] = []
    for (index, layer) in layers.enumerated() {
      paths.append(layerPath(layer))
      guard index > 0, Files.exists(implicitPath(layer)) else { continue }
      let below = Digest(of: Array(layers[..<index].map(\.hex).joined().utf8))
      if let folders = try folders(of: layer, over: paths.dropLast(), below) { paths.append(folders) }
    }
    return paths
  }

  /// Beside the tree: paths of the folders that the layer has no entry for, each with a zero byte.
  private func implicitPath(_ layer: Digest) -> String { layerFolder(layer) + "/implicit" }

  func writeImplicit(_ paths: Set<[UInt8]>, of folder: String) throws {
    if paths.isEmpty { return }
    // A folder before what is in it, and all of that before the next.
    let sorted = paths.map { $0.map { $0 == 47 ? 0 : $0 } }.sorted { $0.lexicographicallyPrecedes($1) }
    try Files.writeAtomically(folder + "/implicit", Array(sorted.map { $0.map { $0 == 0 ? 47 : $0 } + [0] }.joined()), mode: 0o644)
  }

  /// nil: the layers below have none of them.
  private func folders(of layer: Digest, over lower: ArraySlice<String>, _ below: Digest) throws -> String? {
    let place = "\(layerFolder(layer))/over/\(below.hex)"
    if !Files.exists(place) {
      let work = temporary()
      defer { try? Files.removeTree(work) }
      try Files.makeDirectories(work + "/fs", mode: 0o755)
      let limit = 2 * LayerUnpacker.implicitBytesMax
      let paths = try Files.read(implicitPath(layer), limit: limit).split(separator: 0).map(Array.init)
      let isAny = try ImplicitFolders.write(paths, of: layerPath(layer), over: lower.reversed(), into: work + "/fs")
      if !isAny { rmdir(work + "/fs") }
      for folder in [layerFolder(layer) + "/over", work] {
        try Files.makeDirectories(folder, mode: 0o711)
        // Not the process's umask decides.
        try check(chmod(folder, 0o711), "set the mode of", folder)
      }
      let folder = try OwnedDescriptor.open(work, O_RDONLY | O_DIRECTORY)
      try checkResult(clinux_syncfs(folder.rawValue), "sync", work)
      if rename(work, place) < 0 {
        let error = Errno.current
        // Another thread was faster with the same.
        guard error == .notEmpty || error == .exists else { throw SystemError("rename \(work) to", place, error) }
      }
    }
    return Files.exists(place + "/fs") ? place + "/fs" : nil
  }
}

/// Writes folders of a layer that it has no entry for as the layers below have them. Blocking.
private struct ImplicitFolders {
  /// A folder on the way from the root to the one at hand.
  private struct Level {
    var path: [UInt8]
    /// Which of the layers below have it, as far as they are seen through the layer, uppermost first.
    var lower: [Int]
    var isMade = false
  }
  private let implicit: Set<[UInt8]>
  private let layer: SharedDescriptor
  private let lower: [SharedDescriptor]
  private let target: SharedDescriptor
  private var levels: [Level]
  /// What was made, and whose attributes it gets.
  private var made: [(path: [UInt8], source: SharedDescriptor)] = []
  /// Folders looked up in all layers: a bound, since an image decides on both.
  private var lookUps = 0
  private static let lookUpsMax = 16 << 20

  private init(_ paths: [[UInt8]], _ layer: String, _ lower: [String], _ target: String) throws {
    func open(_ folder: String) throws -> SharedDescriptor { SharedDescriptor(try .open(folder, O_RDONLY | O_DIRECTORY)) }
    implicit = Set(paths)
    (self.layer, self.lower, self.target) = (try open(layer), try lower.map(open), try open(target))
    levels = [Level(path: [], lower: Array(lower.indices), isMade: true)]
  }

  /// - Parameters:
  ///   - paths: in the order of a walk.
  ///   - lower: uppermost first.
  /// - Returns: false: the layers below have none of them.
  static func write(_ paths: [[UInt8]], of layer: String, over lower: [String], into target: String) throws -> Bool {
    var folders = try ImplicitFolders(paths, layer, lower, target)
    for path in paths { try folders.add(path) }
    if folders.made.isEmpty { return false }
    folders.made.append(([], folders.layer))
    // When all are made: that changes the times of those they are made in.
    for (path, source) in folders.made { try folders.copyAttributes(path, source) }
    return true
  }

  private mutating func add(_ path: [UInt8]) throws {
    let parts = path.split(separator: 47)
    while levels.count > 1, !leads(levels[levels.count - 1].path, to: path) { levels.removeLast() }
    while levels.count <= parts.count {
      let parent = levels[levels.count - 1]
      if parent.lower.isEmpty { return }
      let child = parent.path + (parent.path.isEmpty ? [] : [47]) + parts[levels.count - 1]
      levels.append(Level(path: child, lower: try isOpaque(layer, parent.path) ? [] : seen(child, among: parent.lower)))
    }
    if levels[levels.count - 1].lower.isEmpty { return }
    for depth in levels.indices where !levels[depth].isMade {
      let path = levels[depth].path
      try check(withName(path) { mkdirat(target.rawValue, $0, 0o700) }, "make directory", text(path))
      levels[depth].isMade = true
      // What it has an entry for stays as that says.
      made.append((path, implicit.contains(path) ? lower[levels[depth].lower[0]] : layer))
    }
  }

  private func leads(_ folder: [UInt8], to path: [UInt8]) -> Bool {
    path.starts(with: folder) && (path.count == folder.count || path[folder.count] == 47)
  }

  /// As overlayfs merges: down to an opaque folder, a whiteout, or what is none.
  private mutating func seen(_ path: [UInt8], among candidates: [Int]) throws -> [Int] {
    var result: [Int] = []
    for index in candidates {
      lookUps += 1
      guard lookUps <= Self.lookUpsMax else {
        throw ImageError(.hostile, "stack", "the layers", "their folders without entries are looked up more than \(Self.lookUpsMax) times")
      }
      let descriptor = openBeneath(lower[index].rawValue, path, O_RDONLY | O_DIRECTORY)
      switch Errno(-min(0, descriptor)) {
      case .noEntry: continue
      case .notDirectory, .loop: return result
      case let error where descriptor < 0: throw SystemError("open", text(path), error)
      default: break
      }
      let folder = SharedDescriptor(owning: descriptor)
      result.append(index)
      if try isOpaque(folder) { return result }
    }
    return result
  }

  private func open(_ root: SharedDescriptor, _ path: [UInt8]) throws -> SharedDescriptor {
    SharedDescriptor(owning: try checkResult(openBeneath(root.rawValue, path, O_RDONLY | O_DIRECTORY), "open", text(path)))
  }
  private func isOpaque(_ folder: SharedDescriptor) throws -> Bool {
    try ExtendedAttributes.value("trusted.overlay.opaque", of: folder.rawValue) == [121]
  }
  private func isOpaque(_ root: SharedDescriptor, _ path: [UInt8]) throws -> Bool { try isOpaque(open(root, path)) }

  private func copyAttributes(_ path: [UInt8], _ root: SharedDescriptor) throws {
    let (source, folder) = (try open(root, path), try open(target, path))
    let name = text(path)
    var status = stat()
    try check(fstat(source.rawValue, &status), "look at", name)
    if geteuid() == 0 { try check(fchown(folder.rawValue, status.st_uid, status.st_gid), "change the owner of", name) }
    try check(fchmod(folder.rawValue, status.st_mode & 0o7777), "set the mode of", name)
    for (attribute, value) in try ExtendedAttributes.named(of: source.rawValue) {
      try checkResult(clinux_fsetxattr(folder.rawValue, attribute, value, value.count), "set \(attribute) of", name)
    }
    try check(futimens(folder.rawValue, [status.st_atim, status.st_mtim]), "set the time of", name)
  }
}
