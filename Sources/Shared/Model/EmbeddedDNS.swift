/// Where a container's names are answered (moby's embedded DNS server has the same address).
public enum EmbeddedDNS {
  /// In its /etc/resolv.conf; asked at port 53.
  public static let address = IPv4Address("127.0.0.11")!
  /// Where the resolver really is: programs of the container may have port 53 of every address, as servers of names do. No port that the kernel chooses
  /// for a client by default (ip_local_port_range ends at 60999).
  public static let port: UInt16 = 61_053
}
