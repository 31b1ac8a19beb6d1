import AgentImage
import ArgumentParser
import Foundation
import Identity
import Logging
import Model
import RegistryLogin
import Runtime
import Telemetry
import Transport
import Wire

/// orch-agent: runs a host's tasks. Parse, assemble, run.
@main
struct OrchAgent: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "orch-agent", abstract: "Runs the containers of this host for an orch cluster",
    discussion: """
      Example, with the token that `orch join-token worker` prints on a manager:
        orch-agent join --token ORCHTKN-1-… 10.0.0.1:2377
      """, version: Version.text, subcommands: [Join.self, Run.self])

  struct Options: ParsableArguments {
    @Option(help: "Folder of the node's identity, images, volumes and containers.") var stateDir = "/var/lib/orch/agent"
    @Option(help: "Folder on tmpfs for what does not outlive a boot.") var runDir = "/run/orch/agent"
    @Option(help: "This host's IPv4 address as the other hosts reach it; default: the one that leads to the manager.")
    var advertiseAddr: String?
    @Option(
      help: ArgumentHelp(
        "Addresses of containers' ways out of this host, which nobody outside sees; default: a private /20 that no route of this host has.",
        valueName: "CIDR"))
    var uplinkSubnet: String?
    @Flag(
      help: "Frames between containers always pass the host's bridges, more slowly, where its own rules (br_netfilter) and tcpdump see them.")
    var bridgeFrames = false
    @Option(help: "Below this cgroup containers get theirs.") var cgroupParent = RuntimeConfiguration.firstParent
    @Option(
      help:
        "So many processes of each of two kinds wait with namespaces and cgroup for the next containers (at most 32); 0: every start makes its own.")
    var stubs = 2
    @Option(name: .customLong("insecure-registry"), help: "HOST:PORT of a registry that speaks plain HTTP.") var insecureRegistries: [String] = []
    @Option(
      name: .customLong("registry-mirror"),
      help: ArgumentHelp(
        "Asked before the registry HOST, for pulls; repeatable. URL: https://MIRROR[:PORT][/PATH], or http://.", valueName: "HOST=URL"))
    var registryMirrors: [String] = []
    @Option(help: "docker's or podman's file with this host's credentials for images of tasks and for mirrors; default: where a login puts them.")
    var registryConfig: String?
    @Option(help: "Percent of the disk that may be used before unused images that can be pulled again are removed; 100: never.")
    var imageHighWater = 85
    @Option(help: "Percent of the disk to come down to then.") var imageLowWater = 80
    @Option(help: "Folder of this host's manager, if it has one: both are one node then.") var managerStateDir = "/var/lib/orch/manager"
    @Option(
      name: .customLong("metrics-addr"),
      help: ArgumentHelp("Answer Prometheus at http://ADDRESS:PORT/metrics, whoever asks; default: nobody listens.", valueName: "ADDRESS:PORT"))
    var metricsAddress: String?
    @Option(help: "trace, debug, info, notice, warning or error; also ORCH_LOG.") var logLevel: String?

    func validate() throws {
      if let uplinkSubnet, (IPv4Prefix(uplinkSubnet)?.length).map({ (8...29).contains($0) }) != true {
        throw ValidationError("--uplink-subnet is an IPv4 subnet between /8 and /29, like 172.28.240.0/20")
      }
      guard (0...32).contains(stubs) else { throw ValidationError("--stubs is 0 to 32") }
      guard (1...100).contains(imageHighWater), (0...imageHighWater).contains(imageLowWater) else {
        throw ValidationError("--image-high-water is 1 to 100, and --image-low-water at most as much")
      }
      for mirror in registryMirrors where !mirror.contains("=") || !mirror.contains("://") {
        throw ValidationError("--registry-mirror takes HOST=URL, such as docker.io=https://mirror.example, not '\(mirror)'")
      }
    }

    func images() -> ImageStoreConfiguration {
      var images = ImageStoreConfiguration()
      images.proxies = ProxySettings(environment: ProcessInfo.processInfo.environment)
      images.insecureRegistries = Set(insecureRegistries)
      for mirror in registryMirrors {
        let parts = mirror.split(separator: "=", maxSplits: 1).map(String.init)
        images.mirrors[parts[0], default: []].append(parts[1])
      }
      let environment = ProcessInfo.processInfo.environment
      // A service of systemd has no HOME.
      images.credentialsFiles = registryConfig.map { [$0] } ?? CredentialsFile.paths { environment[$0] ?? ($0 == "HOME" ? "/root" : nil) }
      (images.highWater, images.lowWater) = (imageHighWater, imageLowWater)
      return images
    }

    func address() throws -> IPv4Address? {
      guard let advertiseAddr else { return nil }
      guard let address = IPv4Address(advertiseAddr) else { throw ValidationError("--advertise-addr takes an IPv4 address, not '\(advertiseAddr)'") }
      return address
    }
  }

  struct Join: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Join a cluster with a token, then run")
    @OptionGroup var options: Options
    @Option(help: "The token that `orch join-token worker` prints.") var token: String
    @Argument(help: "HOST:PORT of a manager.") var manager: String

    func run() async throws {
      try Telemetry.bootstrap(level: options.logLevel)
      let membership = Membership(folder: options.stateDir, managerFolder: options.managerStateDir)
      try await membership.join(token: JoinToken(parsing: token), manager: manager)
      try await AgentDaemon(options: options, membership: membership).run()
    }
  }

  struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run as the node that this host has joined as")
    @OptionGroup var options: Options
    @Option(name: .customLong("manager"), help: "HOST:PORT of a manager that this host does not know yet, as after a restore; remembered.")
    var managers: [String] = []

    func run() async throws {
      try Telemetry.bootstrap(level: options.logLevel)
      let membership = Membership(folder: options.stateDir, managerFolder: options.managerStateDir)
      if !managers.isEmpty {
        for manager in managers { _ = try Membership.address(manager) }
        try membership.remember(managers + membership.managers.filter { !managers.contains($0) })
      }
      try await AgentDaemon(options: options, membership: membership).run()
    }
  }
}

struct AgentError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
