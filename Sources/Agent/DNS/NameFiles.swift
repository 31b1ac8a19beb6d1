import Model

/// What a container reads as /etc/hosts, /etc/resolv.conf and /etc/hostname; as docker writes them (moby daemon/libnetwork etchosts, resolvconf).
public struct NameFiles: Hashable, Sendable {
  public var hosts: String
  public var resolv: String
  public var hostname: String

  public enum Network: Hashable, Sendable {
    /// Its own addresses, in the order of its interfaces; names are asked at 127.0.0.11.
    case overlay([IPAddress])
    /// A way out of the host and no network: its own address there; names are asked at 127.0.0.11, and sought in the domains of the host's file.
    case bridge(IPAddress?, resolv: String)
    /// The host's, with the host's own files.
    case host(hosts: String, resolv: String)
    case none
  }

  init(hosts: String, resolv: String, hostname: String) {
    self.hosts = hosts
    self.resolv = resolv
    self.hostname = hostname
  }

  public init(_ spec: ContainerSpec, hostname: String, on network: Network) {
    self.hostname = hostname + "\n"
    let own = spec.dnsConfig
    let servers = own?.nameservers ?? []
    // "." alone: no domain is searched.
    let search = own?.search?.filter { $0 != "." }
    func lines(_ servers: [String], _ search: [String], _ options: [String]) -> String {
      (search.isEmpty ? "" : "search \(search.joined(separator: " "))\n") + servers.map { "nameserver \($0)\n" }.joined()
        + (options.isEmpty ? "" : "options \(options.joined(separator: " "))\n")
    }
    let localhost = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    let extra = (spec.hosts ?? []).map { $0.replacing(" ", with: "\t") + "\n" }.joined()
    func listing(_ addresses: [IPAddress]) -> String {
      // The first name is the canonical one: what `hostname -f` says.
      let names = ([spec.fullHostname(hostname)] + [hostname]).compactMap { $0 }.joined(separator: " ")
      return localhost + extra + addresses.map { "\($0)\t\(names)\n" }.joined()
    }
    func asking(_ search: [String]) -> String { lines(["\(EmbeddedDNS.address)"], search, ["ndots:0"] + (own?.options ?? [])) }
    switch network {
    case .overlay(let addresses):
      hosts = listing(addresses)
      resolv = asking(search ?? [])
    case .bridge(let address, let resolv):
      hosts = listing([address].compactMap { $0 })
      // The last such line counts (resolv.conf(5)).
      let domains = resolv.split(whereSeparator: \.isNewline).last { ["search", "domain"].contains($0.split(whereSeparator: \.isWhitespace).first) }
      self.resolv = asking(search ?? domains?.split(whereSeparator: \.isWhitespace).dropFirst().map(String.init) ?? [])
    case .host(let hosts, let resolv):
      self.hosts = hosts + (hosts.isEmpty || hosts.hasSuffix("\n") ? "" : "\n") + extra
      // Each kind of line that the task has for itself takes the place of the host's.
      var replaced: Set<Substring> = []
      if !servers.isEmpty { replaced.insert("nameserver") }
      if own?.search?.isEmpty == false { replaced.formUnion(["search", "domain"]) }
      if own?.options?.isEmpty == false { replaced.insert("options") }
      let kept = resolv.split(whereSeparator: \.isNewline).filter { line in
        line.split(whereSeparator: \.isWhitespace).first.map { !replaced.contains($0) } ?? true
      }
      self.resolv = kept.map { $0 + "\n" }.joined() + lines(servers, search ?? [], own?.options ?? [])
    case .none:
      hosts = localhost + extra
      resolv = lines(servers, search ?? [], own?.options ?? [])
    }
  }
}

extension ContainerSpec {
  /// With its domain; nil when it has none.
  public func fullHostname(_ hostname: String) -> String? {
    domainname.flatMap { $0.isEmpty ? nil : "\(hostname).\($0)" }
  }
}
