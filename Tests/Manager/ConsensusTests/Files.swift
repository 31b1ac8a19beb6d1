import Glibc

func readFile(_ path: String) -> [UInt8]? {
  let descriptor = open(path, O_RDONLY)
  guard descriptor >= 0 else { return nil }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 1 << 16)
  while case let count = read(descriptor, &buffer, buffer.count), count > 0 { bytes += buffer[..<count] }
  return bytes
}

func writeFile(_ path: String, _ bytes: [UInt8]) {
  let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  precondition(write(descriptor, bytes, bytes.count) == bytes.count)
  close(descriptor)
}

func copyFile(_ source: String, _ target: String) {
  if let bytes = readFile(source) { writeFile(target, bytes) }
}

/// Replaces the first occurrence, of equal length.
func patch(_ path: String, _ old: [UInt8], with new: [UInt8]) -> Bool {
  guard var bytes = readFile(path), bytes.count >= old.count else { return false }
  for start in 0...(bytes.count - old.count) where bytes[start] == old[0] && bytes[start..<start + old.count].elementsEqual(old) {
    bytes.replaceSubrange(start..<start + new.count, with: new)
    writeFile(path, bytes)
    return true
  }
  return false
}

func temporaryFolder() -> String {
  var template = Array("/tmp/orch-consensus-XXXXXX".utf8CString)
  return String(cString: mkdtemp(&template)!)
}

func removeFolder(_ path: String) {
  guard let directory = opendir(path) else { return }
  while let entry = readdir(directory) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
    unlink("\(path)/\(name)")
  }
  closedir(directory)
  rmdir(path)
}

/// A file system of our own that is soon full; goes away with the test. Needs root.
final class SmallDisk {
  let path = temporaryFolder()
  init?(kibibytes: Int) {
    guard mount("orch-test", path, "tmpfs", 0, "size=\(kibibytes)k") == 0 else { return nil }
  }
  deinit {
    umount2(path, Int32(MNT_DETACH))
    rmdir(path)
  }
}
struct Missing: Error { var what: String }
