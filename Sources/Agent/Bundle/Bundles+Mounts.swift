import CLinux
import Glibc
import Launch
import LinuxSystem
import OCI

extension Bundles {
  /// Adds mounts to a running container or takes them away, as crun's `mounts`: `document` is a list in the shape of config.json's mounts. Sources are
  /// the host's. The first that fails ends it; what came before stays.
  public func changeMounts(_ id: String, _ document: [UInt8], adding: Bool) throws(BundleError) -> [String] {
    let folder = try BundleFolder.open(root: root, id)
    let stored = try folder.stored()
    guard let first = process(stored), !first.hasEnded else { throw BundleError("container not running") }
    var config = try folder.config()
    guard config.hasOwnMounts else { throw BundleError("mounts: the container has no mount namespace of its own") }
    do throws(OCIError) {
      let mounts = try Document.read([Config.Mount].self, document)
      for (index, mount) in mounts.enumerated() {
        try config.check(mount, "[\(index)]")
        if BundlePlan.target(mount).isEmpty {
          throw OCIError("[\(index)].destination", "the root of a running container stays")
        }
        if mount.type == "cgroup" || mount.type == "cgroup2" { throw OCIError("[\(index)].type", "cgroups are not added to a running container") }
      }
      config.mounts = mounts
    } catch { throw BundleError("mounts", error) }
    let plan = try BundlePlan.makeMounts(config, adding: adding)
    let launched: Launcher.Launched
    do { launched = try Launcher(initPath: initPath).launch(plan, name: id, fifth: first.rawValue) } catch let failure as Launcher.Failure {
      throw BundleError("mounts", failure, plan.names, program: "")
    } catch { throw (error as? SystemError).map { BundleError("mounts", $0) } ?? BundleError("mounts: \(error)") }
    for pid in [launched.monitor, launched.pid] { ChildProcess.reap(pid) }
    return plan.warnings + launched.warnings
  }

  /// Which mount a folder lies on (proc(5), fdinfo).
  static func mountID(_ path: String) -> String? {
    guard let folder = try? OwnedDescriptor.open(path, Int32(CLINUX_O_PATH) | O_DIRECTORY),
      let info = try? Files.text("/proc/self/fdinfo/\(folder.rawValue)")
    else {
      return nil
    }
    return info.split(separator: "\n").first { $0.hasPrefix("mnt_id:") }.map { String($0.dropFirst(7).filter { $0 != "\t" && $0 != " " }) }
  }
  /// Of a container in the host's mount namespace: all that was mounted for it lies on one mount. No bind of it shares with where it came from.
  static func unmountRoot(_ stored: StoredBundle) {
    guard let before = stored.rootMount, let now = mountID(stored.rootfs), now != before else { return }
    umount2(stored.rootfs, Int32(MNT_DETACH) | Int32(UMOUNT_NOFOLLOW))
  }
}
