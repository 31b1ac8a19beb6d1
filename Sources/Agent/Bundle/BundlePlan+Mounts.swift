import CLinux
import Cgroups
import Launch
import LinuxSystem
import OCI

extension BundlePlan {
  /// Below the root; empty: the root itself.
  static func target(_ mount: Config.Mount) -> String { mount.destination.split(separator: "/").filter { $0 != "." }.joined(separator: "/") }

  /// `fromOutside`: into a container that runs, whose own view has not the sources.
  static func mounts(_ config: Config, cgroup: Cgroup?, fromOutside: Bool = false, _ plan: inout PlanWriter) throws(BundleError) {
    for (index, mount) in (config.mounts ?? []).enumerated() {
      var options: MountOptions
      do throws(OCIError) { options = try MountOptions(mount.options ?? [], path: "mounts[\(index)]") } catch {
        throw BundleError("config.json", error)
      }
      let target = Self.target(mount)
      let type = mount.type ?? ""
      // What is unmounted here would be unmounted where it came from.
      if !config.hasOwnMounts { options.propagation = MountOptions.private | MountOptions.recursive }
      if options.copiesLink, let content = try? Files.link(mount.source ?? "") {
        plan.add(CLINUX_OP_SYMLINK, "copy the link \(mount.source ?? "") to /\(target)", [.text(content), .text(target), 1])
        continue
      }
      if (type == "cgroup" || type == "cgroup2"), !options.isBind {
        cgroups(target, options, cgroup, ownNamespace: config.has(.cgroup), &plan)
        continue
      }
      let maps = options.idMap != nil || mount.uidMappings?.isEmpty == false
      // A user namespace's root may not reach what only the host's may.
      let foreign = fromOutside || config.namespace(.user).map { ($0.path ?? "").isEmpty } ?? false
      if maps || (options.isBind && !options.isRemount && foreign) {
        bind(mount, options, config, maps: maps, &plan)
        attach("bind", mount.source ?? "", target, options, tree: plan.trees, &plan)
        continue
      }
      if let label = config.linux?.mountLabel, !label.isEmpty, Labels.hasSELinux, !options.isBind, !Labels.unlabelled.contains(type) {
        if type == "mqueue" {
          // The IPC namespace's, mounted by the kernel before: another context for it is refused (runc labels it afterwards, too).
          attach(type, mount.source ?? type, target, options, &plan)
          plan.add(CLINUX_OP_LABEL_MOUNT, "label /\(target)", [.text(target), .text(label)])
          continue
        }
        var labelled = options
        labelled.data.append("context=\"\(label)\"")
        attach(type, mount.source ?? type, target, labelled, &plan)
        continue
      }
      attach(options.isBind ? "bind" : type, mount.source ?? type, target, options, &plan)
    }
  }

  /// The parent makes it, by its own rights.
  private static func bind(_ mount: Config.Mount, _ options: MountOptions, _ config: Config, maps: Bool, _ plan: inout PlanWriter) {
    func first(_ lists: [Config.IDMapping]?...) -> String { !maps ? "" : text(lists.compactMap { $0 }.first { !$0.isEmpty }) }
    let map = options.idMap
    plan.add(
      CLINUX_OP_TREE_BIND, "bind \(mount.source ?? "")",
      [
        .text(mount.source ?? ""), .number(options.flags), .number(options.cleared), .number(options.recursiveSet), .number(options.recursiveCleared),
        .number(
          UInt64((map?.recursive == true ? CLINUX_TREE_MAP_BELOW : 0) | (options.bindsLink ? CLINUX_TREE_SOURCE_LINK : 0))),
        .number(options.propagation),
        .text(first(map?.uids, mount.uidMappings, config.linux?.uidMappings)),
        .text(first(map?.gids, mount.gidMappings, config.linux?.gidMappings)),
      ])
  }

  private static func attach(
    _ type: String, _ source: String, _ target: String, _ options: MountOptions, tree: UInt64 = 0, _ plan: inout PlanWriter
  ) {
    let how =
      (options.copyUp ? CLINUX_ATTACH_COPY_UP : 0) | (options.bindsLink ? CLINUX_ATTACH_SOURCE_LINK : 0)
      | (options.coversLink ? CLINUX_ATTACH_TARGET_LINK : 0)
    plan.add(
      CLINUX_OP_ATTACH, options.isRemount ? "remount /\(target)" : options.isBind ? "bind \(source) to /\(target)" : "mount \(type) on /\(target)",
      [
        .text(type), .text(source), .text(target), .number(options.flags), .number(options.cleared), .number(options.recursiveSet),
        .number(options.recursiveCleared), .number(options.propagation), .text(options.data.joined(separator: ",")), .number(UInt64(how)),
        .number(tree),
      ])
  }

  /// v2: the tree, or without a namespace of its own the container's part of it. v1: a folder with every hierarchy the container is in.
  private static func cgroups(
    _ target: String, _ options: MountOptions, _ cgroup: Cgroup?, ownNamespace: Bool, _ plan: inout PlanWriter
  ) {
    var bound = options
    bound.data = []
    bound.flags |= MountOptions.bind | MountOptions.recursive
    guard let cgroup, !cgroup.isV2 else {
      if ownNamespace || cgroup == nil {
        attach("cgroup2", "cgroup", target, options, &plan)
      } else if let directory = cgroup?.cloneDirectory {
        attach("bind", directory, target, bound, &plan)
      }
      return
    }
    var folder = options
    folder.flags &= ~MountOptions.readOnly
    folder.data = ["mode=755", "size=64k"]
    attach("tmpfs", "tmpfs", target, folder, &plan)
    for controller in cgroup.controllers {
      var one = options
      one.data = [controller]
      if ownNamespace {
        attach("cgroup", "cgroup", "\(target)/\(controller)", one, &plan)
      } else if let directory = cgroup.path(controller: controller) {
        attach("bind", directory, "\(target)/\(controller)", bound, &plan)
      }
    }
    if options.flags & MountOptions.readOnly != 0 { plan.add(CLINUX_OP_READONLY, "make /\(target) read-only", [.text(target)]) }
  }

