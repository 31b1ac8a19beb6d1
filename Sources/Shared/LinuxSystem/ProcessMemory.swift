import CLinux

/// What this process holds of memory without using it. Figures: docs/benchmarks.md, "The runtime".
public enum ProcessMemory {
  /// At the beginning: glibc's malloc makes 8 arenas for each core, of which each keeps what its threads once needed (mallopt(3), M_ARENA_MAX).
  public static func bound(arenas: Int = 2) { clinux_memory_bound(Int32(arenas)) }

  /// For a moment without work: takes 1 to 3 ms. Free memory of malloc's goes back to the kernel (malloc_trim(3)); code and constants that only a
  /// start needs are unmapped (madvise(2), MADV_DONTNEED), and come back from the page cache, not from the disk, when they are used again.
  public static func release() { clinux_memory_release() }
}
