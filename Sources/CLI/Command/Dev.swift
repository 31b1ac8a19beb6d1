import ArgumentParser
import DevCluster
import Foundation

/// `orch dev`: a cluster on this machine. Each host is a network namespace with the real daemons in it.
struct Dev: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "A cluster of several hosts on this machine, for trying and testing (root)",
    discussion: """
      Each host is a network namespace with its own mounts, hostname, data folder and cgroup, joined to the others by a bridge.
      Nothing else of the machine is touched. Example:
        orch dev up && eval "$(orch dev env)" && orch nodes
      """,
    subcommands: [
      Up.self, Env.self, Hosts.self, Status.self, Exec.self, Kill.self, Start.self, Pause.self, Resume.self, Partition.self, Heal.self, Fill.self,
      Down.self,
    ])

  struct Cluster: ParsableArguments {
    @Option(name: .customLong("cluster"), help: "Name of the local cluster: 1 to 8 letters a-z and digits.")
    var name = ProcessInfo.processInfo.environment["ORCH_DEV_CLUSTER"] ?? "dev"

    func open() throws -> DevCluster {
      guard geteuid() == 0 else { throw DevError("orch dev needs root: it makes network namespaces and cgroups") }
      return try DevCluster(name: name, binaries: .beside("/proc/self/exe"))
    }
  }

  struct Up: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Start hosts, managers and agents, joined by real tokens")
    @OptionGroup var cluster: Cluster
    @Option(help: "How many hosts (1-\(DevRecord.maximumHosts)).") var hosts = 3
    @Option(help: "How many of the first hosts are managers (1-7). Default: three, or all when there are fewer.") var managers: Int?
    @Option(name: .customLong("insecure-registry"), help: "HOST:PORT of a registry that the agents may reach without TLS.")
    var insecureRegistries: [String] = []
    @Option(name: .customLong("manager-disk"), help: "Give each manager a disk of its own (a tmpfs) of this size, such as 64M, for `orch dev fill`.")
    var managerDisk: String?

    func validate() throws {
      guard (1...DevRecord.maximumHosts).contains(hosts) else { throw ValidationError("--hosts takes 1 to \(DevRecord.maximumHosts)") }
      if let managers, !(1...min(7, hosts)).contains(managers) { throw ValidationError("--managers takes 1 to \(min(7, hosts))") }
      if let managerDisk, managerDisk.wholeMatch(of: /[1-9][0-9]*[KkMmGg]/) == nil {
        throw ValidationError("--manager-disk takes a size such as 64M")
      }
    }

    func run() async throws {
      let dev = try cluster.open()
      guard !dev.exists else {
        let names = (try? dev.record().hosts.map(\.name).joined(separator: ", ")) ?? "?"
        throw DevError("the local cluster '\(cluster.name)' is already up (\(names)): `orch dev down` removes it, --cluster NAME starts another")
      }
      let began = ContinuousClock.now
      var record = DevRecord(hosts: hosts, managers: managers ?? min(3, hosts))
      (record.insecureRegistries, record.managerDisk) = (insecureRegistries, managerDisk)
      do {
        try await DevBoot(dev: dev, record: record).run()
      } catch {
        // What is half up says why in its logs; the namespaces go.
        // All managers': one that waits for the others cannot say why.
        let logs = record.hosts.filter(\.isManager).map { dev.layout.log($0, .manager) }.filter { FileManager.default.fileExists(atPath: $0) }
        for log in logs {
          let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
          FileHandle.standardError.write(Data("--- last lines of \(log)\n\(text.split(separator: "\n").suffix(20).joined(separator: "\n"))\n".utf8))
        }
        try? await dev.down()
        throw error
      }
      let seconds = (ContinuousClock.now - began) / .seconds(1)
      Terminal.print(
        "\(hosts) hosts up in \(String(format: "%.1f", seconds)) s. Now: eval \"$(orch dev env\(cluster.name == "dev" ? "" : " --cluster \(cluster.name)"))\""
      )
    }
  }

  struct Env: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print what points orch and docker at a manager: eval \"$(orch dev env)\"")
    @OptionGroup var cluster: Cluster
    @Option(help: "A manager's host; default: the first that is up.") var host: String?

    func run() throws {
      let dev = try cluster.open()
      let managers = try dev.record().hosts.filter(\.isManager)
      let chosen: DevHost
      if let host {
        chosen = try dev.host(host)
        guard chosen.isManager else {
          throw DevError("\(host) has no manager; the managers are \(managers.map(\.name).joined(separator: ", "))")
        }
      } else {
        chosen = managers.first { dev.pid(of: .manager, on: $0) != nil } ?? managers[0]
      }
      let socket = "unix://\(dev.layout.socket(chosen))"
      Terminal.print("export ORCH_HOST=\(socket) DOCKER_HOST=\(socket)")
    }
  }

  struct Hosts: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the hosts")
    @OptionGroup var cluster: Cluster
    @Flag(name: .shortAndLong, help: "Names only.") var quiet = false
    @Option(help: "table or json") var format = "table"

    func run() throws {
      let dev = try cluster.open()
      for host in try dev.record().hosts {
        let manager = host.isManager ? (dev.pid(of: .manager, on: host).map { "\($0)" } ?? "-") : ""
        let agent = dev.pid(of: .agent, on: host).map { "\($0)" } ?? "-"
        let state = dev.anchor(host) == nil ? "off" : dev.isPaused(host) ? "paused" : "on"
        if quiet {
          Terminal.print(host.name)
        } else if format == "json" {
          Terminal.print(
            "{\"Name\":\"\(host.name)\",\"Address\":\"\(host.address)\",\"State\":\"\(state)\",\"Manager\":\"\(manager)\",\"Agent\":\"\(agent)\"}")
        } else {
          func pad(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(1, width - text.count)) }
          if host == (try dev.record().hosts.first) {
            Terminal.print(pad("HOST", 10) + pad("ADDRESS", 17) + pad("STATE", 7) + pad("MANAGER", 9) + "AGENT")
          }
          Terminal.print(pad(host.name, 10) + pad(host.address, 17) + pad(state, 7) + pad(manager, 9) + agent)
        }
      }
    }
  }

  struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Succeed when the local cluster is up")
    @OptionGroup var cluster: Cluster
    func run() throws {
      let record = try cluster.open().record()
      Terminal.print("up: \(record.hosts.count) hosts, \(record.hosts.count(where: \.isManager)) managers")
    }
  }

  struct Exec: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Run a command on a host", discussion: "Example: orch dev exec host2 ip addr. Ends with the command's exit code.")
    @OptionGroup var cluster: Cluster
    @Argument var host: String
    @Argument(parsing: .captureForPassthrough) var command: [String]

    func run() throws {
      let dev = try cluster.open()
      let host = try dev.host(host)
      guard let anchor = dev.anchor(host) else { throw DevError("host \(host.name) is off: `orch dev start \(host.name)`") }
      let command = command.first == "--" ? Array(command.dropFirst()) : command
      guard !command.isEmpty else { throw ValidationError("a command is missing: orch dev exec \(host.name) ip addr") }
      let arguments = ["nsenter", "-t", "\(anchor)", "-m", "-u", "-n", "--"] + command
      var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
      execvp("nsenter", &pointers)
      throw DevError("nsenter: \(String(cString: strerror(errno)))")
    }
  }

  struct Start: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Start a host that is off, or the daemons of a host that do not run")
    @OptionGroup var cluster: Cluster
    @Argument var host: String

    func run() async throws {
      let dev = try cluster.open()
      let host = try dev.host(host)
      try await dev.boot(host)
      if host.isManager, dev.pid(of: .manager, on: host) == nil { try await dev.start(.manager, ["run"], on: host) }
      if dev.pid(of: .agent, on: host) == nil {
        try await dev.start(.agent, DevBoot.agentArguments(["run"], host, dev.layout, try dev.record().insecureRegistries), on: host)
      }
    }
  }

  struct Down: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Remove every trace of the local cluster, also after a crash")
    @OptionGroup var cluster: Cluster
    func run() async throws { try await cluster.open().down() }
  }
}
