import Foundation
import Glibc
import LinuxSystem
import Testing

@Suite(.enabled(if: isRoot), .serialized) struct ConfigurationTests {
  @Test("the process is what the configuration says")
  func process() throws {
    let world = try BundleWorld()
    let result = try world.run(
      "id; umask; cat /proc/self/oom_score_adj; ulimit -n; hostname; cat /proc/sys/kernel/domainname; grep -E 'NoNewPrivs|Cap(Inh|Prm|Eff|Bnd|Amb)|Seccomp:' /proc/self/status; cat /proc/sys/net/ipv4/ip_forward"
    ) { config in
      config["domainname"] = "example"
      config.object("process") {
        $0["user"] = ["uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27]
        $0["oomScoreAdj"] = 100
        let sets = ["CAP_KILL", "CAP_CHOWN"]
        $0["capabilities"] = ["bounding": sets, "permitted": sets, "effective": sets, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]]
      }
      config.object("linux") {
        $0["sysctl"] = ["net.ipv4.ip_forward": "1"]
        $0["seccomp"] = [
          "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [["names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95]],
        ]
      }
    }
    #expect(
      result.out.replacing("\t", with: " ").split(separator: "\n").map(String.init) == [
        "uid=1000(app) gid=1001 groups=5,7", "0027", "100", "1024", "orch-runtime", "example", "CapInh: 0000000000000020", "CapPrm: 0000000000000020",
        "CapEff: 0000000000000020", "CapBnd: 0000000000000021", "CapAmb: 0000000000000020", "NoNewPrivs: 1", "Seccomp: 2", "1",
      ], "\(result.out)\(result.err)")
  }

  @Test("scheduler and io priority are the configuration's, for exec as well")
  func priorities() throws {
    let world = try BundleWorld()
    try world.specify()
    let look = "cut -d' ' -f19,41 /proc/self/stat; ionice"
    try world.configure(["sh", "-c", "\(look); sleep 100"]) { config in
      config.object("process") {
        $0["scheduler"] = ["policy": "SCHED_BATCH", "nice": 5]
        $0["ioPriority"] = ["class": "IOPRIO_CLASS_BE", "priority": 6]
      }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    #expect(try world.call(["exec", "one", "sh", "-c", look]).out == "5 3\nbest-effort: prio 6\n")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("a container keeps no descriptor that its caller had not open, whatever number is asked for")
  func inherited() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["ls", "/proc/self/fd"])
    let result = try world.call(["run", "--preserve-fds", "12", "--bundle", world.bundle, "one"])
    // 3 is the folder that ls reads.
    #expect(result.out == "0\n1\n2\n3\n", "\(result.out)\(result.err)")
  }

  @Test("seccomp rules look at arguments, and answer with their errno")
  func seccomp() throws {
    let world = try BundleWorld()
    // The second time with what the first one compiled.
    for turn in 1...2 {
      let result = try world.run("chmod 600 /up/file && echo ok; chmod 755 /up/file; mkdir /tmp/x") { config in
        config.object("linux") {
          $0["seccomp"] = [
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
              ["names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95],
              ["names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [["index": 1, "value": 0o755, "op": "SCMP_CMP_EQ"]]],
            ],
          ]
        }
      }
      #expect(result.out == "ok\n", "\(turn)")
      #expect(result.err.contains("/up/file: Operation not permitted"), "\(turn)")
      #expect(result.err.contains("'/tmp/x': Operation not supported"), "\(turn)")
    }
    #expect(try Files.list(world.folder + "/root/@seccomp").count == 1)
    let listed = try world.call(["list", "-q"])
    #expect(listed.code == 0 && listed.out.isEmpty)
  }

  @Test("mounts have the options they were given")
  func mounts() throws {
    let world = try BundleWorld()
    try Files.makeDirectories(world.folder + "/host/below", mode: 0o755)
    try Files.writeAtomically(world.folder + "/host/file", "host\n", mode: 0o644, durable: false)
    let result = try world.run(
      "cat /m/file; touch /m/x 2>&1; cat /up/file /up/below/deep; stat -c %a /up/file; echo changed > /up/file; touch /r/y 2>&1; grep -E ' /(m|one) ' /proc/self/mountinfo | cut -d' ' -f5,6"
    ) { config in
      config.append("mounts", ["destination": "/m", "source": world.folder + "/host", "options": ["rbind", "ro", "nosuid", "noexec", "nodev"]])
      config.append("mounts", ["destination": "/one", "source": world.folder + "/host/file", "options": ["bind", "noatime"]])
      config.append("mounts", ["destination": "/r", "source": world.folder + "/host", "options": ["rbind", "rro"]])
      config.append("mounts", ["destination": "/up", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]])
    }
    #expect(result.code == 0)
    let lines = result.out.split(separator: "\n").map(String.init)
    #expect(
      lines.prefix(6) == ["host", "touch: /m/x: Read-only file system", "from the image", "deep", "640", "touch: /r/y: Read-only file system"],
      "\(result.out)\(result.err)")
    #expect(lines.contains("/m ro,nosuid,nodev,noexec,relatime") && lines.contains("/one rw,noatime"), "\(lines)")
    #expect(try Files.text(world.bundle + "/rootfs/up/file") == "from the image\n")
  }

  @Test("recursive access times and the kernel's forgotten mandatory locks, on what is mounted below, too")
  func times() throws {
    let world = try BundleWorld()
    let below = world.folder + "/host/below"
    try Files.makeDirectories(below, mode: 0o755)
    try #require(mount("tmpfs", below, "tmpfs", 0, nil) == 0)
    defer { umount2(below, Int32(MNT_DETACH)) }
    let mounts: [(String, [String], String)] = [
      ("/a", ["rnoatime"], "rw,noatime"), ("/b", ["rstrictatime"], "rw"), ("/c", ["rnoatime", "rrelatime"], "rw,relatime"),
      ("/d", ["rnoatime", "ratime", "mand", "nomand", "rnorelatime"], "rw,relatime"), ("/e", ["rstrictatime", "rnostrictatime"], "rw,relatime"),
    ]
    let result = try world.run("grep -E ' /(.|./below|own) ' /proc/self/mountinfo | cut -d' ' -f5,6") { config in
      for (target, options, _) in mounts {
        config.append("mounts", ["destination": target, "source": world.folder + "/host", "options": ["rbind"] + options])
      }
      config.append("mounts", ["destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": ["rnoatime", "mand"]])
    }
    #expect(result.code == 0, "\(result.err)")
    let lines = result.out.split(separator: "\n").map(String.init)
    for (target, _, wanted) in mounts { for place in [target, target + "/below"] { #expect(lines.contains("\(place) \(wanted)"), "\(lines)") } }
    #expect(lines.contains("/own rw,noatime"), "\(lines)")
  }

  @Test("masked and read-only paths, and a read-only root")
  func paths() throws {
    let world = try BundleWorld()
    let result = try world.run("cat /up/file | head -c 5; ls /up/below; touch /x; echo 1 > /proc/sys/kernel/hostname") { config in
      config["root"] = ["path": "rootfs", "readonly": true]
      config.object("linux") { $0["maskedPaths"] = ["/up/file", "/up/below", "/nowhere"] }
    }
    #expect(result.out == "")
    #expect(result.err.contains("/x: Read-only file system") && result.err.contains("hostname: Read-only file system"), "\(result.err)")
  }

  @Test("device nodes: those of the configuration are there, others cannot be opened even by their maker")
  func devices() throws {
    let world = try BundleWorld()
    let result = try world.run(
      "stat -c '%F %t:%T %a %u' /dev/null /dev/mine; head -c 4 /dev/mine | wc -c 2>/dev/null; mknod /dev/kmsg c 1 11 && cat /dev/kmsg; echo x > /dev/null && echo fine"
    ) { config in
      config.object("process") { process in
        process.object("capabilities") { for set in ["bounding", "effective", "permitted"] { $0[set] = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"] } }
      }
      config.object("linux") { $0["devices"] = [["path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7]] }
    }
    #expect(
      result.out.hasPrefix("character special file 1:3 666 0\ncharacter special file 1:5 640 7\n") && result.out.hasSuffix("fine\n"),
      "\(result.out)\(result.err)")
    #expect(result.err.contains("/dev/kmsg") && result.err.contains("Operation not permitted"), "\(result.err)")
  }

  @Test("an image whose /dev or /proc is a symbolic link changes nothing on the host")
  func links() throws {
    let world = try BundleWorld()
    try world.specify()
    try Files.makeDirectories(world.folder + "/target", mode: 0o755)
    symlink(world.folder + "/target", world.bundle + "/rootfs/dev")
    try world.configure(["true"]) { config in config["mounts"] = [["destination": "/proc", "type": "proc", "source": "proc"]] }
    _ = try world.call(["run", "--bundle", world.bundle, "one"])
    #expect(try Files.list(world.folder + "/target").isEmpty)
    unlink(world.bundle + "/rootfs/dev")
    try? Files.removeTree(world.bundle + "/rootfs/proc")
    symlink("/tmp", world.bundle + "/rootfs/proc")
    let refused = try world.call(["run", "--bundle", world.bundle, "two"])
    #expect(refused.code == 1 && refused.err.contains("the image has a symbolic link or file in its place"), "\(refused.err)")
  }

  @Test("a user namespace with its maps")
  func userNamespace() throws {
    let world = try BundleWorld()
    try Files.makeDirectories(world.bundle + "/rootfs/proc", mode: 0o755)
    for name in ["dev", "sys"] { try Files.makeDirectories(world.bundle + "/rootfs/" + name, mode: 0o755) }
    for path in [world.folder, world.bundle] { chmod(path, 0o755) }
    let result = try world.run("id -u; cat /proc/self/uid_map | grep -o '[0-9]*'; echo x > /dev/null && echo fine") { config in
      config.object("linux") {
        $0.append("namespaces", ["type": "user"])
        $0["uidMappings"] = [["containerID": 0, "hostID": 100000, "size": 65536]]
        $0["gidMappings"] = [["containerID": 0, "hostID": 100000, "size": 65536]]
      }
    }
    #expect(result.out == "0\n0\n100000\n65536\nfine\n", "\(result.err)")
  }

  @Test("namespaces are joined by path, or the host's")
  func namespaces() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let pid = try #require(try world.state("one")["pid"] as? Int)
    func own(_ kind: String, of pid: Any = "self") throws -> String { try Files.link("/proc/\(pid)/ns/\(kind)") }
    let result = try world.run("for k in net ipc pid uts; do readlink /proc/self/ns/$k; done") { config in
      config.removeValue(forKey: "hostname")
      config.object("linux") {
        $0["namespaces"] = [
          ["type": "mount"], ["type": "network", "path": "/proc/\(pid)/ns/net"], ["type": "pid", "path": "/proc/\(pid)/ns/pid"], ["type": "ipc"],
        ]
      }
    }
    let lines = result.out.split(separator: "\n").map(String.init)
    try #require(lines.count == 4, "\(result.err)")
    #expect(lines[0] == (try own("net", of: pid)))
    #expect(try lines[1] != own("ipc", of: pid) && lines[1] != own("ipc"))
    #expect(lines[2] == (try own("pid", of: pid)))
    #expect(lines[3] == (try own("uts")))
  }

  @Test("resources are the cgroup's")
  func resources() throws {
    let world = try BundleWorld()
    let result = try world.run(
      "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes pids.max pids/pids.max cpu.max cpu/cpu.cfs_quota_us 2>/dev/null"
    ) { config in
      config.object("linux") {
        $0.object("resources") {
          $0["memory"] = ["limit": 64 << 20]
          $0["pids"] = ["limit": 44]
          $0["cpu"] = ["quota": 50000, "period": 100000]
        }
      }
    }
    #expect(result.out == "67108864\n44\n50000\n" || result.out == "67108864\n44\n50000 100000\n", "\(result.out)\(result.err)")
  }
}