  /// The default devices and links of the specification (config-linux.md) and the configuration's own; none where /dev is a bind mount.
  static func devices(_ config: Config, _ plan: inout PlanWriter) throws(BundleError) {
    let dev = config.mounts?.last { $0.destination.split(separator: "/") == ["dev"] }
    let bound = dev?.options?.contains { $0 == "bind" || $0 == "rbind" } ?? false
    if bound { return }
    // A user namespace may make no device nodes: the parent does, for it to bind.
    let outside = config.has(.user)
    func node(_ path: String, _ mode: UInt32, _ major: Int64, _ minor: Int64, _ uid: UInt32 = 0, _ gid: UInt32 = 0) throws(BundleError) {
      let numbers: [Value] = [.number(UInt64(mode)), .number(UInt64(bitPattern: major)), .number(UInt64(bitPattern: minor))]
      let owner: [Value] = [.number(UInt64(uid)), .number(UInt64(gid))]
      var tree: UInt64 = 0
      if outside, mode & 0o170_000 != 0o010_000 {
        let (hostUID, hostGID) = (
          try host(uid, config.linux?.uidMappings, "user", path), try host(gid, config.linux?.gidMappings, "group", path)
        )
        plan.add(CLINUX_OP_TREE_NODE, "make device \(path)", numbers + [.number(UInt64(hostUID)), .number(UInt64(hostGID)), .text(path)])
        tree = plan.trees
      }
      plan.add(CLINUX_OP_NODE, "make device \(path)", [.text(path)] + numbers + owner + [.number(tree)])
    }
    func host(_ id: UInt32, _ maps: [Config.IDMapping]?, _ what: String, _ path: String) throws(BundleError) -> UInt32 {
      // A namespace that is joined has its own maps; its root is not known here.
      guard let maps, !maps.isEmpty else { return 0 }
      for map in maps where id >= map.containerID && id - map.containerID < map.size { return map.hostID &+ (id - map.containerID) }
      throw BundleError("linux.devices: \(what) \(id) of \(path) is not mapped into the user namespace")
    }
    let own = config.linux?.devices ?? []
    for (name, major, minor) in DeviceRules.standard where !own.contains(where: { $0.path == "/dev/\(name)" }) {
      try node("/dev/\(name)", 0o020_666, major, minor)
    }
    for device in own {
      let kind: UInt32 = device.type == "b" ? 0o060_000 : device.type == "p" ? 0o010_000 : 0o020_000
      // "/dev/x/" is "/dev/x".
      let path = "/" + device.path.split(separator: "/").joined(separator: "/")
      try node(path, kind | (device.fileMode ?? 0o666) & 0o7777, device.major ?? 0, device.minor ?? 0, device.uid ?? 0, device.gid ?? 0)
    }
    for (content, path) in [
      ("/proc/self/fd", "dev/fd"), ("/proc/self/fd/0", "dev/stdin"), ("/proc/self/fd/1", "dev/stdout"), ("/proc/self/fd/2", "dev/stderr"),
      ("pts/ptmx", "dev/ptmx"), ("/proc/kcore", "dev/core"),
    ] {
      plan.add(CLINUX_OP_SYMLINK, "link /\(path)", [.text(content), .text(path), 0])
    }
  }
}

enum DeviceRules {
  static let standard: [(String, Int64, Int64)] = [
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
  ]

  /// Nothing; then what every container may have, as runc (libcontainer/specconv): making nodes, the default devices, terminals; then the
  /// configuration's rules and devices.
  static func all(_ linux: Linux) -> [DeviceProgram.Rule] {
    typealias Rule = DeviceProgram.Rule
    func rule(_ rule: Resources.DeviceRule) -> Rule {
      let access = rule.access ?? ""
      let all = access.isEmpty
      func number(_ value: Int64?) -> UInt32? { value.flatMap { $0 < 0 ? nil : UInt32(clamping: $0) } }
      return Rule(
        allow: rule.allow, isBlock: rule.type == "b" ? true : rule.type == "c" ? false : nil, major: number(rule.major), minor: number(rule.minor),
        read: all || access.contains("r"), write: all || access.contains("w"), makeNode: all || access.contains("m"))
    }
    var rules = [Rule(allow: false)]
    rules += (linux.resources?.devices ?? []).map(rule)
    rules += (linux.devices ?? []).filter { $0.type != "p" }.map {
      Rule(allow: true, isBlock: $0.type == "b", major: UInt32(clamping: $0.major ?? 0), minor: UInt32(clamping: $0.minor ?? 0))
    }
    rules += [Rule(allow: true, read: false, write: false)]
    rules += standard.map { Rule(allow: true, isBlock: false, major: UInt32($0.1), minor: UInt32($0.2)) }
    rules += [Rule(allow: true, isBlock: false, major: 136), Rule(allow: true, isBlock: false, major: 5, minor: 2)]
    return rules
  }
}
