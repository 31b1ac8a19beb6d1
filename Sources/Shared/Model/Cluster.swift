/// The cluster itself: one row.
public struct Cluster: Hashable, Sendable, Codable {
  public var id: ClusterID
  public var createdAt: Timestamp
  /// Out of this pool every overlay network without a subnet of its own gets one of `subnetLength` (AddressPool).
  public var addressPool: IPv4Prefix
  public var subnetLength: UInt8
  /// UDP port of VXLAN on every host.
  public var dataPathPort: UInt16
  /// How many tasks of a slot are remembered after their end.
  public var taskHistory: Int
  /// PEM; needed by every manager to issue certificates. Sealed before it is stored (Identity).
  public var certificateAuthority: String
  public var sealedKey: [UInt8]
  /// Seals the secrets, and is itself sealed as the CA's key is. nil: made before there were secrets.
  public var sealedDataKey: [UInt8]?
  public var workerToken: String
  public var managerToken: String
  public var version: UInt64

  public init(id: ClusterID, createdAt: Timestamp) {
    self.id = id
    self.createdAt = createdAt
    self.addressPool = IPv4Prefix("10.0.0.0/8")!
    self.subnetLength = 24
    self.dataPathPort = 4789
    self.taskHistory = 5
    self.certificateAuthority = ""
    self.sealedKey = []
    self.workerToken = ""
    self.managerToken = ""
    self.version = 0
  }
}

/// Networks in the shape of Docker's NetworkCreateRequest.
public struct NetworkSpec: Hashable, Sendable, Codable {
  public var name: String
  public var labels: [String: String]?
  public var driver: String?
  public var internalOnly: Bool?
  public var attachable: Bool?
  public var ingress: Bool?
  public var enableIPv6: Bool?
  public var ipam: IPAM?
  public var options: [String: String]?

  public init(name: String) { self.name = name }

  /// By which published ports come in, at hosts' addresses of both families.
  public static var publishing: Self {
    var spec = Self(name: Network.ingressName)
    (spec.driver, spec.ingress, spec.enableIPv6) = ("overlay", true, true)
    return spec
  }

  public struct IPAM: Hashable, Sendable, Codable {
    public var driver: String?
    public var config: [Config]?
    public init(driver: String? = nil, config: [Config]?) {
      self.driver = driver
      self.config = config
    }
    public struct Config: Hashable, Sendable, Codable {
      public var subnet: String?
      /// Left to the user: containers go out by ingress or by their uplink, which is their host's own matter.
      public var gateway: String?
      /// The part of the subnet that addresses are given from; nil: all of it.
      public var range: String?
      /// Never given; the names mean nothing.
      public var auxiliary: [String: String]?
      public init(subnet: String?, gateway: String? = nil, range: String? = nil, auxiliary: [String: String]? = nil) {
        self.subnet = subnet
        self.gateway = gateway
        self.range = range
        self.auxiliary = auxiliary
      }
      /// Of IPv6, by what is written in it.
      public var isIPv6: Bool { ([subnet, gateway, range] + (auxiliary ?? [:]).values.map { $0 }).contains { $0?.contains(":") == true } }
      enum CodingKeys: String, CodingKey { case subnet = "Subnet", gateway = "Gateway", range = "IPRange", auxiliary = "AuxiliaryAddresses" }
    }
    enum CodingKeys: String, CodingKey { case driver = "Driver", config = "Config" }
  }

  /// What is declared of its IPv4 subnet; nil: nothing, or its IPv6 subnet alone.
  public var declared4: IPAM.Config? { ipam?.config?.first { !$0.isIPv6 } }
  public var declared6: IPAM.Config? { ipam?.config?.first { $0.isIPv6 } }

