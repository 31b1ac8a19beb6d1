import API
import APIClient
import ArgumentParser
import Identity
import Model

struct CertificateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cert", abstract: "Certificates for users of the API over TCP.", discussion: "Example: orch cert create ann --out ~/.orch",
    subcommands: [Create.self])

  struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make a user's key and have the cluster sign its certificate.",
      discussion: """
        Writes ca.pem, cert.pem and key.pem, as ORCH_CERT_PATH and DOCKER_CERT_PATH expect them. The key is made here and sent nowhere.
        Whoever holds it may do everything that the API offers until the certificate ends; nothing takes it back before.
        The manager serves TCP when it was started with --api-addr HOST:PORT.

        Example: orch cert create ann --out ~/.orch
        Example: ORCH_HOST=tcp://10.0.0.1:2376 ORCH_CERT_PATH=~/.orch orch nodes
        """)
    @OptionGroup var connection: Connection
    @Argument(help: "The user's name, for the managers' logs.") var name: String
    @Option(help: "Folder for the three files; made with mode 0700.", completion: .directory) var out: String
    @Option(help: "Days until it ends, 1 to 825.") var days: Int64 = UserCertificate.defaultValidity.rawValue / day
    @Flag(name: .shortAndLong, help: "Replace the files of an earlier one.") var force = false
    private static var day: Int64 { 86_400_000_000_000 }

    func validate() throws {
      guard UserCertificate.isName(name) else {
        throw ValidationError("'\(name)' is no user's name: 1 to 64 letters, digits, '.', '-', '_' or '@'")
      }
      let longest = UserCertificate.longestValidity.rawValue / Self.day
      guard (1...longest).contains(days) else { throw ValidationError("--days \(days): give 1 to \(longest)") }
    }

    func run() async throws {
      let files = (authority: "\(out)/ca.pem", certificate: "\(out)/cert.pem", key: "\(out)/key.pem")
      if !force, let there = try [files.key, files.certificate, files.authority].first(where: { try SecretFile.read($0) != nil }) {
        throw ClientError.usage("\(there) exists: choose another folder, or --force to replace it")
      }
      let key = NodeKey()
      let request = CertificateRequest(name: name, signingRequest: try key.signingRequest(), validSeconds: days * 86_400)
      let answer = try await connection.client().post("/orch/v1/certificates", [], request, as: CertificateResponse.self)
      // The mode of a folder that is there is its owner's matter.
      if !Terminal.exists(out) { try SecretFile.makeFolder(out) }
      try SecretFile.write(Array(key.pem.utf8), to: files.key)
      try SecretFile.write(Array(answer.authority.utf8), to: files.authority)
      try SecretFile.write(Array(answer.certificate.utf8), to: files.certificate)
      Terminal.print("\(out): ca.pem, cert.pem and key.pem of \(name), valid until \(answer.notAfter.description.prefix(10))")
      Terminal.print("  export ORCH_HOST=tcp://MANAGER:2376 ORCH_CERT_PATH=\(out)")
      Terminal.print("  export DOCKER_HOST=tcp://MANAGER:2376 DOCKER_CERT_PATH=\(out) DOCKER_TLS_VERIFY=1")
    }
  }
}
