extension Duration {
  /// Whole ones; traps above 292 years.
  public var nanoseconds: Int64 { components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000 }
}
