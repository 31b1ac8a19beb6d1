import Dockerfile
import Glibc
import LinuxSystem
import Model
import Runtime

/// What `RUN --mount` brings into one step's container, and what has to go again.
struct StepMounts: Sendable {
  fileprivate(set) var mounts: [MountConfig] = []
  fileprivate(set) var files: [FileConfig] = []
  fileprivate(set) var env: [String] = []
  fileprivate var leased: [String] = []
  /// Folders and files that the image lacks and the runtime makes to mount on, deepest first.
  fileprivate var stubs: [String] = []

  /// Takes the places to mount on out of what becomes the layer. Blocking.
  func removeStubs(from upper: String) {
    guard !stubs.isEmpty, let root = try? OwnedDescriptor.open(upper, O_RDONLY | O_DIRECTORY) else { return }
    for path in stubs {
      let slash = path.lastIndex(of: "/")!
      let name = String(path[path.index(after: slash)...])
      guard let folder = try? OwnedDescriptor.open(inRoot: root.rawValue, "." + path[...slash], O_RDONLY | O_DIRECTORY) else { continue }
      var status = stat()
      guard fstatat(folder.rawValue, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { continue }
      // One with something in it is the step's own work.
      if status.st_mode & S_IFMT == S_IFDIR { unlinkat(folder.rawValue, name, AT_REMOVEDIR) }
      if status.st_mode & S_IFMT == S_IFREG, status.st_size == 0 { unlinkat(folder.rawValue, name, 0) }
    }
  }
}

extension BuildRun {
  /// - Parameter copies: what the binds show, in their order.
  func mount(_ run: BuildStage.RunAction, _ copies: [Copying], layers: [String], place: String, line: Int) async throws -> StepMounts {
    var step = StepMounts()
    if run.mounts.isEmpty { return step }
    var binds = copies.makeIterator()
    do {
      for (number, mount) in run.mounts.enumerated() {
        switch mount.kind {
        // BuildKit's is without set-id programs alone: what a build compiles there, it may try.
        case .tmpfs: step.mounts.append(.tmpfs(mount.target, size: mount.size, isExecutable: true))
        case .cache:
          let taken = try await builder.cacheMounts.take(mount)
          step.leased.append(taken.name)
          step.mounts.append(.bind(taken.path, mount.target, readOnly: mount.isReadOnly))
        case .secret:
          guard let content = request.secrets[mount.id] else {
            if mount.isRequired {
              throw DockerfileError(line, "the build was given no secret '\(mount.id)': orch build --secret id=\(mount.id),src=FILE")
            }
            continue
          }
          if let variable = mount.variable { step.env.append("\(variable)=\(String(decoding: content, as: UTF8.self))") }
          if !mount.target.isEmpty {
            step.files.append(FileConfig(target: mount.target, content: content, uid: mount.uid, gid: mount.gid, mode: mount.mode ?? 0o400))
          }
        case .bind:
          guard let copying = binds.next() else { continue }
          let folder = "\(place)/mount-\(number)"
          try await onOwnThread("orch-build") {
            try Files.makeDirectories(folder, mode: 0o755)
            try copying.write(mount.copied, into: SharedDescriptor(.open(folder, O_RDONLY | O_DIRECTORY)), line: line)
          }
          step.mounts.append(.bind(copying.file.map { "\(folder)/\($0)" } ?? folder, mount.target, readOnly: mount.isReadOnly))
        }
      }
      let targets = step.mounts.map(\.target) + step.files.map(\.target)
      let work = "\(place)/look"
      step.stubs = try await onOwnThread("orch-build") {
        try Files.makeDirectories(work, mode: 0o755)
        return Self.missing(targets, in: try RootTree(layers: layers, work: work, upper: nil).descriptor)
      }
    } catch {
      unmount(step)
      throw error
    }
    return step
  }

  func unmount(_ step: StepMounts) {
    if step.leased.isEmpty { return }
    for name in step.leased { builder.cacheMounts.release(name) }
    // Nobody waits for it; what it cannot remove now it removes after the next step.
    Task { [caches = builder.cacheMounts] in try? await onOwnThread("orch-build") { try caches.bound() } }
  }

  private static func missing(_ targets: [String], in root: SharedDescriptor) -> [String] {
    var stubs: Set<String> = []
    for target in targets {
      var path = ""
      for part in target.split(separator: "/") {
        path += "/" + part
        if (try? OwnedDescriptor.open(inRoot: root.rawValue, path, O_RDONLY | O_NONBLOCK)) == nil { stubs.insert(path) }
      }
    }
    return stubs.sorted { ($0.utf8.count(where: { $0 == 47 }), $0) > ($1.utf8.count(where: { $0 == 47 }), $1) }
  }
}
