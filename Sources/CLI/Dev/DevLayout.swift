/// Where everything of a local cluster is, from its name alone.
public struct DevLayout: Sendable {
  public let name: String

  /// 1 to 8 of a-z and 0-9: the name goes into names of namespaces, cgroups and folders.
  public init(name: String) throws {
    guard (1...8).contains(name.utf8.count), name.utf8.allSatisfy({ (97...122).contains($0) || (48...57).contains($0) }) else {
      throw DevError("a local cluster's name has 1 to 8 letters a-z and digits, not '\(name)'")
    }
    self.name = name
  }

  public var folder: String { "/var/lib/orch/dev/\(name)" }
  public var runFolder: String { "/run/orch/dev/\(name)" }
  public var record: String { "\(folder)/cluster.json" }
  public var namespacePrefix: String { "orch-\(name)-" }
  public var switchNamespace: String { "\(namespacePrefix)switch" }
  public func namespace(_ host: DevHost) -> String { namespacePrefix + host.name }
  public func data(_ host: DevHost) -> String { "\(folder)/\(host.name)/lib" }
  public func logs(_ host: DevHost) -> String { "\(folder)/\(host.name)/log" }
  public func log(_ host: DevHost, _ daemon: DevDaemon) -> String { "\(logs(host))/\(daemon.program).log" }
  public func run(_ host: DevHost) -> String { "\(runFolder)/\(host.name)" }
  public func socket(_ host: DevHost) -> String { "\(run(host))/orch.sock" }
  func anchorFile(_ host: DevHost) -> String { "\(run(host))/anchor.pid" }
  func pidFile(_ host: DevHost, _ daemon: DevDaemon) -> String { "\(run(host))/\(daemon.program).pid" }
  /// Where the manager on the host keeps everything, as the machine sees it and as the host does.
  func managerData(_ host: DevHost) -> String { "\(data(host))/manager" }
  static let managerData = "/var/lib/orch/manager"
  var disksFile: String { "\(runFolder)/disks.pid" }
  var disksCgroup: String { "\(cgroupRoot)/disks" }
  public var cgroupRoot: String { "orch-dev-\(name)" }
  public func cgroup(_ host: DevHost) -> String { "\(cgroupRoot)/\(host.name)" }
  /// What the agent gets as --cgroup-parent.
  public func containerCgroup(_ host: DevHost) -> String { "\(cgroup(host))/containers" }
  /// v2 allows processes in leaves only: the daemons get one of their own.
  func daemonCgroup(_ host: DevHost) -> String { "\(cgroup(host))/daemons" }
}

public struct DevHost: Codable, Hashable, Sendable {
  public var name: String
  public var address: String
  public var isManager: Bool
  public init(number: Int, isManager: Bool) {
    name = "host\(number)"
    address = "192.168.77.\(number)"
    self.isManager = isManager
  }
}

public struct DevRecord: Codable, Sendable {
  public var hosts: [DevHost]
  public var insecureRegistries: [String] = []
  /// Of the disk that each manager has for itself, as mount(8) takes it ("64M"); nil: a folder of the machine's.
  public var managerDisk: String?
  public init(hosts: Int, managers: Int) { self.hosts = (1...hosts).map { DevHost(number: $0, isManager: $0 <= managers) } }
  public static let maximumHosts = 200
}
