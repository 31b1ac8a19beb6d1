import Model

extension TaskSpec {
  /// The same wish in the fewest words. Docker's clients read a spec, change one thing and send the whole back; Go leaves zero values
  /// out (`omitempty`) or adds them (`ForceUpdate` 0), so that `docker service scale` would otherwise replace every task. An empty
  /// command stays: it means another thing than none.
  var canonical: TaskSpec {
    var task = self
    if task.forceUpdate == 0 { task.forceUpdate = nil }
    if task.runtime == "container" || task.runtime == "" { task.runtime = nil }
    task.networks = task.networks?.map { network in
      var network = network
      network.aliases = full(network.aliases)
      return network
    }
    task.networks = full(task.networks)
    if let driver = task.logDriver { task.logDriver = driver.isEmpty ? nil : Driver(name: full(driver.name), options: full(driver.options)) }
    task.resources = task.resources?.canonical
    task.placement = task.placement?.canonical
    if task.restartPolicy == RestartPolicy() { task.restartPolicy = nil }
    task.containerSpec = task.containerSpec.canonical
    return task
  }
}

extension ContainerSpec {
  fileprivate var canonical: ContainerSpec {
    var container = self
    container.labels = full(labels)
    container.args = full(args)
    container.hostname = full(hostname)
    container.domainname = full(domainname)
    container.env = full(env)
    container.dir = full(dir)
    container.user = full(user)
    container.groups = full(groups)
    if privileges == Privileges() { container.privileges = nil }
    container.stopSignal = full(stopSignal)
    container.tty = set(tty)
    container.openStdin = set(openStdin)
    container.readOnly = set(readOnly)
    container.mounts = full(mounts?.map(\.canonical))
    container.hosts = full(hosts)
    container.healthCheck = healthCheck?.canonical
    if let dns = dnsConfig {
      let short = DNSConfig(nameservers: full(dns.nameservers), search: full(dns.search), options: full(dns.options))
      container.dnsConfig = short == DNSConfig() ? nil : short
    }
    if isolation == "default" || isolation == "" { container.isolation = nil }
    container.sysctls = full(sysctls)
    container.capabilityAdd = full(capabilityAdd)
    container.capabilityDrop = full(capabilityDrop)
    container.ulimits = full(ulimits)
    if oomScoreAdj == 0 { container.oomScoreAdj = nil }
    container.secrets = full(secrets)
    container.configs = full(configs)
    return container
  }
}

extension HealthConfig {
  fileprivate var canonical: HealthConfig? {
    var health = self
    health.test = full(test)
    if interval == 0 { health.interval = nil }
    if timeout == 0 { health.timeout = nil }
    if startPeriod == 0 { health.startPeriod = nil }
    if startInterval == 0 { health.startInterval = nil }
    if retries == 0 { health.retries = nil }
    return health == HealthConfig() ? nil : health
  }
}

extension Mount {
  fileprivate var canonical: Mount {
    var mount = self
    mount.source = full(source)
    mount.readOnly = set(readOnly)
    if var bind = bindOptions {
      bind.propagation = full(bind.propagation)
      bind.nonRecursive = set(bind.nonRecursive)
      bind.createMountpoint = set(bind.createMountpoint)
      mount.bindOptions = bind == BindOptions() ? nil : bind
    }
    if var volume = volumeOptions {
      volume.noCopy = set(volume.noCopy)
      volume.labels = full(volume.labels)
      volume.subpath = full(volume.subpath)
      if volume.driverConfig?.isEmpty == true { volume.driverConfig = nil }
      mount.volumeOptions = volume == VolumeOptions() ? nil : volume
    }
    if var tmpfs = tmpfsOptions {
      if tmpfs.sizeBytes == 0 { tmpfs.sizeBytes = nil }
      if tmpfs.mode == 0 { tmpfs.mode = nil }
      tmpfs.options = tmpfs.isExecutable ? [["exec"]] : nil
      mount.tmpfsOptions = tmpfs == TmpfsOptions() ? nil : tmpfs
    }
    return mount
  }
}

extension ResourceRequirements {
  fileprivate var canonical: ResourceRequirements? {
    var resources = self
    if var limits {
      if limits.nanoCPUs == 0 { limits.nanoCPUs = nil }
      if limits.memoryBytes == 0 { limits.memoryBytes = nil }
      if limits.pids == 0 { limits.pids = nil }
      if limits.cpuShares == 0 { limits.cpuShares = nil }
      limits.cpuset = full(limits.cpuset)
      resources.limits = limits == Limit() ? nil : limits
    }
    if var reservations {
      if reservations.nanoCPUs == 0 { reservations.nanoCPUs = nil }
      if reservations.memoryBytes == 0 { reservations.memoryBytes = nil }
      resources.reservations = reservations == Reservation() ? nil : reservations
    }
    if swapBytes == 0 { resources.swapBytes = nil }
    return resources == ResourceRequirements() ? nil : resources
  }
}

extension Placement {
  fileprivate var canonical: Placement? {
    var placement = self
    placement.constraints = full(constraints)
    placement.preferences = full(preferences)
    if maxReplicas == 0 { placement.maxReplicas = nil }
    placement.platforms = full(platforms)
    return placement == Placement() ? nil : placement
  }
}

private func full<Items: Collection>(_ items: Items?) -> Items? { items.flatMap { $0.isEmpty ? nil : $0 } }
private func set(_ flag: Bool?) -> Bool? { flag == true ? true : nil }
