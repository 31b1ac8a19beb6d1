import CLinux
import Glibc
import LinuxSystem

/// Says when a socket with one of some ports is gone, so that a port which another process had is taken as soon as it is free. The kernel
/// tells of every socket that ends in the namespace (sock_diag(7), SKNLGRP_INET_TCP_DESTROY and its like), so it is on only while there is a
/// port to wait for.
final class PortWatch: Sendable {
  private let stop: Int32

  /// To be made on a thread that is in the host's namespace. nil: this kernel does not tell; the next change tries again.
  /// - Parameter freed: on a thread of the watch's own; at most once.
  init?(_ ports: Set<PublishedPort>, freed: @escaping @Sendable () -> Void) {
    let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 4 /* NETLINK_SOCK_DIAG */)
    guard descriptor >= 0 else { return nil }
    // sockaddr_nl: family, padding, pid 0, groups 1 to 4 (TCP and UDP, IPv4 and IPv6).
    var address = [UInt8](repeating: 0, count: 12)
    address.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: UInt16(AF_NETLINK), as: UInt16.self)
      bytes.storeBytes(of: 0xf, toByteOffset: 8, as: UInt32.self)
    }
    let bound = address.withUnsafeMutableBytes { bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 12) }
    stop = eventfd(0, Int32(EFD_CLOEXEC))
    guard bound == 0, stop >= 0 else {
      close(descriptor)
      if stop >= 0 { close(stop) }
      return nil
    }
    let end = dup(stop)
    let numbers = Set(ports.map(\.number))
    startThread("orch-ports") {
      defer {
        close(descriptor)
        close(end)
      }
      if Self.waits(descriptor, end, numbers) { freed() }
    }
  }
  deinit {
    eventfd_write(stop, 1)
    close(stop)
  }

  /// false when it was stopped.
  private static func waits(_ descriptor: Int32, _ end: Int32, _ numbers: Set<UInt16>) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 8192)
    while true {
      var polled = [pollfd(fd: end, events: Int16(POLLIN), revents: 0), pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
      if poll(&polled, 2, -1) < 0 { continue }
      if polled[0].revents != 0 { return false }
      let count = recv(descriptor, &buffer, buffer.count, 0)
      // ENOBUFS: some were lost, perhaps the one that is waited for.
      if count < 0 {
        if errno == EINTR { continue }
        return true
      }
      // struct inet_diag_msg behind the header: the port is its fifth and sixth byte, in network order.
      if count >= 22, numbers.contains(UInt16(buffer[20]) << 8 | UInt16(buffer[21])) { return true }
    }
  }
}
