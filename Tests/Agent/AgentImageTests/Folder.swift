import CLinux
import Glibc
import LinuxSystem
import Model

@testable import AgentImage

/// A folder of a test's own, gone with it.
final class Folder: Sendable {
  let path: String
  init() {
    var template = Array("/tmp/orch-image-XXXXXX".utf8CString)
    path = String(cString: mkdtemp(&template)!)
  }
  deinit { try? Files.removeTree(path) }
  @discardableResult
  func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Files.writeAtomically("\(path)/\(name)", bytes, durable: false)
    return "\(path)/\(name)"
  }
}

func status(_ path: String) -> stat? {
  var status = stat()
  return lstat(path, &status) == 0 ? status : nil
}

/// version 2 of Linux' form (linux/posix_acl_xattr.h): the owner, user 1234, the group and the mask may all; others nothing.
let accessList: [UInt8] =
  [2, 0, 0, 0]
  + [(1, 7, UInt32.max), (2, 7, 1234), (4, 5, UInt32.max), (16, 7, UInt32.max), (32, 0, UInt32.max)].flatMap {
    (tag: UInt8, mode: UInt8, id: UInt32) in
    [tag, 0, mode, 0] + (0..<4).map { UInt8(truncatingIfNeeded: id >> (8 * $0)) }
  }

func attribute(_ name: String, of path: String) -> [UInt8]? {
  var value = [UInt8](repeating: 0, count: 1000)
  let count = clinux_lgetxattr(path, name, &value, value.count)
  return count < 0 ? nil : Array(value[..<count])
}

@discardableResult
func run(_ arguments: [String]) -> (code: Int32, output: String) {
  let line = arguments.map { "'" + $0 + "'" }.joined(separator: " ") + " 2>&1"
  guard let pipe = popen(line, "r") else { return (-1, "") }
  var output = ""
  var chunk = [CChar](repeating: 0, count: 4096)
  while fgets(&chunk, 4096, pipe) != nil { output += String(decoding: chunk.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) }
  return (pclose(pipe) >> 8, output)
}

func installed(_ tool: String) -> Bool { access("/usr/bin/" + tool, X_OK) == 0 }

/// One image as `docker save` writes it.
func savedImage(layers: [[UInt8]], name: String?, config: String = "{}", diffIDs: [String]? = nil, architecture: String = hostArchitecture) -> [UInt8]
{
  let ids = (diffIDs ?? layers.map { Digest(of: $0).description }).map { "\"\($0)\"" }.joined(separator: ",")
  let document =
    "{\"architecture\":\"\(architecture)\",\"os\":\"linux\",\"config\":\(config),\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\(ids)]}}"
  var tar = TarWriter()
  tar.add("config.json", document)
  for (index, layer) in layers.enumerated() { tar.add("\(index)/layer.tar", layer) }
  let names = name.map { "[\"\($0)\"]" } ?? "null"
  tar.add(
    "manifest.json",
    "[{\"Config\":\"config.json\",\"RepoTags\":\(names),\"Layers\":[\(layers.indices.map { "\"\($0)/layer.tar\"" }.joined(separator: ","))]}]")
  return tar.finished()
}
