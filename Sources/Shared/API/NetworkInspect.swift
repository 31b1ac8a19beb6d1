import Model

public struct NetworkInspect: Codable, Hashable, Sendable {
  public struct ConfigFrom: Codable, Hashable, Sendable {
    public var network: String
    enum CodingKeys: String, CodingKey { case network = "Network" }
  }
  /// Containers of this host: an orchestrator answers for the cluster, so always empty.
  public struct Container: Codable, Hashable, Sendable {}

  public var name: String
  public var id: String
  public var created: Timestamp
  public var scope: String
  public var driver: String
  public var enableIPv6: Bool
  public var ipam: NetworkSpec.IPAM
  public var internalOnly: Bool
  public var attachable: Bool
  public var ingress: Bool
  public var configFrom: ConfigFrom
  public var configOnly: Bool
  public var containers: [String: Container]
  public var options: [String: String]
  public var labels: [String: String]

  public init(_ network: Network) {
    let spec = network.spec
    name = spec.name
    id = network.id.description
    created = network.createdAt
    scope = "swarm"
    driver = spec.driver ?? "overlay"
    enableIPv6 = spec.enableIPv6 ?? false
    var config = spec.ipam?.config ?? []
    if let subnet = network.subnet {
      config = [.init(subnet: subnet.description, gateway: spec.declared4?.gateway)]
      if let subnet6 = network.subnet6 { config.append(.init(subnet: subnet6.description, gateway: spec.declared6?.gateway)) }
    }
    ipam = .init(driver: spec.ipam?.driver ?? "default", config: config)
    internalOnly = spec.internalOnly ?? false
    attachable = spec.attachable ?? false
    ingress = spec.ingress ?? false
    configFrom = ConfigFrom(network: "")
    configOnly = false
    containers = [:]
    options = spec.options ?? [:]
    if let vni = network.vni { options["com.docker.network.driver.overlay.vxlanid_list"] = String(vni) }
    labels = spec.labels ?? [:]
  }

  /// Docker's `host`, `none` and `bridge`, which every host has: their id is their name.
  public init(predefined name: String) {
    var spec = NetworkSpec(name: name)
    spec.driver = name == Network.noneName ? "null" : name
    self.init(Network(id: NetworkID(value: 0), spec: spec, createdAt: .zero))
    (id, scope) = (name, "local")
  }

  enum CodingKeys: String, CodingKey {
    case name = "Name", id = "Id", created = "Created", scope = "Scope", driver = "Driver", enableIPv6 = "EnableIPv6", ipam = "IPAM"
    case internalOnly = "Internal", attachable = "Attachable", ingress = "Ingress", configFrom = "ConfigFrom", configOnly = "ConfigOnly"
    case containers = "Containers", options = "Options", labels = "Labels"
  }
}

public struct VolumeInspect: Codable, Hashable, Sendable {
  public var name: String
  public var driver: String
  public var mountpoint: String
  public var createdAt: Timestamp
  public var labels: [String: String]
  public var scope: String
  public var options: [String: String]
  public init(_ volume: Volume) {
    name = volume.name
    driver = volume.driver
    mountpoint = ""
    createdAt = volume.createdAt
    labels = volume.labels
    scope = "local"
    options = volume.driverOptions
  }
  enum CodingKeys: String, CodingKey {
    case name = "Name", driver = "Driver", mountpoint = "Mountpoint", createdAt = "CreatedAt", labels = "Labels", scope = "Scope"
    case options = "Options"
  }
}

public struct VolumeList: Codable, Hashable, Sendable {
  public var volumes: [VolumeInspect]
  public var warnings: [String]?
  public init(volumes: [VolumeInspect]) { self.volumes = volumes }
  enum CodingKeys: String, CodingKey { case volumes = "Volumes", warnings = "Warnings" }
}

/// What `POST /volumes/create` takes, and what a stack declares of a volume.
public struct VolumeSpec: Codable, Hashable, Sendable {
  public var name: String
  public var labels: [String: String]?
  public var driver: String?
  public var driverOptions: [String: String]?
  public init(name: String, labels: [String: String]? = nil, driver: String? = nil, driverOptions: [String: String]? = nil) {
    self.name = name
    self.labels = labels
    self.driver = driver
    self.driverOptions = driverOptions
  }
  enum CodingKeys: String, CodingKey { case name = "Name", labels = "Labels", driver = "Driver", driverOptions = "DriverOpts" }
}
