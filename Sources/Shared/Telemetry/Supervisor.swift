import Glibc
import LinuxSystem

/// Whoever started the daemon and wants to know how it is: systemd, by sd_notify(3) without libsystemd.
public enum Supervisor {
  /// One datagram, "READY=1" or "STOPPING=1"; nothing where nobody asked for it.
  public static func notify(_ state: String) {
    guard let variable = getenv("NOTIFY_SOCKET"), let socket = UnixSocket.connect(String(cString: variable), SOCK_DGRAM) else { return }
    let bytes = Array(state.utf8)
    _ = send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    close(socket)
  }
}

/// unix(7), as little as is needed.
public enum UnixSocket {
  public static func answers(_ path: String) -> Bool {
    guard let socket = connect(path, SOCK_STREAM) else { return false }
    close(socket)
    return true
  }

  /// A connected descriptor, nil when nobody is there. '@' stands for the abstract namespace's zero byte.
  public static func connect(_ path: String, _ type: __socket_type) -> Int32? {
    let socket = Glibc.socket(AF_UNIX, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return nil }
    let result = try? withUnixAddress(path) { Glibc.connect(socket, $0, $1) }
    if result == 0 { return socket }
    close(socket)
    return nil
  }
}
