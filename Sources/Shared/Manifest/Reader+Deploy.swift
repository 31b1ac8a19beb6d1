import Model

extension Reader {
  /// `deploy` and its older relatives at the service's top: `scale`, `restart`, `mem_limit`, `cpus`, `pids_limit`.
  func readDeploy(_ fields: inout Fields, _ spec: inout ServiceSpec) {
    let replicaRange = 0...Int64(Manifest.maximumReplicas)
    let scale = fields.take("scale")
    var replicas = scale.flatMap { integer($0, replicaRange) }
    var global = false
    var limit = ResourceRequirements.Limit()
    limit.memoryBytes = fields.take("mem_limit").flatMap { bytes($0, minimum: minimumMemory) }
    limit.nanoCPUs = fields.take("cpus").flatMap { nanoCPUs($0) }
    limit.pids = fields.take("pids_limit").flatMap { pids($0) }
    readCPU(&fields, &limit)
    var reservation: ResourceRequirements.Reservation?
    if let value = fields.take("mem_reservation") {
      reservation = .init()
      reservation?.memoryBytes = bytes(value)
    }
    let swap = fields.take("memswap_limit")
    spec.taskTemplate.restartPolicy = fields.take("restart").flatMap { restart($0) }

    if let value = fields.take("deploy"), var deploy = Fields(value, self) {
      if let mode = deploy.take("mode"), let name = text(mode) {
        switch name {
        case "replicated": break
        case "global": global = true
        case "replicated-job", "global-job": error(mode, "jobs are not supported yet", "use replicated or global")
        default: error(mode, "expected one of 'replicated', 'global', found \(mode.found)")
        }
      }
      if let value = deploy.take("replicas") {
        let count = integer(value, replicaRange)
        if let count, let replicas, count != replicas { error(value, "'replicas' is \(count), but 'scale' is \(replicas)", "keep one of them") }
        if count != nil, global { error(value, "a global service has no 'replicas'", "remove 'replicas', or use mode: replicated") }
        replicas = count ?? replicas
      } else if let scale, global {
        error(scale, "a global service has no 'scale'", "remove 'scale', or use mode: replicated")
      }
      if let labels = deploy.take("labels") { spec.labels = dictionary(labels) }
      spec.updateConfig = deploy.take("update_config").flatMap { update($0, [.pause, .continue, .rollback]) }
      spec.rollbackConfig = deploy.take("rollback_config").flatMap { update($0, [.pause, .continue]) }
      if let value = deploy.take("restart_policy") { spec.taskTemplate.restartPolicy = restartPolicy(value) }
      if let value = deploy.take("resources") { readResources(value, &limit, &reservation) }
      spec.taskTemplate.placement = deploy.take("placement").flatMap { placement($0) }
      if let mode = deploy.take("endpoint_mode").flatMap({ choice($0, [EndpointSpec.Mode.vip, .dnsrr]) }) {
        spec.endpointSpec = EndpointSpec(mode: mode)
      }
      deploy.finish(KeyRules.deploy)
    }
    spec.mode = global ? .globalMode : .replicated(UInt64(replicas ?? 1))
    let swapBytes = swap.flatMap { self.swap($0, limit.memoryBytes) }
    if limit != .init() || reservation != nil {
      spec.taskTemplate.resources = ResourceRequirements(limits: limit == .init() ? nil : limit, reservations: reservation)
      spec.taskTemplate.resources?.swapBytes = swapBytes
      if let most = limit.memoryBytes, let least = reservation?.memoryBytes, least > most {
        error(fields.value, "more memory is reserved than the limit allows", "lower reservations.memory or raise limits.memory")
      }
      if let most = limit.nanoCPUs, let least = reservation?.nanoCPUs, least > most {
        error(fields.value, "more CPU is reserved than the limit allows", "lower reservations.cpus or raise limits.cpus")
      }
    }
  }

