import ArgumentParser
import Telemetry

/// What all commands take.
struct CommonOptions: ParsableArguments {
  @Option(name: .customLong("state-dir"), help: "Folder of this manager's database, certificate and keys; 0700.")
  var stateFolder = "/var/lib/orch/manager"

  @Option(name: .customLong("log-level"), help: "trace, debug, info, notice, warning, error or critical; also ORCH_LOG.")
  var logLevel: String?

  @Option(name: .customLong("ready-fd"), help: "Write READY to this descriptor and close it once the manager answers.")
  var readyDescriptor: Int32?

  func begin() throws { try Telemetry.bootstrap(level: logLevel) }
}

/// Where it listens: given to `init` and `join`, remembered for `run`.
struct AddressOptions: ParsableArguments {
  @Option(name: .customLong("listen-addr"), help: "HOST:PORT where other managers and agents connect.")
  var listen = "0.0.0.0:2377"

  @Option(name: .customLong("advertise-addr"), help: "HOST[:PORT] where the others reach this manager; default: this host's address.")
  var advertise: String?

  @Option(name: .customLong("socket"), help: "Unix socket of the public API.")
  var socket = "/run/orch/orch.sock"

  @Option(name: .customLong("api-addr"), help: "HOST:PORT of the public API over mutual TLS, for users with certificates (orch cert create).")
  var api: String?

  @Option(name: .customLong("api-client-ca"), help: "PEM file of one more authority whose certificates may use the API over TCP.")
  var apiClientAuthority: String?
}
