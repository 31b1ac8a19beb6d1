extension Config {
  /// What `spec` writes: a shell in ./rootfs, as runc's.
  public static var standard: Config {
    var process = ConfigProcess(args: ["sh"], cwd: "/")
    process.terminal = true
    process.user = ConfigProcess.User(uid: 0, gid: 0)
    process.env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    process.capabilities = ConfigProcess.Capabilities(bounding: capabilities, effective: capabilities, permitted: capabilities)
    process.rlimits = [ConfigProcess.Rlimit(type: "RLIMIT_NOFILE", soft: 1024, hard: 1024)]
    process.noNewPrivileges = true
    let safe = ["nosuid", "noexec", "nodev"]
    var config = Config(ociVersion: OCI.version, process: process, root: Root(path: "rootfs", readonly: true), hostname: "orch-runtime")
    config.mounts = [
      Mount("/proc", type: "proc", source: "proc"),
      Mount("/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"]),
      Mount("/dev/pts", type: "devpts", source: "devpts", options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
      Mount("/dev/shm", type: "tmpfs", source: "shm", options: safe + ["mode=1777", "size=65536k"]),
      Mount("/dev/mqueue", type: "mqueue", source: "mqueue", options: safe),
      Mount("/sys", type: "sysfs", source: "sysfs", options: safe + ["ro"]),
      Mount("/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: safe + ["relatime", "ro"]),
    ]
    var linux = Linux()
    linux.resources = Resources()
    linux.resources?.devices = [Resources.DeviceRule(allow: false, access: "rwm")]
    linux.namespaces = [.pid, .network, .ipc, .uts, .mount, .cgroup].map { Linux.Namespace($0) }
    linux.maskedPaths = [
      "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
      "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
    ]
    linux.readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    config.linux = linux
    return config
  }

  /// What `spec --rootless` writes: a user namespace, on the host's network, without limits. As crun's without mappings: whoever makes the container is
  /// its root, by the number that they have there.
  public static var rootless: Config {
    var config = standard
    // Group 5 is not mapped.
    config.mounts = config.mounts?.map { mount in
      var mount = mount
      mount.options?.removeAll { $0.hasPrefix("gid=") }
      return mount
    }
    config.linux?.namespaces = [.pid, .ipc, .uts, .mount, .cgroup, .user].map { Linux.Namespace($0) }
    config.linux?.resources = nil
    return config
  }
}
