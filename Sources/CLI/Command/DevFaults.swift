import ArgumentParser
import DevCluster

/// What can go wrong on a local cluster, on purpose.
extension Dev {
  /// Which part of a host is meant; neither: all of it.
  struct Daemons: ParsableArguments {
    @Flag(help: "Only its manager.") var manager = false
    @Flag(help: "Only its agent; its containers go on.") var agent = false

    var named: [DevDaemon] { (manager ? [.manager] : []) + (agent ? [.agent] : []) }
  }

  struct Kill: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Power loss of a host (kill -9 of all that is its, containers too), or kill -9 of one of its daemons")
    @OptionGroup var cluster: Cluster
    @Argument var host: String
    @OptionGroup var daemons: Daemons

    func run() async throws {
      let dev = try cluster.open()
      let host = try dev.host(host)
      for daemon in daemons.named { try dev.kill(daemon, on: host) }
      if daemons.named.isEmpty {
        guard dev.anchor(host) != nil else { throw DevError("host \(host.name) is off already") }
        try await dev.kill(host)
      }
    }
  }

  struct Pause: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Stop a host or one of its daemons in the middle of what it does (SIGSTOP); `orch dev resume` lets it go on")
    @OptionGroup var cluster: Cluster
    @Argument var host: String
    @OptionGroup var daemons: Daemons

    func run() throws {
      let dev = try cluster.open()
      let host = try dev.host(host)
      for daemon in daemons.named { try dev.pause(daemon, on: host) }
      if daemons.named.isEmpty { try dev.pause(host) }
    }
  }

  struct Resume: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Let everything go on that `orch dev pause` stopped on a host")
    @OptionGroup var cluster: Cluster
    @Argument var host: String

    func run() throws {
      let dev = try cluster.open()
      dev.resume(try dev.host(host))
    }
  }

  struct Partition: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Cut the network between two hosts; `orch dev heal` mends it")
    @OptionGroup var cluster: Cluster
    @Argument var a: String
    @Argument var b: String
    @Flag(help: "Only what A sends to B is lost.") var oneWay = false

    func run() async throws {
      let dev = try cluster.open()
      guard a != b else { throw ValidationError("a host can't be cut off from itself: name two") }
      try await dev.partition(dev.host(a), dev.host(b), oneWay: oneWay)
    }
  }

  struct Heal: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Undo every partition")
    @OptionGroup var cluster: Cluster
    func run() async throws { try await cluster.open().heal() }
  }

  struct Fill: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Fill the disk of a host's manager (`orch dev up --manager-disk 64M`), or give the room back",
      discussion: "Example: orch dev fill host2; orch managers; orch dev fill host2 --free")
    @OptionGroup var cluster: Cluster
    @Argument var host: String
    @Flag(help: "Give the room back.") var free = false

    func run() throws {
      let dev = try cluster.open()
      let host = try dev.host(host)
      if free { try dev.free(host) } else { try dev.fill(host) }
    }
  }
}
