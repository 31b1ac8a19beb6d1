import CNFTables
import Glibc
import Synchronization

/// libnftables waits for its socket by select(2), which knows the descriptors below FD_SETSIZE (1024) alone; glibc ends the process that gives it
/// another (nftables src/mnl.c, mnl_batch_talk; select(2), BUGS). An agent of some hundred containers has more open, so numbers below are held for it.
enum LowDescriptors {
  /// Those that wait to be freed together, and some.
  private static let most = 96
  private static let end: Int32 = 1024
  private static let held = Mutex<[Int32]>([])

  /// Takes what is free; to be called before anything opens many. Others' numbers are never touched.
  static func hold() {
    held.withLock { held in
      guard held.count < most else { return }
      let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
      guard null >= 0 else { return }
      defer { close(null) }
      while held.count < most {
        let low = fcntl(null, F_DUPFD_CLOEXEC, 3)
        guard low >= 0 else { return }
        if low >= end {
          close(low)
          return
        }
        held.append(low)
      }
    }
  }

  /// A context whose socket has a low number; nil: there is no such number, or no context. One caller at a time.
  static func context() -> OpaquePointer? {
    for _ in 0..<16 {
      hold()
      guard let low = held.withLock({ $0.popLast() }) else { return nil }
      // The kernel gives the lowest free number: this one or one below, unless another thread is quicker.
      close(low)
      guard let context = nft_ctx_new(UInt32(NFT_CTX_DEFAULT)) else { return nil }
      if isNetfilter(low) || (fcntl(low, F_GETFD) < 0 && errno == EBADF) { return context }
      nft_ctx_free(context)
    }
    return nil
  }

  private static func isNetfilter(_ descriptor: Int32) -> Bool {
    var (family, netlink): (Int32, Int32) = (0, 0)
    var length = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &family, &length) == 0 && family == AF_NETLINK
      && getsockopt(descriptor, SOL_SOCKET, SO_PROTOCOL, &netlink, &length) == 0 && netlink == 12  // NETLINK_NETFILTER
  }
}
