/// The hash FNV-1a of 64 bits (RFC 9923): the same in every process and build, and against accidents alone: whoever chooses the bytes chooses it.
public enum FNV1a {
  @inlinable
  public static func hash(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 } }
}
