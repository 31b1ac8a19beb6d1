import API
import APIClient
import ArgumentParser
import Model

struct NetworkCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "network", abstract: "Networks between services: create, ls, inspect, rm.",
    discussion: """
      A stack makes its own networks. Others are for services of several stacks (external: true) and for orch run.

      Example: orch network create shared
      """, subcommands: [Create.self, List.self, Show.self, Remove.self])

  struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make a network; prints its id.",
      discussion: """
        Without --subnet it gets a subnet that neither another network nor a route of any host has. One that overlaps is refused, and what it
        overlaps is named.

        Example: orch network create shared
        Example: orch network create --subnet 10.77.0.0/16 --ip-range 10.77.8.0/21 --internal back
        --ipv6 gives it an IPv6 subnet beside: a /64 of the cluster's own, or the one that a second --subnet names.

        Example: orch network create --ipv6 --subnet 10.78.0.0/24 --subnet fd00:78::/64 both
        Example: orch network create --opt com.docker.network.driver.mtu=1400 small
        """)
    @OptionGroup var connection: Connection
    @Option(help: ArgumentHelp("Its addresses; once for each family.", valueName: "prefix/n")) var subnet: [String] = []
    @Option(help: ArgumentHelp("An address of the subnet that is given to nobody; once for each family.", valueName: "address")) var gateway:
      [String] = []
    @Flag(help: "IPv6 addresses beside the IPv4 ones.") var ipv6 = false
    @Option(name: .customLong("ip-range"), help: ArgumentHelp("The part of the subnet to give addresses from.", valueName: "a.b.c.d/n")) var range:
      String?
    @Option(name: .customLong("aux-address"), help: ArgumentHelp("An address that is given to nobody; repeatable.", valueName: "name=address"))
    var auxiliary: [String] = []
    @Flag(help: "No way out of it.") var `internal` = false
    @Flag(help: "Said to be for single containers, too (any network is).") var attachable = false
    @Option(help: ArgumentHelp("A label; repeatable.", valueName: "name=value")) var label: [String] = []
    @Option(
      name: [.customShort("o"), .customLong("opt")], help: ArgumentHelp("com.docker.network.driver.mtu=BYTES; repeatable.", valueName: "name=value"))
    var options: [String] = []
    @Argument(help: "Its name.") var name: String

    func run() async throws {
      var spec = NetworkSpec(name: name)
      spec.driver = "overlay"
      (spec.internalOnly, spec.attachable) = (self.internal, attachable)
      spec.labels = try edited(nil, add: label, remove: [], "--label")
      spec.options = try edited(nil, add: options, remove: [], "--opt")
      if ipv6 { spec.enableIPv6 = true }
      let reserved = try edited(nil, add: auxiliary, remove: [], "--aux-address")
      let configs = try [false, true].compactMap { isIPv6 in
        func one(_ texts: [String], _ option: String) throws -> String? {
          let own = texts.filter { $0.contains(":") == isIPv6 }
          guard own.count < 2 else { throw ValidationError("\(option) \(own[1]): a network has one of each family, and \(own[0]) is given, too") }
          return own.first
        }
        let own = (reserved ?? [:]).filter { $0.value.contains(":") == isIPv6 }
        let config = NetworkSpec.IPAM.Config(
          subnet: try one(subnet, "--subnet"), gateway: try one(gateway, "--gateway"), range: try one(range.map { [$0] } ?? [], "--ip-range"),
          auxiliary: own.isEmpty ? nil : own)
        return config == NetworkSpec.IPAM.Config(subnet: nil) ? nil : config
      }
      if !configs.isEmpty { spec.ipam = .init(config: configs) }
      Terminal.print(try await connection.client().post("/networks/create", [], spec, as: NetworkCreateResponse.self).id)
    }
  }

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List the networks.", discussion: "Example: orch network ls")
    @OptionGroup var connection: Connection
    @OptionGroup var list: ListOptions
    func run() async throws { try await listNetworks(connection, list) }
  }

  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "inspect", abstract: "Show networks as JSON.", discussion: "Example: orch network inspect shared")
    @OptionGroup var connection: Connection
    @Argument(help: "Names or ids.") var names: [String]
    @OptionGroup var shape: InspectShape
    func run() async throws { try await inspect(names, as: [.network], connection, shape) }
  }

  struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "rm", abstract: "Remove networks that no service uses.", discussion: "Example: orch network rm shared")
    @OptionGroup var connection: Connection
    @Argument(help: "Names or ids.") var names: [String]
    func run() async throws { try await removeEach(names, of: "networks", connection.client()) }
  }
}
