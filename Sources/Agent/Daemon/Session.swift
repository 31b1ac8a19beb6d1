import Dispatch
import Foundation
import Identity
import LinuxSystem
import Logging
import Model
import NIOCore
import Transport
import Wire

/// Keeps a session with the leader: finds it, registers, carries messages both ways, and starts again when it is lost.
actor Session {
  let credentials: Credentials
  let membership: Membership
  private let router: Router
  private let agent: Agent
  let log: Logger
  private var stream: TransportStream?
  /// Of the stream, counted.
  private var number = 0
  private var outbox: [TaskReport] = []
  private var flushing = false
  /// What happened since the last heartbeat, and since memory was last given back.
  private var (isBusy, isUntidy) = (true, true)

  init(credentials: Credentials, membership: Membership, router: Router, agent: Agent, log: Logger) {
    self.credentials = credentials
    self.membership = membership
    self.router = router
    self.agent = agent
    self.log = log
  }

  /// Until cancelled. A manager that is not there costs 50 to 200 ms before the next is tried, later up to 1 s.
  func run() async {
    var candidates: [String] = []
    var (failures, refusals) = (0, 0)
    var lost = ""
    while !Task.isCancelled {
      if candidates.isEmpty {
        candidates = ((try? membership.managers) ?? []).shuffled()
        // The one that was just lost may not even refuse: last.
        if let place = candidates.firstIndex(of: lost) { candidates.swapAt(0, place) }
      }
      guard let address = candidates.popLast() else { return log.critical("no manager's address is known: join again") }
      lost = address
      let began = ContinuousClock.now
      var ended = began
      do {
        defer { ended = .now }
        try await hold(address)
      } catch let error as StreamError where error.code == .notLeader && !error.detail.isEmpty {
        // The leader's address: straight there.
        candidates.removeAll { $0 == error.detail }
        candidates.append(error.detail)
        failures += 1
        if failures < 4 { continue }
      } catch let error as StreamError where error.code == .permissionDenied {
        // The leader knows this node no more. Only a leader that was replaced without knowing could be wrong: so this is not for good.
        refusals += 1
        let pause = min(60, 4 << min(refusals, 4))
        log.error("the cluster refuses this node: \(error); its state folder is \(membership.folder); asking again in \(pause) s")
        try? await Task.sleep(for: .seconds(pause))
      } catch {
        log.debug("session with \(address): \(error)")
      }
      if ended - began > .seconds(2) {
        (failures, refusals) = (0, 0)
        candidates = []
      }
      failures += 1
      // An election takes about a second: quick at first, so that the new leader need not wait for this node.
      let delay = failures < 12 ? min(200, 50 << min(failures, 5)) : 1000
      try? await Task.sleep(for: .milliseconds(Int.random(in: delay / 2...delay)))
    }
  }

  private func hold(_ address: String) async throws {
    let manager = try Membership.address(address)
    let connection = try await TransportClient.connect(
      host: manager.host, port: manager.port, credentials: credentials, router: router, timeout: .seconds(1), log: log)
    defer { connection.close("the session ended") }
    let stream = try await connection.open(.session)
    var register = WireRegister()
    let description = await agent.description
    register.description_p = try ModelJSON.encode(description)
    register.underlay = await agent.underlay.rawValue
    var hello = WireAgentMessage()
    hello.register = register
    try await stream.send(hello)
    let heartbeats = Task {
      var beat = WireAgentMessage()
      beat.heartbeat = true
      while !Task.isCancelled {
        try await Task.sleep(for: .seconds(1))
        try await stream.send(beat)
        tidy()
      }
    }
    let renewal = Task { await keepRenewed(over: connection) }
    defer {
      heartbeats.cancel()
      renewal.cancel()
      self.stream = nil
    }
    var opened = false
    var assembly = AssignmentsAssembly()
    while let message = try await stream.receive(WireManagerMessage.self) {
      if !opened {
        opened = true
        log.info("session with the leader at \(address)")
        self.stream = stream
        number += 1
        outbox = []
        await agent.sessionOpened(number)
        // What was learned on the way here was told to nobody.
        if await agent.description != description { await agent.tellDescription() }
      }
      isBusy = true
      switch message.kind {
      case .assignments(let part): if let whole = try assembly.add(part) { await agent.assigned(whole) }
      case .managers(let managers): try membership.remember(managers.addresses)
      case nil: log.warning("a message of an unknown kind from the manager: upgrade this agent")
      }
    }
  }

  /// After a second without work: starts and bursts leave ten times of what is used.
  private func tidy() {
    // Takes malloc's locks and the kernel's: not on the cooperative pool.
    if isUntidy, !isBusy { startThread("orch-tidy") { ProcessMemory.release() } }
    (isBusy, isUntidy) = (false, isBusy)
  }

  /// Reports that come while one is being sent go together.
  func report(_ reports: [TaskReport]) async {
    outbox += reports
    isBusy = true
    guard !flushing else { return }
    flushing = true
    defer { flushing = false }
    while let stream, !outbox.isEmpty {
      do {
        var message = WireAgentMessage()
        message.reports = try WireReports.take(from: &outbox)
        try await stream.send(message)
      } catch {
        log.debug("reports of tasks were not sent: \(error)")
        stream.cancel()
        // The next session tells everything again; it may have begun, and left that here.
        if self.stream === stream { self.stream = nil }
      }
    }
  }

  /// What the leader waits for before it lets a task stop that others were sent to.
  /// - Parameter number: of the session that the sequence is of: this may be another by now.
  func applied(_ sequence: UInt64, of number: Int) async {
    guard number == self.number else { return }
    var message = WireAgentMessage()
    message.applied = sequence
    try? await stream?.send(message)
  }

  func describe(_ description: NodeDescription) async {
    guard let json = try? ModelJSON.encode(description) else { return }
    var message = WireAgentMessage()
    message.description_p = json
    try? await stream?.send(message)
  }

  func resync() async {
    var message = WireAgentMessage()
    message.resync = true
    try? await stream?.send(message)
  }
}
