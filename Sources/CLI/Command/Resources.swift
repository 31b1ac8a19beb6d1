import API
import APIClient
import ArgumentParser
import Model
import NIOCore

struct Networks: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the networks.", discussion: "Example: orch networks")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions

  func run() async throws { try await listNetworks(connection, list) }
}

func listNetworks(_ connection: Connection, _ list: ListOptions) async throws {
  let networks = try await connection.client().get("/networks", as: [NetworkInspect].self)
  var table = Table([
    .init("ID", "NETWORK ID"), .init("Name", "NAME", flexible: true), .init("Driver", "DRIVER"), .init("Scope", "SCOPE"), .init("Subnet", "SUBNET"),
    .init("Internal", nil), .init("IPv6", nil), .init("Labels", nil), .init("CreatedAt", nil),
  ])
  for network in networks {
    table.add([
      list.short(network.id), network.name, network.driver, network.scope, (network.ipam.config ?? []).compactMap(\.subnet).joined(separator: ","),
      String(network.internalOnly),
      String(network.enableIPv6), network.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
      network.created.description,
    ])
  }
  list.show(table, ids: networks.map { list.short($0.id) })
}

/// One after the other, each named when it is gone; the first refusal ends it.
func removeEach(_ names: [String], of collection: String, _ client: APIClient, _ query: APIClient.Query = []) async throws {
  for name in names {
    try await client.call("DELETE", "/\(collection)/\(percentEncoded(name))", query)
    Terminal.print(name)
  }
}

struct Volumes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the volumes; --rm deletes some.",
    discussion: "A volume's data is on the hosts whose tasks mount it.\n\nExample: orch volumes\nExample: orch volumes --rm web_data")
  @OptionGroup var connection: Connection
  @Option(name: .customLong("rm"), help: ArgumentHelp("Delete a volume and its data on every host; repeatable.", valueName: "name")) var remove:
    [String] = []
  @OptionGroup var list: ListOptions

  func run() async throws {
    let client = try connection.client()
    if !remove.isEmpty { return try await removeEach(remove, of: "volumes", client) }
    let volumes = try await client.get("/volumes", as: VolumeList.self).volumes
    var table = Table([
      .init("Driver", "DRIVER"), .init("Name", "VOLUME NAME", flexible: true), .init("Labels", nil), .init("Mountpoint", nil), .init("Scope", nil),
    ])
    for volume in volumes {
      table.add([
        volume.driver, volume.name, volume.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
        volume.mountpoint,
        volume.scope,
      ])
    }
    list.show(table, ids: volumes.map(\.name))
  }
}
