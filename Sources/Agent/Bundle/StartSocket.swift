import CLinux
import Glibc
import LinuxSystem

/// The socket in a container's folder on which its first process waits for `start`; the connection then tells what goes wrong until exec.
enum StartSocket {
  static let name = "start.sock"

  /// sun_path has 108 bytes, folders may have longer names: by the descriptor of the folder.
  private static func path(_ folder: Int32, _ file: String) -> String { "/proc/self/fd/\(folder)/\(file)" }
  private static func socket(_ type: Int32) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try check(Glibc.socket(AF_UNIX, type | Int32(SOCK_CLOEXEC.rawValue), 0), "make a socket"))
  }

  static func listen(in folder: Int32) throws(SystemError) -> OwnedDescriptor {
    let socket = try socket(Int32(SOCK_SEQPACKET.rawValue))
    try check(withUnixAddress(path(folder, name)) { bind(socket.rawValue, $0, $1) }, "bind", name)
    try check(Glibc.listen(socket.rawValue, 1), "listen on", name)
    return socket
  }
  static func connect(in folder: Int32) throws(SystemError) -> OwnedDescriptor {
    let socket = try socket(Int32(SOCK_SEQPACKET.rawValue))
    try check(withUnixAddress(path(folder, name)) { Glibc.connect(socket.rawValue, $0, $1) }, "connect to", name)
    return socket
  }

  /// Hands a terminal to whoever listens at `path` (--console-socket), as runc does: the descriptor, with the name of its device as text.
  static func send(_ terminal: Int32, toConsole path: String) throws(SystemError) {
    try send(terminal, "/dev/ptmx", to: path, "console socket")
  }
  /// One descriptor, with `text` as the data that it needs beside it.
  static func send(_ descriptor: Int32, _ text: String, to path: String, _ what: String) throws(SystemError) {
    let socket = try socket(Int32(SOCK_STREAM.rawValue))
    if path.utf8.count > 107 {
      guard let slash = path.lastIndex(of: "/") else { throw SystemError("connect to", path, Errno(ENAMETOOLONG)) }
      let folder = try OwnedDescriptor.open(String(path[..<slash]), O_RDONLY | O_DIRECTORY)
      try check(
        withUnixAddress(Self.path(folder.rawValue, String(path[path.index(after: slash)...]))) { Glibc.connect(socket.rawValue, $0, $1) },
        "connect to \(what)", path)
    } else {
      try check(withUnixAddress(path) { Glibc.connect(socket.rawValue, $0, $1) }, "connect to \(what)", path)
    }
    let text = Array(text.utf8)
    try checkResult(clinux_send_fd(socket.rawValue, text, text.count, descriptor), "send a descriptor to", path)
  }
}
