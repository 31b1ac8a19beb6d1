import Testing

@testable import OCI

private let good = """
  {"ociVersion": "1.2.0", "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}}, "root": {"path": "rootfs"},
   "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}, "somethingElse": 1}
  """

/// The good document with one text replaced.
private func read(_ text: String = "", _ by: String = "") throws(OCIError) -> Config {
  let replaced = text.isEmpty ? good : good.replacing(text, with: by)
  let config = try Document.read(Config.self, Array(replaced.utf8))
  try config.check()
  return config
}

@Suite struct ConfigTests {
  @Test("unknown keys are ignored")
  func unknown() throws { #expect(try read().process?.args == ["sh"]) }

  @Test(
    "what is wrong or not supported is named by its path",
    arguments: [
      (#""uid": 0"#, #""uid": 4294967296"#, "process.user.uid"),
      (#""uid": 0"#, #""uid": "root""#, "process.user.uid: is not an integer"),
      (#""cwd": "/""#, #""cwd": "here""#, "process.cwd: must be an absolute path"),
      (#""args": ["sh"]"#, #""args": []"#, "process.args: must not be empty"),
      (#""path": "rootfs""#, #""other": 1"#, "root.path: is required"),
      ("1.2.0", "2.0.0", "ociVersion:"),
      (#"{"type": "pid"}"#, #"{"type": "mount"}"#, #"linux.namespaces[1].type: "mount" is there twice"#),
      (#"{"type": "pid"}"#, #"{"type": "pig"}"#, "linux.namespaces[1].type"),
      (#""linux": {"#, #""linux": {"intelRdt": {}, "#, "linux.intelRdt: is not supported"),
      (#""linux": {"#, #""linux": {"sysctl": {"kernel.panic": "1"}, "#, "linux.sysctl.kernel.panic: is not in a separate kernel namespace"),
      (#""linux": {"#, #""linux": {"sysctl": {"net.ipv4.ip_forward": "1"}, "#, "linux.sysctl.net.ipv4.ip_forward: needs a network namespace"),
      (#""linux": {"#, #""hostname": "x", "linux": {"#, "hostname: needs a uts namespace"),
      (
        #""linux": {"#, #""mounts": [{"destination": "/x", "type": "tmpfs", "options": ["ro", "idmap"]}], "linux": {"#,
        "mounts[0].options: idmap needs a bind mount"
      ),
      (#""linux": {"#, #""mounts": [{"destination": "/a/../b", "type": "tmpfs"}], "linux": {"#, #"mounts[0].destination: contains "..""#),
      (
        #""linux": {"#, #""mounts": [{"destination": "/x", "source": "/", "options": ["bind", "idmap"]}], "linux": {"#,
        "mounts[0].uidMappings: idmap needs mappings"
      ),
      (
        #""linux": {"#, #""mounts": [{"destination": "/x", "source": "/", "options": ["bind", "idmap=uids=1-2"]}], "linux": {"#,
        #"mounts[0].options[1]: "1-2" is not ID-HOSTID-SIZE"#
      ),
      (#""linux": {"#, #""linux": {"memoryPolicy": {"mode": "MPOL_BEND"}, "#, #"linux.memoryPolicy.mode: "MPOL_BEND" is unknown"#),
      (#""linux": {"#, #""linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-"}, "#, "linux.memoryPolicy.nodes"),
      (
        #""linux": {"#, #""linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}, "#, "linux.seccomp.defaultAction"
      ),
      (
        #""linux": {"#, #""linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_NOTIFY"}]}, "#,
        "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY needs listenerPath"
      ),
      (#""cwd": "/""#, #""cwd": "/", "execCPUAffinity": {"final": "x"}"#, "process.execCPUAffinity.final"),
      (#""linux": {"#, #""hooks": {"poststop": [{"path": "x"}]}, "linux": {"#, "hooks.poststop[0].path: must be an absolute path"),
      (#""cwd": "/""#, #""cwd": "/", "rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]"#, "process.rlimits[0].soft: is above hard"),
      (#""cwd": "/""#, #""cwd": "/", "scheduler": {"policy": "SCHED_ISO"}"#, #"process.scheduler.policy: "SCHED_ISO" is none of"#),
      (#""cwd": "/""#, #""cwd": "/", "scheduler": {"policy": "SCHED_RR", "flags": ["X"]}"#, "process.scheduler.flags[0]"),
      (#""cwd": "/""#, #""cwd": "/", "scheduler": {"policy": "SCHED_DEADLINE", "deadline": 9000}"#, "process.scheduler.runtime"),
      (
        #""cwd": "/""#, #""cwd": "/", "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 9000, "deadline": 8000}"#, "process.scheduler.deadline"
      ),
      (#""cwd": "/""#, #""cwd": "/", "ioPriority": {"class": "IOPRIO_CLASS_NONE"}"#, "process.ioPriority.class"),
      (#""cwd": "/""#, #""cwd": "/", "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 8}"#, "process.ioPriority.priority"),
      (
        #""linux": {"namespaces": [{"type": "mount"}"#,
        #""domainname": "a", "linux": {"sysctl": {"kernel.domainname": "b"}, "namespaces": [{"type": "mount"}, {"type": "uts"}"#,
        #"linux.sysctl.kernel.domainname: is "b", and domainname "a""#
      ),
      (
        #""linux": {"namespaces": [{"type": "mount"}"#,
        #""linux": {"sysctl": {"kernel.hostname": "b"}, "namespaces": [{"type": "mount"}, {"type": "uts"}"#,
        "linux.sysctl.kernel.hostname: is not allowed: say it with hostname"
      ),
      (
        #""linux": {"#, #""mounts": [{"destination": "/x", "type": "tmpfs", "options": ["src-nofollow"]}], "linux": {"#,
        "mounts[0].options: src-nofollow, dest-nofollow and copy-symlink are for bind mounts"
      ),
      (#""cwd": "/""#, #""cwd": "/"#, "is not JSON"),
      (#""path": "rootfs""#, #""path": "/etc\u0000rootfs""#, "holds a NUL character"),
    ])
  func refusals(_ text: String, _ by: String, _ wanted: String) {
    do throws(OCIError) {
      _ = try read(text, by)
      Issue.record("accepted: \(by)")
    } catch { #expect("\(error)".contains(wanted), "\(error)") }
  }

  @Test("a backslash before u0000 is no NUL")
  func backslash() throws { #expect(try read("rootfs", #"\\u0000"#).root?.path == #"\u0000"#) }

  @Test("the default configuration is what is supported, and survives writing and reading")
  func standard() throws {
    try Config.standard.check()
    #expect(try Document.read(Config.self, Document.write(Config.standard, pretty: true)) == .standard)
  }

  @Test("lists of CPUs and nodes", arguments: [("0-2,5", [0b100111]), ("", []), ("63", [0, 0, 0, 0, 0, 0, 0, 128]), ("8", [0, 1])])
  func lists(_ text: String, _ bytes: [UInt8]) throws {
    let mask = try #require(BitList(text)).mask
    #expect(mask.count % 8 == 0 && mask.prefix(bytes.count) == bytes[...] && mask.dropFirst(bytes.count).allSatisfy { $0 == 0 })
  }
  @Test("no lists of CPUs", arguments: ["2-1", "-1", "a", "1-2-3", "4096"])
  func noLists(_ text: String) { #expect(BitList(text) == nil) }

  @Test(
    "recursive access times are one field: the last word of it counts",
    arguments: [
      (["rnoatime"], 0x10, 0), (["rstrictatime"], 0x20, 0), (["rnoatime", "rstrictatime"], 0x20, 0), (["rnoatime", "rrelatime"], 0, 0x30),
      (["rrelatime"], 0, 0x30), (["ratime"], 0, 0x10), (["rnostrictatime"], 0, 0x20), (["rnorelatime"], 0, 0), (["rro", "rnoatime", "rrw"], 0x10, 1),
      (["mand", "nomand", "rnodiratime"], 0x80, 0),
    ] as [([String], UInt64, UInt64)])
  func times(_ names: [String], _ set: UInt64, _ cleared: UInt64) throws {
    let options = try MountOptions(names, path: "")
    #expect(options.recursiveSet == set && options.recursiveCleared == cleared && options.data.isEmpty, "\(options)")
  }

  @Test("mount options: later ones win, what is not known is the file system's")
  func options() throws {
    let options = try MountOptions(["rbind", "ro", "rw", "nosuid", "rslave", "rro", "size=1m", "tmpcopyup"], path: "")
    #expect(options.flags == 4096 | 16384 | 2)
    #expect(options.cleared == 1)
    #expect(options.recursiveSet == 1)
    #expect(options.propagation == 1 << 19 | 16384)
    #expect(options.data == ["size=1m"])
    #expect(options.copyUp)
  }
}
