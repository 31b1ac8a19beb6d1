import AgentImage
import Dockerfile
import Model

extension ImageSettings {
  init(_ config: ImageConfig) {
    self.init()
    (env, entrypoint, cmd) = (config.env, config.entrypoint, config.cmd)
    (workingDir, user, exposedPorts, volumes) = (config.workingDir, config.user, config.exposedPorts, config.volumes)
    (labels, stopSignal, shell, onbuild) = (config.labels, config.stopSignal, config.shell, config.onbuild)
    if let check = config.healthcheck {
      health = Health(
        test: check.test ?? [], interval: check.interval?.rawValue, timeout: check.timeout?.rawValue, startPeriod: check.startPeriod?.rawValue,
        startInterval: check.startInterval?.rawValue, retries: check.retries)
    }
  }
}

extension ImageConfig {
  init(_ settings: ImageSettings) {
    self.init()
    (env, entrypoint, cmd) = (settings.env, settings.entrypoint, settings.cmd)
    (workingDir, user, exposedPorts, volumes) = (settings.workingDir, settings.user, settings.exposedPorts, settings.volumes)
    (labels, stopSignal, shell, onbuild) = (settings.labels, settings.stopSignal, settings.shell, settings.onbuild)
    if let health = settings.health {
      var check = HealthConfig()
      check.test = health.test
      check.interval = health.interval.map { Nanoseconds($0) }
      check.timeout = health.timeout.map { Nanoseconds($0) }
      check.startPeriod = health.startPeriod.map { Nanoseconds($0) }
      check.startInterval = health.startInterval.map { Nanoseconds($0) }
      check.retries = health.retries
      healthcheck = check
    }
  }
}
