import AgentImage
import Build
import Foundation
import LinuxSystem
import Model
import Synchronization

/// What an image has for a container's volumes: the places it declares, and its files as a container sees them, all layers together.
final class ImageContent: Sendable {
  private struct Opened {
    var tree: RootTree
    var work: String
    var folders: [SharedDescriptor] = []
  }
  private let image: ImageRecord
  private let images: ImageStore
  private let opened = Mutex<Opened?>(nil)

  init(_ image: ImageRecord, _ images: ImageStore) { (self.image, self.images) = (image, images) }

  /// Its VOLUMEs: a volume without a name for each, but where something of the service's own is mounted (as moby
  /// daemon/create_unix.go: that very path; a mount above it hides nothing).
  static func volumes(of image: ImageRecord, besides spec: ContainerSpec) -> [Mount] {
    // An image may say `data` or `/a/../b`: from the root, by its letters. Nothing is mounted over the root itself.
    func parts(_ path: String) -> [Substring] {
      path.split(separator: "/").reduce(into: []) { parts, part in
        if part == ".." { _ = parts.popLast() } else if part != "." { parts.append(part) }
      }
    }
    var taken = Set(((spec.mounts ?? []).map(\.target) + spec.files.map(\.path)).map(parts) + [[]])
    return image.config.volumes.map(parts).filter { taken.insert($0).inserted }.map {
      Mount(type: .volume, source: nil, target: "/" + $0.joined(separator: "/"))
    }
  }

  /// The folder of that path, nil when there is none; no link of the image leads out of it. Good until `close`. Blocking.
  func folder(_ path: String) throws -> String? {
    try opened.withLock { opened in
      if opened == nil {
        let work = try images.workFolder()
        do { opened = Opened(tree: try RootTree(layers: image.layerPaths, work: work, upper: nil), work: work) } catch {
          try? Files.removeTree(work)
          throw error
        }
      }
      let root = opened!.tree.descriptor
      do throws(SystemError) {
        let folder = SharedDescriptor(try .open(inRoot: root.rawValue, path, O_RDONLY | O_DIRECTORY))
        opened!.folders.append(folder)
        // With the dot no link is what is opened.
        return "/proc/self/fd/\(folder.rawValue)/."
      } catch {
        if error.errno == .noEntry || error.errno == .notDirectory { return nil }
        throw error
      }
    }
  }

  /// Blocking.
  func close() {
    guard
      let work = opened.withLock({ opened in
        defer { opened = nil }
        return opened?.work
      })
    else { return }
    try? Files.removeTree(work)
  }
}
