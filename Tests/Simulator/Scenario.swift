/// Everything that is chosen before a run begins, from its seed alone.
struct Scenario {
  var managers: Int
  var agents: Int
  var services: Int
  var clients: Int
  /// Phase one lasts this long; phase two at most `healingMax`.
  var faultsFor: Time
  static let healingMax: Time = .seconds(240)

  // Network, per message.
  var lossPermille: Int
  var doublePermille: Int
  var delayMax: Int
  var slowPermille: Int

  // Between two misfortunes, in milliseconds on average; nil: this kind does not happen.
  var misfortuneEvery: Int
  var misfortunes: [Misfortune]
  var operationEvery: Int

  // Managers.
  var tick: Int
  var inflightMessagesMax: Int
  var messageBytesMax: Int
  var uncommittedBytesMax: Int
  var cachedBytesMax: Int
  var snapshotEvery: UInt64
  var keptEntries: UInt64
  /// That rows of what is applied wait at most.
  var rowTicks: Int
  /// Rows that wait at most, and that come with one write.
  var rowsMax: Int
  var rowsSlice: Int
  var tellsCommitsLate: Bool
  var diskMicrosecondsMax: Int
  var usesLeases: Bool
  var ratePermille: Int
  var clockSkew: Int
  var ambushes: [Ambush] = []

  init(seed: UInt64) {
    var random = Random(seed: seed &* 0x2545_F491_4F6C_DD1D &+ 1)
    managers = random.pick([1, 3, 3, 3, 3, 3, 3, 5, 5, 5, 7])
    agents = random.chance(permille: 8) ? random.int(100...200) : random.chance(permille: 40) ? random.int(20...50) : random.int(2...8)
    services = random.int(1...5)
    clients = random.int(2...5)
    faultsFor = .seconds(agents > 60 ? 10 : random.int(12...30))
    lossPermille = random.pick([0, 0, 5, 20, 80])
    doublePermille = random.pick([0, 0, 10, 50])
    delayMax = random.pick([1_000, 5_000, 40_000])
    slowPermille = random.pick([0, 5, 50])
    misfortuneEvery = random.pick([400, 1_000, 3_000, 10_000])
    misfortunes = Misfortune.allCases.filter { _ in random.chance(permille: 600) }
    operationEvery = random.pick([150, 500, 1_500])
    tick = 50_000
    inflightMessagesMax = random.pick([1, 2, 4, 256])
    messageBytesMax = random.pick([100, 1_000, 1 << 20])
    uncommittedBytesMax = random.pick([2_000, 64 << 20])
    cachedBytesMax = random.pick([200, 16 << 20])
    snapshotEvery = UInt64(random.pick([20, 60, 300, 10_000]))
    keptEntries = UInt64(random.pick([2, 10, 500]))
    diskMicrosecondsMax = random.pick([300, 5_000, 80_000])
    // A lease trusts equal ticks: a process that stands still while others go on breaks it, as the Raft room says.
    usesLeases = !misfortunes.contains(.pauseManager) && random.chance(permille: 400)
    ratePermille = random.pick([0, 5, 20])
    clockSkew = random.pick([0, 200, 3_000])
    // Of a sequence of their own.
    var later = Random(seed: ~seed)
    rowTicks = later.pick([1, 10, 100])
    tellsCommitsLate = later.chance(permille: 700)
    rowsMax = later.pick([20, 4_000])
    rowsSlice = later.pick([1, 3, 10, 250])
    if managers == 1 { misfortunes.removeAll { $0 == .loseDisk || $0 == .corruptEntry } }
    guard managers > 1, agents < 60, random.chance(permille: 500) else { return }
    ambushes = Ambush.allCases.filter { _ in random.chance(permille: 600) }
    // One entry a message: leaders are cut off between two.
    if ambushes.contains(.shortReigns), random.chance(permille: 700) { messageBytesMax = 1 }
  }

  var summary: String {
    "\(managers) managers, \(agents) agents, \(services) services, \(clients) clients, \(faultsFor / 1_000_000) s of faults; loss \(lossPermille)‰, doubles \(doublePermille)‰, "
      + "delay to \(delayMax) us; a misfortune every \(misfortuneEvery) ms of \(misfortunes.map(\.rawValue).joined(separator: " ")); "
      + (ambushes.isEmpty ? "" : "ambushes: \(ambushes.map(\.rawValue).joined(separator: " ")); ")
      + "in flight \(inflightMessagesMax), message \(messageBytesMax) bytes, snapshot every \(snapshotEvery) keeping \(keptEntries), rows within \(rowTicks) ticks, \(rowsMax) at most, "
      + "\(rowsSlice) a write, commits told \(tellsCommitsLate ? "late" : "at once"), \(usesLeases ? "leases" : "quorum reads")"
  }
}

/// What may befall the world in phase one.
enum Misfortune: String, CaseIterable {
  case crashManager, pauseManager, partition, oneWayPartition, isolateLeader, clog
  case failFsync, fillDisk, loseDisk, corruptEntry, slowDisk
  case jumpClock
  case crashAgent, rebootHost, pauseAgent, partitionAgent, breakSession
  case exitContainer
}
