import Foundation
import Glibc
import LinuxSystem
import Testing

/// Links as mounts, mounts that come and go, and mount namespaces that are not the container's own.
@Suite(.enabled(if: isRoot), .serialized) struct MountTests {
  private func map(_ config: inout [String: Any]) {
    config.object("linux") {
      $0.append("namespaces", ["type": "user"])
      for key in ["uidMappings", "gidMappings"] { $0[key] = [["containerID": 0, "hostID": 100_000, "size": 65536]] }
    }
  }
  /// The folders that a foreign root must enter.
  private func open(_ world: BundleWorld) throws {
    for name in ["proc", "dev", "sys", "m", "run"] { try Files.makeDirectories(world.bundle + "/rootfs/" + name, mode: 0o777) }
    for name in ["m", "run"] { chmod(world.bundle + "/rootfs/" + name, 0o777) }
    for path in [world.folder, world.bundle] { chmod(path, 0o755) }
  }

  @Test("a link as source or target of a bind mount is itself meant where that is asked for", arguments: [false, true])
  func links(_ mapped: Bool) throws {
    let world = try BundleWorld()
    try open(world)
    try Files.writeAtomically(world.folder + "/file", "content\n", mode: 0o644, durable: false)
    symlink(world.folder + "/file", world.folder + "/link")
    symlink("nowhere", world.bundle + "/rootfs/m/covered")
    func look(_ script: String, _ target: String, _ options: [String]) throws -> BundleWorld.Result {
      try world.run(script) { config in
        if mapped { map(&config) }
        config.append("mounts", ["destination": target, "type": "bind", "source": world.folder + "/link", "options": ["bind"] + options])
      }
    }
    #expect(try look("readlink /m/covered", "/m/covered", ["src-nofollow", "dest-nofollow"]).out == "\(world.folder)/file\n")
    #expect(try look("cat /m/covered", "/m/covered", ["dest-nofollow"]).out == "content\n")
    #expect(try look("readlink /m/a/copy", "/m/a/copy", ["copy-symlink"]).out == "\(world.folder)/file\n")
    // It is there by now, as it shall be; another is not replaced.
    #expect(try look("readlink /m/a/copy", "/m/a/copy", ["copy-symlink"]).code == 0)
    let other = try look("true", "/m/covered", ["copy-symlink"])
    #expect(other.code == 1 && other.err.contains("file exists"), "\(other.err)")
    let kernel = try look("true", "/proc/self", ["src-nofollow", "dest-nofollow"])
    #expect(kernel.code == 1 && kernel.err.contains("in a file system of the kernel's"), "\(kernel.err)")
    #expect(try look("true", "/m/x", ["copy-symlink", "src-nofollow"]).err.contains("mounts[7].options: copy-symlink excludes"))
    #expect(try Files.link(world.bundle + "/rootfs/m/covered") == "nowhere")
  }

  @Test("mounts are added to a running container and taken away, and stay inside its root", arguments: [false, true])
  func comeAndGo(_ mapped: Bool) throws {
    let world = try BundleWorld()
    try open(world)
    try world.specify()
    try Files.makeDirectories(world.folder + "/shared", mode: 0o755)
    try Files.writeAtomically(world.folder + "/shared/file", "host\n", mode: 0o644, durable: false)
    try Files.makeDirectories(world.folder + "/outside", mode: 0o777)
    // Where it leads from inside there is nothing of the host.
    symlink(world.folder + "/outside", world.bundle + "/rootfs/m/out")
    try world.configure(["sleep", "1000"]) { if mapped { map(&$0) } }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let list = world.folder + "/mounts.json"
    try Files.writeAtomically(
      list,
      """
      [{"destination": "/m/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
       {"destination": "/m/t/b", "type": "bind", "source": "\(world.folder)/shared", "options": ["bind", "ro"]},
       {"destination": "/m/out/of", "type": "bind", "source": "\(world.folder)/shared", "options": ["bind"]}]
      """, durable: false)
    func inside(_ script: String) throws -> String { try world.call(["exec", "one", "sh", "-c", script]).out }
    let added = try world.call(["mounts", "add", "one", list])
    #expect(added.code == 0, "\(added.err)")
    #expect(try inside("cat /m/t/b/file; touch /m/t/x && echo made; touch /m/t/b/x 2>/dev/null || echo read-only") == "host\nmade\nread-only\n")
    #expect(try Files.list(world.folder + "/outside").isEmpty)
    #expect(try inside("cat \(world.folder)/outside/of/file") == "host\n")
    let removed = try world.call(["mounts", "remove", "one", list])
    #expect(removed.code == 0, "\(removed.err)")
    #expect(try inside("ls /m/t; ls \(world.folder)/outside/of; grep -c ' /m/' /proc/self/mountinfo") == "0\n")
    let twice = try world.call(["mounts", "remove", "one", list])
    #expect(twice.code == 1 && twice.err.contains("unmount /m/out/of: invalid argument"), "\(twice.err)")
    for (text, reason) in [
      ("[{\"destination\": \"/\", \"type\": \"tmpfs\"}]", "the root of a running container stays"),
      ("[{\"destination\": \"/x\", \"type\": \"cgroup2\"}]", "cgroups are not added"), ("{}", "mounts"),
      ("[{\"destination\": \"/x/../y\", \"type\": \"tmpfs\"}]", "contains \"..\""),
    ] {
      try Files.writeAtomically(list, text, durable: false)
      let refused = try world.call(["mounts", "add", "one", list])
      #expect(refused.code == 1 && refused.err.contains(reason), "\(refused.err)")
    }
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    #expect(try world.call(["mounts", "add", "one", list]).err.contains("does not exist"))
  }

  @Test("in the host's mount namespace, or one that is joined, a container sees its root alone and leaves the host's mounts as they were")
  func foreignNamespaces() throws {
    let world = try BundleWorld()
    try world.specify()
    for name in ["proc", "dev", "sys"] { try Files.makeDirectories(world.bundle + "/rootfs/" + name, mode: 0o755) }
    let volume = world.folder + "/volume"
    try Files.makeDirectories(volume, mode: 0o755)
    func specify(_ namespaces: [[String: String]]) throws {
      try world.configure(["sleep", "1000"]) { config in
        config.removeValue(forKey: "hostname")
        config.append("mounts", ["destination": "/v", "source": volume, "options": ["rbind"]])
        config.object("linux") { $0["namespaces"] = namespaces }
      }
    }
    // The root is a mount itself, as podman's and containerd's are; below the volume there is one that must stay. All of it in a namespace whose mounts
    // are shared, as on a host with systemd. Only the test's own mounts are counted: other tests' go with their folders.
    let script = world.folder + "/script"
    let call = "\(world.program) --root \(world.folder)/root"
    try Files.writeAtomically(
      script,
      """
      #!/bin/sh
      exec unshare -m --propagation private sh -c '
      mount --bind \(world.bundle)/rootfs \(world.bundle)/rootfs; mount -t tmpfs v \(volume); mkdir \(volume)/sub; mount -t tmpfs s \(volume)/sub
      echo kept > \(volume)/sub/file; mount --make-rshared /; before=$(grep -c \(world.folder) /proc/self/mountinfo)
      \(call) run -d --bundle \(world.bundle) one
      \(call) exec one sh -c "cat /v/sub/file; ls /tmp /home; cd /; pwd; ls -d /opt 2>/dev/null; readlink /proc/self/ns/mnt"
      readlink /proc/self/ns/mnt
      \(call) delete -f one
      cat \(volume)/sub/file; echo $(($(grep -c \(world.folder) /proc/self/mountinfo) - before))'
      """, mode: 0o755, durable: false)
    try specify([["type": "pid"]])
    let host = try world.call([], program: script)
    let lines = host.out.split(separator: "\n").map(String.init)
    try #require(lines.count == 8, "\(host.out)\(host.err)")
    #expect(lines[0] == "kept" && lines[3] == "/" && lines[4] == lines[5] && lines[6...] == ["kept", "0"], "\(host.out)\(host.err)")

    // That of another container: its view stays what it was.
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "first"]).code == 0)
    let pid = try #require(try world.state("first")["pid"] as? Int)
    let holder = world.folder + "/holder"
    try Files.writeAtomically(
      holder, "#!/bin/sh\nunshare -m --propagation private sleep 100 & echo $! > \(world.folder)/holder.pid\n", mode: 0o755, durable: false)
    #expect(try world.call([], program: holder).code == 0)
    let holding = try #require(Int32(try Files.text(world.folder + "/holder.pid").trimmingCharacters(in: .newlines)))
    defer { kill(holding, SIGKILL) }
    while try Files.link("/proc/\(holding)/ns/mnt") == Files.link("/proc/self/ns/mnt") { usleep(1000) }
    try specify([["type": "mount", "path": "/proc/\(holding)/ns/mnt"], ["type": "pid"]])
    let joined = try world.call(["run", "-d", "--bundle", world.bundle, "two"])
    #expect(joined.code == 0, "\(joined.err)")
    let other = try #require(try world.state("two")["pid"] as? Int)
    #expect(try Files.link("/proc/\(other)/ns/mnt") == Files.link("/proc/\(holding)/ns/mnt"))
    #expect(try world.call(["exec", "two", "sh", "-c", "ls -d /opt /home 2>/dev/null; cat /proc/1/comm"]).out == "/home\nsleep\n")
    #expect(try world.call(["exec", "first", "cat", "/proc/1/comm"]).out == "sleep\n")
    #expect(pid != other)
    #expect(try world.call(["mounts", "add", "two", "/dev/null"]).err.contains("no mount namespace of its own"))
    for id in ["two", "first"] { #expect(try world.call(["delete", "-f", id]).code == 0) }
    #expect(!(try Files.text("/proc/self/mountinfo").contains(world.folder)))

    // What would reach the host's mounts is refused.
    for (edit, reason) in [
      (
        { $0.append("mounts", ["destination": "/w", "source": volume, "options": ["bind", "rshared"]]) }, "a propagation needs a new mount namespace"
      ),
      ({ $0.object("linux") { $0["rootfsPropagation"] = "rslave" } }, "linux.rootfsPropagation: needs a new mount namespace"),
      ({ map(&$0) }, "a new user namespace needs a new mount namespace"),
    ] as [((inout [String: Any]) -> Void, String)] {
      let refused = try world.run("true") { config in
        config.removeValue(forKey: "hostname")
        config.object("linux") { $0["namespaces"] = [["type": "pid"]] }
        edit(&config)
      }
      #expect(refused.code == 1 && refused.err.contains(reason), "\(refused.err)")
    }
  }

  @Test("a tmpfs over what is not there has the file system's own mode, copied up or not")
  func modes() throws {
    let world = try BundleWorld()
    let result = try world.run("stat -c %a /a /b /up") { config in
      for (target, options) in [("/a", []), ("/b", ["tmpcopyup"]), ("/up", ["tmpcopyup"])] {
        config.append("mounts", ["destination": target, "type": "tmpfs", "source": "tmpfs", "options": options])
      }
    }
    #expect(result.out == "1777\n1777\n755\n", "\(result.err)")
  }

  @Test("what is asked of a file system and of its mount is what mountinfo tells, and what is refused is told in the kernel's words")
  func options() throws {
    let world = try BundleWorld()
    let rootfs = world.bundle + "/rootfs"
    // Longer than a value of fsconfig(2), and with a comma that overlay's own parser knows to be none of mount(2)'s.
    let long = rootfs + String(repeating: "/.", count: 120) + "/up"
    try Files.makeDirectories(world.folder + "/a,b", mode: 0o755)
    func mount(_ config: inout [String: Any], _ target: String, _ options: [String], type: String = "tmpfs", source: String = "s") {
      config.append("mounts", ["destination": target, "type": type, "source": source, "options": options])
    }
    let result = try world.run("grep -E ' /t[a-d] ' /proc/self/mountinfo | cut -d' ' -f5-6,8-11; cat /oa/file /ob/file /oc/file") { config in
      mount(&config, "/ta", ["nosuid", "noatime", "size=64k", "mode=0711"], source: "one")
      mount(&config, "/tb", ["ro", "nodev", "noexec", "strictatime", "nodiratime", "sync", "dirsync", "lazytime", "nosymfollow", "silent"])
      mount(&config, "/tc", ["nosuid", "noatime", "size=64k"])
      mount(&config, "/tc", ["remount", "nodev", "size=128k", "sync"])
      mount(&config, "/td", ["nosuid", "noatime"])
      mount(&config, "/td", ["remount", "bind", "ro", "relatime"])
      mount(&config, "/oa", ["lowerdir=\(rootfs)/up:\(rootfs)/home"], type: "overlay")
      mount(&config, "/ob", ["lowerdir=\(long):\(rootfs)/home"], type: "overlay")
      mount(&config, "/oc", ["lowerdir=\(rootfs)/up:\(world.folder)/a\\,b"], type: "overlay")
    }
    let lines = result.out.split(separator: "\n").map(String.init)
    try #require(result.code == 0 && lines.count == 7, "\(result.out)\(result.err)")
    for (line, expected) in zip(
      lines,
      [
        "/ta rw,nosuid,noatime tmpfs one rw,size=64k,mode=711", "/tb ro,nodev,noexec,nodiratime,nosymfollow tmpfs s ro,sync,dirsync,lazytime",
        "/tc rw,nodev,noatime tmpfs s rw,sync,size=128k", "/td ro,relatime tmpfs s rw",
      ])
    { #expect(line == expected || line.hasPrefix(expected + ","), "\(line)") }
    #expect(lines[4...] == ["from the image", "from the image", "from the image"])

    for (option, reason) in [
      ("bogus", "mount tmpfs on /x: tmpfs: Unknown parameter 'bogus': invalid argument"),
      ("size=much", "mount tmpfs on /x: tmpfs: Bad value for 'size': invalid argument"),
    ] {
      let refused = try world.run("true") { mount(&$0, "/x", [option]) }
      #expect(refused.code == 1 && refused.err.contains(reason), "\(refused.err)")
    }
    let remounted = try world.run("true") { config in
      mount(&config, "/x", [])
      mount(&config, "/x", ["remount", "bogus"])
    }
    #expect(remounted.err.contains("remount /x: tmpfs: Unknown parameter 'bogus': invalid argument"), "\(remounted.err)")
  }

  @Test("a file system is mounted over itself, and a host's /sys with its cgroups under the container's own")
  func overItself() throws {
    let world = try BundleWorld()
    let result = try world.run("grep -c ' /dev/mqueue ' /proc/self/mountinfo; grep ' /sys/fs/cgroup ' /proc/self/mountinfo | cut -d' ' -f4") {
      config in
      let mounts = config["mounts"] as! [[String: Any]]
      config["mounts"] = mounts.map { mount in
        guard mount["destination"] as? String == "/sys" else { return mount }
        return ["destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]]
      }
      config.append("mounts", ["destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]])
      if !mounts.contains(where: { $0["type"] as? String == "cgroup" }) {
        config.append("mounts", ["destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "ro"]])
      }
      config.object("linux") { $0["namespaces"] = ($0["namespaces"] as! [[String: Any]]).filter { $0["type"] as? String != "network" } }
    }
    // Its last line: the root of its own cgroup namespace.
    #expect(result.out.hasPrefix("2\n") && result.out.hasSuffix("\n/\n"), "\(result)")
  }
}
