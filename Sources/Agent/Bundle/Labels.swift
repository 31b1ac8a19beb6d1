import CLinux
import Launch
import LinuxSystem
import OCI

/// What security modules read, where the kernel has them.
enum Labels {
  /// selinuxfs is mounted by whoever loads the policy.
  static var hasSELinux: Bool { Files.exists("/sys/fs/selinux/enforce") }
  static var hasAppArmor: Bool { (try? Files.text("/sys/module/apparmor/parameters/enabled"))?.hasPrefix("Y") ?? false }
  /// File systems that take no context= (runc, libcontainer/rootfs_linux.go).
  static let unlabelled: Set<String> = ["proc", "sysfs", "cgroup", "cgroup2"]

  /// A confinement that is asked for and that this kernel cannot give is an error, as runc has it (crun goes on without).
  static func add(_ process: ConfigProcess, _ plan: inout PlanWriter) throws(BundleError) {
    if let profile = process.apparmorProfile, !profile.isEmpty {
      guard hasAppArmor else { throw BundleError("process.apparmorProfile: this kernel runs without AppArmor") }
      plan.add(CLINUX_OP_TREE_FOLDER, "open /proc", ["/proc"])
      let file = Files.exists("/proc/thread-self/attr/apparmor/exec") ? "apparmor/exec" : "exec"
      plan.add(CLINUX_OP_LABEL, "set process.apparmorProfile \(profile)", [.number(plan.trees), .text(file), .text("exec " + profile)])
    }
    if let label = process.selinuxLabel, !label.isEmpty {
      guard hasSELinux else { throw BundleError("process.selinuxLabel: this kernel runs without SELinux") }
      plan.add(CLINUX_OP_TREE_FOLDER, "open /proc", ["/proc"])
      plan.add(CLINUX_OP_LABEL, "set process.selinuxLabel \(label)", [.number(plan.trees), "exec", .text(label)])
    }
  }
}

/// crun's annotations that are understood here, too (crun.1, "EXTENSIONS TO OCI").
enum Annotations {
  static let keepGroups = "run.oci.keep_original_groups"
  static let failUnknownSyscall = "run.oci.seccomp_fail_unknown_syscall"
  static let hooksOutput = "run.oci.hooks.stdout"
  static let hooksErrors = "run.oci.hooks.stderr"
}
