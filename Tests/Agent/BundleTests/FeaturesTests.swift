import Foundation
import LinuxSystem
import OCI
import Testing

@testable import Bundle

/// `features` says what the runtime does, whatever this host has (runtime-spec, features-linux.md).
@Suite(.enabled(if: isRoot), .serialized) struct FeaturesTests {
  private func features(_ world: BundleWorld) throws -> Features {
    let result = try world.call(["features"])
    try #require(result.code == 0, "\(result)")
    return try JSONDecoder().decode(Features.self, from: Data(result.out.utf8))
  }

  @Test("a container with every namespace, seccomp action, operator, architecture and flag that features names is made and runs")
  func everything() throws {
    let world = try BundleWorld()
    for name in ["proc", "dev", "sys"] { try Files.makeDirectories(world.bundle + "/rootfs/" + name, mode: 0o755) }
    for path in [world.folder, world.bundle] { chmod(path, 0o755) }
    let features = try features(world)
    let seccomp = features.linux.seccomp
    #expect(features.linux.namespaces.count == 8 && seccomp.enabled && seccomp.actions.count == 9 && seccomp.operators.count == 7)
    // A listener is what NOTIFY and WAIT_KILLABLE_RECV need; ExtensionTests has one.
    let actions = seccomp.actions.filter { $0 != "SCMP_ACT_NOTIFY" }
    let calls = ["acct", "swapon", "swapoff", "reboot", "mount", "umount2", "quotactl", "vhangup"]
    #expect(calls.count == actions.count)
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
    let result = try world.run("for n in \(kinds.joined(separator: " ")); do readlink /proc/self/ns/$n; done") { config in
      config.object("process") { process in
        process.object("capabilities") { $0["bounding"] = features.linux.capabilities }
      }
      config.object("linux") { linux in
        linux["namespaces"] = features.linux.namespaces.map { ["type": $0] }
        for key in ["uidMappings", "gidMappings"] { linux[key] = [["containerID": 0, "hostID": 300_000, "size": 65536]] }
        var rules: [[String: Any]] = zip(calls, actions).map { ["names": [$0], "action": $1] }
        for comparison in seccomp.operators {
          rules.append([
            "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
            "args": [["index": 0, "value": 77, "valueTwo": 78, "op": comparison]],
          ])
        }
        linux["seccomp"] = [
          "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": rules,
          "flags": seccomp.supportedFlags.filter { !$0.hasSuffix("WAIT_KILLABLE_RECV") },
        ]
      }
    }
    // Nothing was unknown to it.
    #expect(result.code == 0 && !result.err.contains("unknown"), "\(result)")
    let inside = result.out.split(separator: "\n").map(String.init)
    try #require(inside.count == kinds.count, "\(result)")
    for (kind, link) in zip(kinds, inside) { #expect(try link != Files.link("/proc/self/ns/\(kind)"), "\(kind)") }
    for name in seccomp.archs {
      // Recognized; one of the other byte order is libseccomp's to refuse (seccomp_arch_add(3)).
      do throws(BundleError) {
        _ = try Filters.compile(try reading(#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["\#(name)"]}"#))
      } catch { #expect(error.description.contains("numerical argument out of domain"), "\(name): \(error)") }
    }
    #expect(Set(seccomp.supportedFlags).isSubset(of: seccomp.knownFlags))
  }

  @Test("mount options are understood, not the file system's; versions, hooks and cgroups are as they are")
  func rest() throws {
    let world = try BundleWorld()
    let features = try features(world)
    for name in features.mountOptions { #expect(try MountOptions([name], path: "mounts[0]").data == [], "\(name)") }
    #expect(features.mountOptions.contains("rro") && features.mountOptions.contains("rnoatime"))
    #expect(features.mountOptions.contains("idmap") && features.mountOptions.contains("mand") && !features.mountOptions.contains("acl"))
    #expect(features.ociVersionMin == "1.0.0" && features.ociVersionMax == OCI.version && features.hooks.count == 6)
    // Both versions are done, and their tests run on this host and in `make test-vm`; what is limited by rdma is ResourceTests'.
    #expect(features.linux.cgroup.v1 && features.linux.cgroup.v2 && features.linux.cgroup.rdma && !features.linux.cgroup.systemdUser)
    #expect(features.linux.cgroup.systemd == SystemdScope.isSupported)
    #expect(features.linux.apparmor.enabled && features.linux.selinux.enabled && !features.linux.intelRdt.enabled)
    // All that are obeyed; org.systemd.property.NAME is SystemdTests'.
    let unsafe = features.potentiallyUnsafeConfigAnnotations
    for key in [Annotations.keepGroups, Annotations.failUnknownSyscall, Annotations.hooksOutput, Annotations.hooksErrors, "org.systemd.property.X"] {
      #expect(unsafe.contains { $0 == key || $0.hasSuffix(".") && key.hasPrefix($0) }, "\(key): \(unsafe)")
    }
    // Where the kernel has none, a label is an error, never silence.
    for (key, has) in [("apparmorProfile", Labels.hasAppArmor), ("selinuxLabel", Labels.hasSELinux)] where !has {
      let refused = try world.run("true") { config in config.object("process") { $0[key] = "x" } }
      #expect(refused.code == 1 && refused.err.contains("process.\(key): this kernel runs without"), "\(refused)")
    }
  }
}

private func reading(_ json: String) throws(BundleError) -> Linux.Seccomp {
  do throws(OCIError) { return try Document.read(Linux.Seccomp.self, Array(json.utf8)) } catch { throw BundleError("\(error)") }
}