  /// Older words for shares of CPUs, and which they are.
  private func readCPU(_ fields: inout Fields, _ limit: inout ResourceRequirements.Limit) {
    limit.cpuShares = fields.take("cpu_shares").flatMap { integer($0, 0...262_144) }.flatMap { $0 == 0 ? nil : max(2, $0) }
    if let value = fields.take("cpuset"), let list = nonEmpty(value, "CPUs such as 0-2,4") {
      if ResourceRequirements.isCPUList(list) {
        limit.cpuset = list
      } else {
        error(value, "'\(list)' is no list of CPUs", "write numbers and ranges such as 0-2,4")
      }
    }
    // Microseconds (sched-bwc.rst).
    let period = fields.take("cpu_period").flatMap { integer($0, 1000...1_000_000) } ?? 100_000
    if let value = fields.take("cpu_quota"), let quota = integer(value, -1...(.max / 1_000_000_000)), quota > 0 {
      limit.nanoCPUs = agree(value, quota * 1_000_000_000 / period, limit.nanoCPUs, "cpus")
    }
  }

  /// Memory and swap together, as Docker has it; -1: all the swap there is.
  private func swap(_ value: Value, _ memory: Int64?) -> Int64? {
    if text(value) == "-1" {
      if memory == nil { error(value, "'memswap_limit' goes with a limit of memory", "add 'mem_limit'") }
      return -1
    }
    guard let total = bytes(value), total > 0 else { return nil }
    guard let memory else {
      error(value, "'memswap_limit' goes with a limit of memory", "add 'mem_limit'")
      return nil
    }
    if total < memory { error(value, "'memswap_limit' is memory and swap together, and less than the limit of memory", "raise it, or remove it") }
    return total - memory
  }

  /// Docker's least limit of memory, 6 MiB.
  private var minimumMemory: Int64 { 6 << 20 }

  private func pids(_ value: Value) -> Int64? {
    guard let count = integer(value, -1...4_194_304) else { return nil }
    return count <= 0 ? nil : count
  }

  private func restart(_ value: Value) -> RestartPolicy? {
    guard let word = text(value) else { return nil }
    var policy = RestartPolicy()
    switch word {
    case "no": policy.condition = RestartPolicy.Condition.none
    case "always", "unless-stopped": policy.condition = .any
    case "on-failure": policy.condition = .onFailure
    default:
      guard word.hasPrefix("on-failure:"), let attempts = UInt64(word.dropFirst(11)) else {
        error(
          value, "expected one of 'no', 'always', 'on-failure', 'on-failure:COUNT', 'unless-stopped', found \(value.found)",
          word == "false" ? "write \"no\"" : "")
        return nil
      }
      policy.condition = .onFailure
      policy.maxAttempts = attempts
    }
    return policy
  }

  private func restartPolicy(_ value: Value) -> RestartPolicy? {
    guard var fields = Fields(value, self) else { return nil }
    var policy = RestartPolicy()
    policy.condition = fields.take("condition").flatMap { choice($0, [RestartPolicy.Condition.none, .onFailure, .any]) }
    policy.delay = fields.take("delay").flatMap { duration($0) }
    policy.maxAttempts = fields.take("max_attempts").flatMap { integer($0, 0...(.max)) }.map { UInt64($0) }
    policy.window = fields.take("window").flatMap { duration($0) }
    fields.finish()
    return policy
  }

  private func update(_ value: Value, _ actions: [UpdateConfig.FailureAction]) -> UpdateConfig? {
    guard var fields = Fields(value, self) else { return nil }
    var config = UpdateConfig()
    config.parallelism = fields.take("parallelism").flatMap { integer($0, 0...Int64(Manifest.maximumReplicas)) }.map { UInt64($0) }
    config.delay = fields.take("delay").flatMap { duration($0) }
    config.failureAction = fields.take("failure_action").flatMap { choice($0, actions) }
    config.monitor = fields.take("monitor").flatMap { duration($0) }
    config.order = fields.take("order").flatMap { choice($0, [UpdateConfig.Order.stopFirst, .startFirst]) }
    if let ratio = fields.take("max_failure_ratio") {
      if let text = text(ratio, "a number from 0 to 1"), isNumber(text), let number = Double(text), (0...1).contains(number) {
        config.maxFailureRatio = number
      } else {
        error(ratio, "expected a number from 0 to 1, found \(ratio.found)")
      }
    }
    fields.finish()
    return config
  }

