import Glibc

/// The descriptors that this process was started with. What it opens itself (a container's folder, the log) must never be taken for one of them:
/// it would be handed into the container (as in CVE-2024-21626).
enum Inherited {
  static let limit = 1024
  // Set once, before anything is opened.
  nonisolated(unsafe) private static var open: Set<Int32> = []

  /// First of all in `main`, where descriptors are to be kept.
  static func remember() {
    open = Set((3..<Int32(3 + limit)).filter { fcntl($0, F_GETFD) >= 0 })
  }
  /// Those from 3 on, `count` of them; nil where none was open.
  static func descriptors(_ count: Int) -> [Int32?] { (3..<Int32(3 + min(max(count, 0), limit))).map { open.contains($0) ? $0 : nil } }
}
