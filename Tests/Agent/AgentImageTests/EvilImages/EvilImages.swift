import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import AgentImage

// Hostile images, each built here, loaded into a real store, the host looked at afterwards. design: what docker, runc, containerd, podman and
// umoci were broken by (their advisories), and what a header can lie about.
@Suite(.enabled(if: geteuid() == 0)) struct EvilImages {
  @Test(
    "a hostile image harms nobody",
    arguments: Evil.names + Evil.links + Evil.whiteouts + Evil.attributes + Evil.nodes + Evil.numbers + Evil.bombs + Evil.documents)
  func evil(_ evil: Evil) async throws {
    let world = try EvilWorld()
    let store = try world.open()
    let path = try world.folder.write("evil.tar", evil.make(world))
    switch evil.outcome {
    case .refused(let reason):
      do {
        _ = try await store.load(path)
        Issue.record("it was taken")
      } catch { #expect("\(error)".contains(reason), "\(error)") }
      #expect(store.list().isEmpty)
      #expect(try Files.list(world.images + "/layers").isEmpty)
    case .contained(let holds):
      let records = try await store.load(path)
      let layer = try #require(records.first?.layerPaths.first)
      #expect(holds(layer), "\(EvilWorld.look(layer))")
    }
    #expect(world.damage().isEmpty, "\(world.damage())")
    unlink(path)
    // What was taken can be taken away again, however deep.
    if !store.list().isEmpty { _ = try await store.prune(all: true) }
    #expect(try Files.list(world.images + "/layers").isEmpty)
    #expect(world.damage().isEmpty)
  }

  @Test("there are at least 40 kinds")
  func count() {
    #expect((Evil.names + Evil.links + Evil.whiteouts + Evil.attributes + Evil.nodes + Evil.numbers + Evil.bombs + Evil.documents).count >= 40)
  }
}

extension Evil {
  private static func isLink(_ path: String) -> Bool { status(path).map { $0.st_mode & S_IFMT == S_IFLNK } ?? false }
  private static func isFile(_ path: String, _ content: String) -> Bool {
    status(path).map { $0.st_mode & S_IFMT == S_IFREG } ?? false && (try? Files.text(path)) == content
  }

  static let names: [Evil] = [
    .layer("a name with ..", .refused("out of the layer")) { tar, _ in tar.add("../escaped", "x") },
    .layer("a name with .. inside", .refused("out of the layer")) { tar, _ in tar.add("a/../../escaped", "x") },
    .layer("a name that is only ..", .refused("out of the layer")) { tar, _ in tar.folder("..") },
    .layer("an absolute name", .refused("absolute")) { tar, world in
      tar.pax([("path", Array(world.canary.utf8))])
      tar.add("x", "x")
    },
    .layer("an absolute name with two slashes", .refused("absolute")) { tar, _ in tar.add("//orch-evil", "x") },
    .layer("a name with a zero byte", .refused("pax record is damaged")) { tar, _ in
      tar.pax([("path", Array("a\0/../../escaped".utf8))])
      tar.add("x", "x")
    },
    .layer("a GNU name with ..", .refused("out of the layer")) { tar, _ in
      tar.add("././@LongLink", type: "L", Array("../escaped\0".utf8))
      tar.add("x", "x")
    },
    .layer("a name of 5000 bytes", .refused("4096")) { tar, _ in
      tar.pax([("path", Array(String(repeating: "d/", count: 2500).utf8))])
      tar.add("x", "x")
    },
    .layer("a part of 300 bytes", .refused("255 bytes")) { tar, _ in
      tar.pax([("path", [UInt8](repeating: 97, count: 300))])
      tar.add("x", "x")
    },
    .layer("2000 folders deep", .contained { _ in true }) { tar, _ in
      tar.pax([("path", Array((String(repeating: "d/", count: 2000) + "end").utf8))])
      tar.add("x", "x")
    },
    .layer("bytes that are no UTF-8", .contained { (try? Files.list($0).count) == 1 }) { tar, _ in
      tar.pax([("path", [0xff, 0xfe, 0x80])])
      tar.add("x", "x")
    },
  ]

  static let links: [Evil] = [
    .layer("through an absolute link", .refused("symbolic link")) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add("l/secret", "broken")
    },
    .layer("through a relative link", .refused("symbolic link")) { tar, _ in
      tar.add("l", type: "2", link: "../../../../outside")
      tar.add("l/secret", "broken")
    },
    .layer("through a link at the third level", .refused("symbolic link")) { tar, _ in
      tar.folder("a/b")
      tar.add("a/b/l", type: "2", link: "../../../../../../outside")
      tar.add("a/b/l/new/deep", "x")
    },
    .layer("through a chain of links", .refused("symbolic link")) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("l2", type: "2", link: "x")
      tar.add("l1", type: "2", link: "l2")
      tar.add("l1/secret", "broken")
    },
    .layer("through a link to .", .refused("symbolic link")) { tar, _ in
      tar.add("l", type: "2", link: ".")
      tar.add("l/x", "x")
    },
    .layer("through /proc/self/root", .refused("symbolic link")) { tar, _ in
      tar.add("l", type: "2", link: "/proc/self/root")
      tar.add("l/tmp/orch-evil", "x")
    },
    .layer("a folder that becomes a link, then a file below", .refused("symbolic link")) { tar, world in
      tar.folder("d")
      tar.add("d/a", "x")
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("d", type: "2", link: "x")
      tar.add("d/secret", "broken")
    },
    .layer("a link that becomes a folder", .contained { isFile($0 + "/l/x", "x") }) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("l", type: "2", link: "x")
      tar.folder("l")
      tar.add("l/x", "x")
    },
    .layer("a file over a link", .contained { isFile($0 + "/l", "mine") }) { tar, world in
      tar.pax([("linkpath", Array((world.outside + "/secret").utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add("l", "mine")
    },
    .layer("a file over a hard link of a link", .contained { isFile($0 + "/h", "mine") && isLink($0 + "/l") }) { tar, world in
      tar.pax([("linkpath", Array((world.outside + "/secret").utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add("h", type: "1", link: "l")
      tar.add("h", "mine")
    },
    .layer("a hard link of a link", .contained { isLink($0 + "/h") && isLink($0 + "/l") }) { tar, world in
      tar.pax([("linkpath", Array((world.outside + "/secret").utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add("h", type: "1", link: "l")
    },
    .layer("a hard link out with ..", .refused("out of the layer")) { tar, _ in tar.add("h", type: "1", link: "../../../../outside/secret") },
    .layer("a hard link to an absolute name", .refused("absolute")) { tar, _ in tar.add("h", type: "1", link: "/etc/passwd") },
    .layer("a hard link through a link", .refused("symbolic link")) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add("h", type: "1", link: "l/secret")
    },
    .layer("a hard link to a folder", .refused("cannot be linked")) { tar, _ in
      tar.folder("d")
      tar.add("h", type: "1", link: "d")
    },
    .layer("a hard link to nothing", .refused("cannot be linked")) { tar, _ in tar.add("h", type: "1", link: "nothing") },
    .layer("a link of 5000 bytes", .refused("5000 bytes")) { tar, _ in
      tar.pax([("linkpath", [UInt8](repeating: 97, count: 5000))])
      tar.add("l", type: "2", link: "x")
    },
    .layer("/dev is a link to the host", .contained { isLink($0 + "/dev") }) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("dev", type: "2", link: "x")
    },
    .layer("/dev is a link, and has a node", .refused("symbolic link")) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("dev", type: "2", link: "x")
      tar.add("dev/null", type: "3")
    },
    .layer("/proc is a link to the host", .contained { isLink($0 + "/proc") }) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("proc", type: "2", link: "x")
    },
    .layer("the root itself is a link", .contained { status($0).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false }) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("./", type: "2", link: "x")
      tar.add("x", "x")
    },
  ]

  static let whiteouts: [Evil] = [
    .layer("a whiteout through a link", .refused("symbolic link")) { tar, _ in
      tar.add("l", type: "2", link: "../../../../outside")
      tar.add("l/.wh.secret", "")
    },
    .layer("an opaque marker through a link", .refused("symbolic link")) { tar, _ in
      tar.add("l", type: "2", link: "../../../../outside")
      tar.add("l/.wh..wh..opq", "")
    },
    .layer("a bare .wh.", .refused("names nothing")) { tar, _ in tar.add(".wh.", "") },
    .layer("a whiteout of ..", .refused("names nothing")) { tar, _ in tar.add(".wh...", "") },
    .layer("a whiteout of .", .refused("names nothing")) { tar, _ in tar.add(".wh..", "") },
    .layer("a whiteout that is a folder", .refused("is a whiteout")) { tar, _ in tar.add(".wh.d/x", "x") },
    .layer("a hard link to a whiteout", .refused("whiteout")) { tar, _ in
      tar.add(".wh.a", "")
      tar.add("h", type: "1", link: ".wh.a")
    },
    .layer("a whiteout of a link to a folder", .contained { isLink($0 + "/l") }) { tar, world in
      tar.pax([("linkpath", Array(world.outside.utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add(".wh.l", "")
    },
    .layer("a whiteout of a link", .contained { isLink($0 + "/l") }) { tar, world in
      tar.pax([("linkpath", Array((world.outside + "/secret").utf8))])
      tar.add("l", type: "2", link: "x")
      tar.add(".wh.l", "")
    },
  ]

  private static func attribute(_ name: String, _ value: String) -> Evil {
    .layer("the attribute \(name)", .contained { clinux_lgetxattr($0 + "/d", name, nil, 0) < 0 }) { tar, _ in
      tar.pax([("SCHILY.xattr." + name, Array(value.utf8))])
      tar.folder("d")
    }
  }
  static let attributes: [Evil] = [
    attribute("trusted.overlay.opaque", "y"), attribute("trusted.overlay.redirect", "/outside"), attribute("trusted.overlay.metacopy", "x"),
    attribute("user.overlay.redirect", "/outside"), attribute("system.nfs4_acl", "x"),
    attribute("security.selinux", "system_u:object_r:x:s0"),
    .layer("an access control list that is none", .refused("no access control list")) { tar, _ in
      tar.pax([("SCHILY.xattr.system.posix_acl_access", Array("all".utf8))])
      tar.add("x", "x")
    },
    .layer("a default list that is none", .refused("no access control list")) { tar, _ in
      tar.pax([("SCHILY.xattr.system.posix_acl_default", Array(accessList.dropLast()))])
      tar.folder("d")
    },
    .layer("a list of the user 2^32 - 1", .refused("no access control list")) { tar, _ in
      var list = accessList
      list.replaceSubrange(16..<20, with: [255, 255, 255, 255])
      tar.pax([("SCHILY.xattr.system.posix_acl_access", list)])
      tar.add("x", "x")
    },
    .layer("an attribute of 100 KB", .refused("too long")) { tar, _ in
      tar.pax([("SCHILY.xattr.user.a", [UInt8](repeating: 97, count: 100_000))])
      tar.add("x", "x")
    },
    .layer("attributes without end before one member", .refused("1 MiB")) { tar, _ in
      for _ in 0..<40 { tar.pax([("SCHILY.xattr.user.a", [UInt8](repeating: 97, count: 60_000))]) }
      tar.add("x", "x")
    },
    .layer("capabilities that are none", .refused("security.capability")) { tar, _ in
      tar.pax([("SCHILY.xattr.security.capability", Array("root please".utf8))])
      tar.add("x", "x")
    },
    .layer("a pax record that is longer than it says", .refused("pax record")) { tar, _ in
      tar.add("pax", type: "x", Array("9999 path=a\n".utf8))
      tar.add("x", "x")
    },
    .layer("a pax record of 2 MiB", .refused("bytes")) { tar, _ in
      tar.add("pax", type: "x", [UInt8](repeating: 97, count: 2 << 20))
      tar.add("x", "x")
    },
  ]

  static let nodes: [Evil] = [
    .layer("a character device", .contained { status($0 + "/null") == nil }) { tar, _ in tar.add("null", type: "3") },
    .layer("a disk", .contained { status($0 + "/sda") == nil }) { tar, _ in tar.add("sda", type: "4") },
    .layer("a whiteout made by hand, char 0/0", .contained { status($0 + "/etc/passwd") == nil }) { tar, _ in tar.add("etc/passwd", type: "3") },
    .layer("a fifo where a file is opened", .contained { status($0 + "/f").map { $0.st_mode & S_IFMT == S_IFREG } ?? false }) { tar, _ in
      tar.add("f", type: "6")
      tar.add("f", "x")
    },
    // The bit stays; no_new_privs in the container is what takes its power (the runtime's tests).
    .layer("a set-user-id file of root", .contained { status($0 + "/su").map { $0.st_mode & 0o7777 == 0o4755 } ?? false }) { tar, _ in
      tar.add("su", Array("x".utf8), mode: 0o4755)
    },
    .layer("a member of an unknown kind", .refused("not supported")) { tar, _ in tar.add("x", type: "Z") },
    .layer("a file as a folder", .refused("no folder")) { tar, _ in
      tar.add("f", "x")
      tar.add("f/x", "x")
    },
    .layer("500 members of one name", .contained { isFile($0 + "/x", "499") }) { tar, _ in for index in 0..<500 { tar.add("x", "\(index)") } },
  ]

  /// A member whose number field is these bytes.
  private static func field(_ name: String, _ offset: Int, _ bytes: [UInt8], _ outcome: Outcome) -> Evil {
    .layer(name, outcome) { tar, _ in
      tar.add("x", "x")
      for (index, byte) in bytes.enumerated() { tar.bytes[offset + index] = byte }
      for index in 148..<156 { tar.bytes[index] = 32 }
      let sum = String(tar.bytes[..<512].reduce(0) { $0 + Int($1) }, radix: 8)
      for (index, byte) in (String(repeating: "0", count: 6 - sum.count) + sum + "\0").utf8.enumerated() { tar.bytes[148 + index] = byte }
    }
  }
  static let numbers: [Evil] = [
    field("a size below zero", 124, [0xff] + [UInt8](repeating: 0xff, count: 11), .refused("below zero")),
    field("a size of 2^63 - 1", 124, [0x80, 0, 0, 0, 0x7f] + [UInt8](repeating: 0xff, count: 7), .refused("")),
    field("a size beyond 64 bits", 124, [0x80] + [UInt8](repeating: 0xff, count: 11), .refused("too large")),
    field("a size of letters", 124, Array("abcdefghijk".utf8), .refused("not a number")),
    field("the user 2^32, which is root cut short", 108, [0x80, 0, 0, 1, 0, 0, 0, 0], .refused("nobody's")),
    field("the user 2^32 - 1, which chown leaves as it is", 108, [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], .refused("nobody's")),
    field("the user -1", 108, [UInt8](repeating: 0xff, count: 8), .refused("nobody's")),
    field("the group 2^40", 116, [0x80, 0, 1, 0, 0, 0, 0, 0], .refused("nobody's")),
    field("a time before the world", 136, [UInt8](repeating: 0xff, count: 12), .contained { isFile($0 + "/x", "x") }),
    Evil(name: "an archive whose member ends beyond 64 bits", outcome: .refused("impossible size")) { _ in
      var archive = TarWriter()
      archive.add("a", "x")
      archive.pax([("size", Array("9223372036854774783".utf8))])
      archive.add("manifest.json", "[]")
      return archive.finished()
    },
    .layer("a sparse file of 2^62 bytes", .refused("more than")) { tar, _ in
      tar.pax([("GNU.sparse.map", Array("0,1".utf8)), ("GNU.sparse.size", Array("4611686018427387904".utf8))])
      tar.add("x", "x")
    },
    .layer("a sparse file with a part beyond its end", .refused("sparse file is damaged")) { tar, _ in
      tar.pax([("GNU.sparse.map", Array("9,1".utf8)), ("GNU.sparse.size", Array("5".utf8))])
      tar.add("x", "x")
    },
    .layer("a sparse file whose parts overlap", .refused("sparse file is damaged")) { tar, _ in
      tar.pax([("GNU.sparse.map", Array("0,2,1,2".utf8)), ("GNU.sparse.size", Array("10".utf8))])
      tar.add("x", "xxxx")
    },
    .layer("a pax size that is larger than the archive", .refused("")) { tar, _ in
      tar.pax([("size", Array("999999".utf8))])
      tar.add("x", "x")
    },
    .layer("a pax size below zero", .refused("pax record")) { tar, _ in
      tar.pax([("size", Array("-1".utf8))])
      tar.add("x", "x")
    },
    .layer("a pax user of 2^64", .refused("pax record")) { tar, _ in
      tar.pax([("uid", Array("18446744073709551616".utf8))])
      tar.add("x", "x")
    },
    .layer("a wrong checksum", .refused("checksum")) { tar, _ in
      tar.add("a", "x")
      tar.add("b", "x")
      tar.bytes[1024] ^= 1
    },
    .layer("cut in a member", .refused("")) { tar, _ in tar.add("x", Array("x".utf8), size: 5_000_000) },
  ]
}