  private func readResources(_ value: Value, _ limit: inout ResourceRequirements.Limit, _ reservation: inout ResourceRequirements.Reservation?) {
    guard var fields = Fields(value, self) else { return }
    if let value = fields.take("limits"), var limits = Fields(value, self) {
      if let value = limits.take("cpus") { limit.nanoCPUs = agree(value, nanoCPUs(value), limit.nanoCPUs, "cpus") }
      if let value = limits.take("memory") { limit.memoryBytes = agree(value, bytes(value, minimum: minimumMemory), limit.memoryBytes, "mem_limit") }
      if let value = limits.take("pids") { limit.pids = agree(value, pids(value), limit.pids, "pids_limit") }
      limits.finish(KeyRules.resources)
    }
    if let value = fields.take("reservations"), var reservations = Fields(value, self) {
      var result = reservation ?? ResourceRequirements.Reservation()
      result.nanoCPUs = reservations.take("cpus").flatMap { nanoCPUs($0) }
      if let value = reservations.take("memory") { result.memoryBytes = agree(value, bytes(value), result.memoryBytes, "mem_reservation") }
      reservations.finish(KeyRules.resources)
      reservation = result
    }
    fields.finish()
  }

  private func agree(_ value: Value, _ new: Int64?, _ old: Int64?, _ key: String) -> Int64? {
    if let new, let old, new != old { error(value, "it differs from '\(key)' of the service", "keep one of them") }
    return new ?? old
  }

  private func placement(_ value: Value) -> Placement? {
    guard var fields = Fields(value, self) else { return nil }
    var placement = Placement()
    if let list = fields.take("constraints") {
      if case .list(let items) = list.kind {
        placement.constraints = items.compactMap { constraint($0) }
      } else {
        error(list, "expected a list of constraints, found \(list.found)", "write '- node.labels.disk == ssd'")
      }
    }
    if let list = fields.take("preferences") {
      if case .list(let items) = list.kind {
        placement.preferences = items.compactMap { item in
          guard var preference = Fields(item, self) else { return nil }
          defer { preference.finish() }
          guard let spread = preference.take("spread") else {
            error(item, "'spread' is missing", "write '- spread: node.labels.zone'")
            return nil
          }
          return nonEmpty(spread, "a label such as node.labels.zone").map { .init(spreadOver: $0) }
        }
      } else {
        error(list, "expected a list of preferences, found \(list.found)", "write '- spread: node.labels.zone'")
      }
    }
    placement.maxReplicas = fields.take("max_replicas_per_node").flatMap { integer($0, 0...Int64(Manifest.maximumReplicas)) }.map { UInt64($0) }
    fields.finish()
    return placement
  }

  private func constraint(_ value: Value) -> String? {
    guard let text = nonEmpty(value, "a constraint") else { return nil }
    let bytes = Array(text.utf8)
    let split = bytes.indices.dropLast().first {
      bytes[$0 + 1] == UInt8(ascii: "=") && (bytes[$0] == UInt8(ascii: "=") || bytes[$0] == UInt8(ascii: "!"))
    }
    guard let split else {
      error(value, "expected 'key == value' or 'key != value', found \(value.found)")
      return nil
    }
    let key = String(decoding: bytes[..<split], as: UTF8.self).filter { $0 != " " }.lowercased()
    let known = ["node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch", "node.ip"]
    if !known.contains(key), !key.hasPrefix("node.labels."), !key.hasPrefix("engine.labels.") {
      let near = nearest(to: key, among: known)
      error(value, "a node has no '\(key)'", near.map { "did you mean '\($0)'?" } ?? "use node.labels.NAME, node.hostname, node.role or node.id")
      return nil
    }
    return text
  }
}
