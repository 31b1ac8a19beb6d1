import CLinux
import Foundation
import Glibc
import LinuxSystem
import Testing

/// What the specification has beyond the everyday: listeners, mapped ids, NUMA, propagation.
@Suite(.enabled(if: isRoot), .serialized) struct ExtensionTests {
  private func mapping(_ container: Int, _ host: Int, _ size: Int) -> [[String: Int]] { [["containerID": container, "hostID": host, "size": size]] }
  private func userNamespace(_ config: inout [String: Any], host: Int = 100_000) {
    config.object("linux") {
      $0.append("namespaces", ["type": "user"])
      $0["uidMappings"] = mapping(0, host, 65536)
      $0["gidMappings"] = mapping(0, host, 65536)
    }
  }
  /// The folders that a foreign root must enter.
  private func open(_ world: BundleWorld) throws {
    for name in ["proc", "dev", "sys", "m"] { try Files.makeDirectories(world.bundle + "/rootfs/" + name, mode: 0o755) }
    for path in [world.folder, world.bundle] { chmod(path, 0o755) }
  }

  @Test("a seccomp listener gets the notifications, even of the call that sends them", arguments: [true, false])
  func listener(_ confined: Bool) throws {
    let world = try BundleWorld()
    try world.specify()
    let path = world.folder + "/listener"
    let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(listener) }
    let bound = try withUnixAddress(path) { bind(listener, $0, $1) }
    try #require(bound == 0 && listen(listener, 1) == 0)
    try world.configure(["sh", "-c", "mkdir /tmp/x; echo $?"]) { config in
      config["annotations"] = ["a": "b"]
      config.object("process") { $0["noNewPrivileges"] = confined }
      config.object("linux") {
        $0["seccomp"] = [
          "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "meta",
          "syscalls": [["names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"]],
        ]
      }
    }
    try #require(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0)
    let connection = accept(listener, nil, nil)
    defer { close(connection) }
    let pid = try #require(try world.state("one")["pid"] as? Int)
    let started = Thread { _ = try? world.call(["start", "one"]) }
    if confined { started.start() }
    var message = [UInt8](repeating: 0, count: 65536)
    var descriptor: Int32 = -1
    let count = clinux_receive_fd(connection, &message, message.count, &descriptor)
    try #require(count > 0 && descriptor >= 0)
    #expect(try Files.link("/proc/self/fd/\(descriptor)") == "anon_inode:seccomp notify")
    let said = try JSONSerialization.jsonObject(with: Data(message[..<count])) as! [String: Any]
    let state = said["state"] as! [String: Any]
    #expect(said["fds"] as? [String] == ["seccompFd"] && said["metadata"] as? String == "meta")
    #expect(said["pid"] as? Int == pid && state["pid"] as? Int == pid && state["id"] as? String == "one")
    #expect(state["status"] as? String == (confined ? "created" : "creating") && state["annotations"] as? [String: String] == ["a": "b"])
    if !confined { started.start() }
    // mkdir waits for an answer; with nobody to give one any more it is not implemented (seccomp_unotify(2)).
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    #expect(poll(&waiting, 1, 45_000) == 1)
    close(descriptor)
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("idmapped mounts: by their own maps, by the container's, and by crun's option")
  func idMapped() throws {
    let world = try BundleWorld()
    try open(world)
    let source = world.folder + "/source"
    try Files.makeDirectories(source, mode: 0o777)
    try Files.writeAtomically(source + "/file", "x", mode: 0o644, durable: false)
    let mount: [String: Any] = ["destination": "/m", "type": "bind", "source": source]
    let own = try world.run("stat -c %u:%g /m/file; touch /m/new") { config in
      config.append(
        "mounts",
        mount.merging(["options": ["rbind", "idmap"], "uidMappings": mapping(0, 1000, 2), "gidMappings": mapping(0, 1001, 2)]) { $1 })
      config.object("process") { $0["user"] = ["uid": 1000, "gid": 1001] }
    }
    if own.err.contains("its file system and this kernel must be able to") {
      // tmpfs before Linux 6.3: an error that says so is all that can be had.
      #expect(own.code == 1)
      return
    }
    #expect(own.out == "1000:1001\n", "\(own.err)")
    var made = stat()
    #expect(stat(source + "/new", &made) == 0 && made.st_uid == 0 && made.st_gid == 0)
    let inline = try world.run("stat -c %u:%g /m/file; touch /m/more") {
      $0.append("mounts", mount.merging(["options": ["bind", "ro", "idmap=uids=0-7-1;gids=0-8-1"]]) { $1 })
    }
    #expect(inline.out == "7:8\n" && inline.err.contains("Read-only file system"), "\(inline.out)\(inline.err)")
    let container = try world.run("stat -c %u:%g /m/file; touch /m/third") { config in
      userNamespace(&config)
      config.append("mounts", mount.merging(["options": ["bind", "ridmap"]]) { $1 })
    }
    #expect(container.out == "0:0\n", "\(container.err)")
    #expect(stat(source + "/third", &made) == 0 && made.st_uid == 0)
  }

  @Test("a user namespace takes hundreds of bind mounts; of more than the parent can hold, an error says so")
  func manyMounts() throws {
    let world = try BundleWorld()
    try open(world)
    try Files.makeDirectories(world.folder + "/source", mode: 0o755)
    func run(_ count: Int) throws -> BundleWorld.Result {
      try world.run("cd /m; ls | wc -l; grep -c ' /m/' /proc/self/mountinfo") { config in
        userNamespace(&config)
        for number in 0..<count { config.append("mounts", ["destination": "/m/\(number)", "source": world.folder + "/source", "options": ["bind"]]) }
      }
    }
    for number in 0..<300 { try Files.makeDirectories(world.bundle + "/rootfs/m/\(number)", mode: 0o755) }
    let many = try run(300)
    #expect(many.code == 0 && many.out == "300\n300\n", "\(many)")
    let tooMany = try run(5000)
    #expect(tooMany.code == 1 && tooMany.err.contains("4096 bind mounts and device nodes"), "\(tooMany)")
  }

  @Test("groups are as many as the kernel takes", arguments: [2000, 65_536])
  func manyGroups(_ count: Int) throws {
    let world = try BundleWorld()
    let result = try world.run("grep ^Groups: /proc/self/status | wc -w") { config in
      config.object("process") { $0["user"] = ["uid": 1000, "gid": 1000, "additionalGids": Array(5000..<5000 + count)] }
    }
    #expect(result.code == 0 && result.out == "\(1 + count)\n", "\(result)")
  }

  @Test("a user namespace's devices need no counterpart on the host, and have their owner and mode")
  func devices() throws {
    let world = try BundleWorld()
    try open(world)
    let result = try world.run(
      "stat -c '%F %t:%T %a %u:%g' /dev/mine /dev/null; echo x > /dev/null && head -c 3 /dev/mine | wc -c; chmod 600 /dev/null"
    ) {
      config in
      userNamespace(&config)
      config.object("linux") {
        $0["devices"] = [["path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o157, "uid": 10, "gid": 11]]
      }
    }
    #expect(
      result.out == "character special file 1:5 157 10:11\ncharacter special file 1:3 666 0:0\n3\n" || result.err.contains("wc"),
      "\(result.out)\(result.err)")
    var null = stat()
    #expect(stat("/dev/null", &null) == 0 && null.st_mode & 0o777 == 0o666 && null.st_uid == 0)
    let unmapped = try world.run("true") { config in
      userNamespace(&config)
      config.object("linux") { $0["devices"] = [["path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "uid": 70000]] }
    }
    #expect(unmapped.code == 1 && unmapped.err.contains("user 70000 of /dev/mine is not mapped"), "\(unmapped.err)")
  }

  @Test("a user namespace on the host's network sees the host's sysfs, read-only and without its cgroups")
  func sysfs() throws {
    let world = try BundleWorld()
    try open(world)
    let result = try world.run("ls /sys/kernel | grep -c '^mm$'; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x; echo 1 > /sys/kernel/profiling") {
      config in
      userNamespace(&config)
      config["mounts"] = (config["mounts"] as! [[String: Any]]).filter { $0["type"] as? String != "cgroup" }
      config.object("linux") { $0["namespaces"] = ($0["namespaces"] as! [[String: Any]]).filter { $0["type"] as? String != "network" } }
    }
    #expect(result.out == "1\n", "\(result.out)\(result.err)")
    #expect(result.err.contains("/sys/fs/cgroup/x: Read-only file system"), "\(result.err)")
  }

  @Test("a mount is changed by remount")
  func remount() throws {
    let world = try BundleWorld()
    let result = try world.run("cat /r/seed; touch /r/x") { config in
      config.append("mounts", ["destination": "/r", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]])
      config.append("mounts", ["destination": "/r/seed", "source": world.bundle + "/rootfs/up/file", "options": ["bind"]])
      config.append("mounts", ["destination": "/r", "options": ["remount", "ro"]])
    }
    #expect(result.out == "from the image\n" && result.err.contains("/r/x: Read-only file system"), "\(result.out)\(result.err)")
  }

  @Test("shared propagation: a bind with rshared hands mounts to the host, the root hands none")
  func shared() throws {
    let world = try BundleWorld()
    try world.specify()
    let volume = world.folder + "/volume"
    try Files.makeDirectories(volume, mode: 0o755)
    try world.configure(["sh", "-c", "mount -t tmpfs inside /v/sub && touch /v/sub/from-inside && echo mounted"]) { config in
      config.append("mounts", ["destination": "/v", "source": volume, "options": ["rbind", "rshared"]])
      config.object("process") { process in
        process.object("capabilities") { for set in ["bounding", "effective", "permitted"] { $0[set] = ["CAP_SYS_ADMIN"] } }
      }
      config.object("linux") { $0["rootfsPropagation"] = "rshared" }
    }
    // In a mount namespace of its own whose mounts are shared: as on a host with systemd, and without touching this one. Only its own mounts
    // are counted: other tests remove folders on which something is mounted there.
    let script = world.folder + "/script"
    try Files.writeAtomically(
      script,
      """
      #!/bin/sh
      exec unshare -m --propagation private sh -ec '
      mount --bind \(world.folder) \(world.folder); mount -t tmpfs v \(volume); mkdir \(volume)/sub; mount --make-rshared /
      before=$(grep -c \(world.folder) /proc/self/mountinfo)
      \(world.program) --root \(world.folder)/root run --bundle \(world.bundle) one
      ls \(volume)/sub; umount \(volume)/sub; echo $(($(grep -c \(world.folder) /proc/self/mountinfo) - before))'
      """, mode: 0o755, durable: false)
    let result = try world.call([], program: script)
    #expect(result.out == "mounted\nfrom-inside\n0\n", "\(result.out)\(result.err)")
  }

  @Test("a NUMA memory policy is the program's, and exec's", .enabled(if: Files.exists("/proc/self/numa_maps")))
  func memoryPolicy() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"]) { config in
      config.object("linux") { $0["memoryPolicy"] = ["mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]] }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let pid = try #require(try world.state("one")["pid"] as? Int)
    #expect(try Files.text("/proc/\(pid)/numa_maps").contains(" bind=static:0 "))
    #expect(try world.call(["exec", "one", "cat", "/proc/self/numa_maps"]).out.contains(" bind=static:0 "))
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("execCPUAffinity is for what exec runs")
  func affinity() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let file = world.folder + "/process.json"
    try Files.writeAtomically(
      file,
      """
      {"cwd": "/", "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "user": {"uid": 0, "gid": 0},
       "env": ["PATH=/bin"], "execCPUAffinity": {"initial": "0", "final": "0"}}
      """, durable: false)
    let result = try world.call(["exec", "--process", file, "one"])
    #expect(result.out == "Cpus_allowed_list:\t0\n", "\(result.err)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("unknown capabilities are warned of and left out, for exec as well")
  func unknownCapabilities() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"]) { config in
      config.object("process") { process in process.object("capabilities") { $0["bounding"] = ["CAP_UNHEARD_OF", "KILL", "CAP_CHOWN"] } }
    }
    let created = try world.call(["run", "-d", "--bundle", world.bundle, "one"])
    #expect(created.code == 0 && created.err.contains("warning: process.capabilities: unknown, left out: CAP_UNHEARD_OF, KILL"), "\(created.err)")
    let exec = try world.call(["exec", "--cap", "CAP_NOBODY", "one", "grep", "CapBnd", "/proc/self/status"])
    #expect(exec.out == "CapBnd:\t0000000000000001\n" && exec.err.contains("CAP_NOBODY"), "\(exec.out)\(exec.err)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("delete --regex takes every container whose id fits, and no other")
  func regularExpression() throws {
    let world = try BundleWorld()
    try world.specify()
    for id in ["ab1", "ab2", "other"] {
      try world.configure(["sleep", "1000"])
      #expect(try world.call(["run", "-d", "--bundle", world.bundle, id]).code == 0)
    }
    #expect(try world.call(["delete", "-f", "--regex", "^ab[0-9]$"]).code == 0)
    #expect(try world.call(["list", "-q"]).out == "other\n")
    #expect(try world.call(["delete", "--regex", "("]).code == 1)
    #expect(try world.call(["delete", "-f", "other"]).code == 0)
  }

  @Test("a file as stdout can be opened again by the program's user; one that is only read stays its owner's")
  func ownStdio() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sh", "-c", "stat -L -c %u:%g /proc/self/fd/1 /proc/self/fd/0"]) { config in
      config.object("process") { $0["user"] = ["uid": 1000, "gid": 1001] }
    }
    let input = world.folder + "/input"
    try Files.writeAtomically(input, "x", mode: 0o644, durable: false)
    let result = try world.call(["run", "--bundle", world.bundle, "one"], input: input)
    #expect(result.out == "1000:1001\n0:0\n", "\(result.err)")
  }

  @Test("annotations of crun: groups are kept, hooks write to files, an unknown system call is an error")
  func annotations() throws {
    let world = try BundleWorld()
    let output = world.folder + "/hook.out"
    let result = try world.run("true") { config in
      config["annotations"] = ["run.oci.hooks.stdout": output, "run.oci.hooks.stderr": output]
      config["hooks"] = ["prestart": [["path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2"]]]]
    }
    #expect(result.code == 0, "\(result.err)")
    #expect(try Files.text(output) == "out\nerr\n")
    func unknown(_ annotations: [String: String]) throws -> BundleWorld.Result {
      try world.run("true") { config in
        config["annotations"] = annotations
        config.object("linux") {
          $0["seccomp"] = ["defaultAction": "SCMP_ACT_ALLOW", "syscalls": [["names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"]]]
        }
      }
    }
    #expect(try unknown([:]).code == 0)
    let refused = try unknown(["run.oci.seccomp_fail_unknown_syscall": "1"])
    #expect(refused.code == 1 && refused.err.contains("unknown system call \"no_such_call\""), "\(refused.err)")
  }

  @Test("a filter that is loaded early and knows no newer system calls lets the container start, with its HOME")
  func oldFilter() throws {
    let world = try BundleWorld()
    let result = try world.run("echo $HOME; ls /proc/self/fd") { config in
      config.object("process") {
        $0["noNewPrivileges"] = false
        $0["user"] = ["uid": 1000, "gid": 1000]
      }
      config.object("linux") {
        $0["seccomp"] = [
          "defaultAction": "SCMP_ACT_ALLOW",
          "syscalls": [["names": ["openat2", "faccessat2", "clone3", "mount_setattr", "open_tree", "close_range"], "action": "SCMP_ACT_ERRNO"]],
        ]
      }
    }
    // 3 is the folder that ls reads.
    #expect(result.out == "/home\n0\n1\n2\n3\n", "\(result.err)")
  }
}