  /// Docker's options of overlay networks.
  public static let mtuOption = "com.docker.network.driver.mtu"
  public static let encryptedOption = "encrypted"
  /// A word on an option that is not carried out; nil: it is.
  public static func refusal(of option: String) -> String? {
    switch option {
    case mtuOption: nil
    case encryptedOption:
      "orch does not encrypt networks yet: leave out the option encrypted; until then use TLS between the services, or give the hosts' agents an "
        + "--advertise-addr on an encrypted link (WireGuard)"
    default: "the option \(option) is not known: orch's overlays have \(mtuOption) only; leave it out"
    }
  }
  /// What the user asked for; nil: as the hosts' links allow.
  public var mtu: Int? { options?[Self.mtuOption].flatMap { Int($0) } }
  /// What VXLAN over IPv4 adds to a packet: Ethernet 14, VXLAN 8, UDP 8, IP 20 bytes (RFC 7348 5).
  public static let tunnelOverhead = 50
  /// Of a host's link that does not tell.
  public static let linkMTU = 1500
  enum CodingKeys: String, CodingKey {
    case name = "Name", labels = "Labels", driver = "Driver", internalOnly = "Internal", attachable = "Attachable", ingress = "Ingress"
    case enableIPv6 = "EnableIPv6", ipam = "IPAM", options = "Options"
  }
}

public struct Network: Hashable, Sendable, Codable {
  public var id: NetworkID
  public var spec: NetworkSpec
  /// What the allocator gave; nil until then.
  public var vni: UInt32?
  public var subnet: IPv4Prefix?
  /// Of a network with both families: who has the n-th address of `subnet` has the n-th of this, too.
  public var subnet6: IPv6Prefix?
  public var createdAt: Timestamp
  public var version: UInt64

  public init(id: NetworkID, spec: NetworkSpec, createdAt: Timestamp) {
    self.id = id
    self.spec = spec
    self.vni = nil
    self.subnet = nil
    self.createdAt = createdAt
    self.version = 0
  }

  /// It was made while a manager that knows no IPv6 led.
  public var lacksSubnet6: Bool { spec.enableIPv6 == true && subnet6 == nil }

  /// What stands beside an IPv4 address of this network; nil: it has IPv4 alone.
  public func counterpart(of address: IPv4Address) -> IPv6Address? {
    subnet.flatMap { subnet in subnet6.map { $0.counterpart(of: address, in: subnet) } }
  }
  /// As Docker shows an address, with its subnet's length: "10.0.1.2/24"; the IPv6 one behind it.
  public func shown(_ address: IPv4Address) -> [String] {
    ["\(address)/\(subnet?.length ?? 24)"] + (counterpart(of: address).map { ["\($0)/\(subnet6?.length ?? 64)"] } ?? [])
  }

  public var name: String { spec.name }
  public static let ingressName = "ingress"
  /// Docker's names for the host's own network, for none, and for a way out of the host without a network, which no other network may have.
  public static let hostName = "host"
  public static let noneName = "none"
  public static let bridgeName = "bridge"
  public static let predefinedNames: Set = [hostName, noneName, bridgeName]
}

/// A named volume; its data lives on the hosts whose tasks mount it.
public struct Volume: Hashable, Sendable, Codable {
  /// Unique; `stack_volume` for a volume of a stack.
  public var name: String
  public var labels: [String: String]
  public var driver: String
  public var driverOptions: [String: String]
  public var createdAt: Timestamp
  public var version: UInt64
  public init(name: String, labels: [String: String] = [:], driver: String = "local", driverOptions: [String: String] = [:], createdAt: Timestamp) {
    self.name = name
    self.labels = labels
    self.driver = driver
    self.driverOptions = driverOptions
    self.createdAt = createdAt
    self.version = 0
  }
}

/// What one manifest declared, numbered; a deploy is one Raft entry.
public struct Stack: Hashable, Sendable, Codable {
  public var name: String
  public var revision: UInt64
  public var manifest: String
  public var services: [ServiceID: UInt64]
  public var networks: [NetworkID]
  public var volumes: [String]
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var version: UInt64
  public init(name: String, createdAt: Timestamp) {
    self.name = name
    self.revision = 0
    self.manifest = ""
    self.services = [:]
    self.networks = []
    self.volumes = []
    self.createdAt = createdAt
    self.updatedAt = createdAt
    self.version = 0
  }
}
