import API
import APIClient
import ArgumentParser

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What `orch build --secret` sends along, in a header: never in a URL, a layer or a log.
enum BuildSecrets {
  /// Of all together; a header has no room for more.
  static let bytesMax = 32 << 10

  /// Each `id=NAME,src=FILE`, `id=NAME,env=VARIABLE`, or `id=NAME` alone: the variable of that name, or the file.
  static func read(_ words: [String]) throws -> [String: [UInt8]] {
    var secrets: [String: [UInt8]] = [:]
    for word in words {
      var fields: [String: String] = [:]
      for item in word.split(separator: ",") {
        let parts = item.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2, ["id", "src", "source", "env", "type"].contains(parts[0]) else {
          throw ValidationError("--secret '\(word)': write id=NAME,src=FILE or id=NAME,env=VARIABLE")
        }
        fields[parts[0] == "source" ? "src" : parts[0]] = parts[1]
      }
      guard let id = fields["id"] else { throw ValidationError("--secret '\(word)': it has no id=NAME") }
      if let path = fields["src"], fields["type"] != "env" {
        secrets[id] = try Terminal.readBytes(path)
      } else if let value = Terminal.environment(fields["env"] ?? fields["src"] ?? id) {
        secrets[id] = Array(value.utf8)
      } else if fields["env"] == nil, fields["type"] != "env" {
        secrets[id] = try Terminal.readBytes(id)
      } else {
        throw ValidationError("--secret '\(word)': the variable is not set")
      }
    }
    guard secrets.values.reduce(0, { $0 + $1.count }) <= bytesMax else { throw ValidationError("--secret: all together have more than 32 KiB") }
    return secrets
  }

  static func headers(_ secrets: [String: [UInt8]]) -> [(name: String, value: String)] {
    if secrets.isEmpty { return [] }
    let document = JSONText.line(secrets.mapValues { Data($0).base64EncodedString() })
    return [("X-Orch-Build-Secrets", Data(document.utf8).base64EncodedString())]
  }
}

struct BuilderCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "builder", abstract: "The cache of builds.", subcommands: [BuilderPrune.self])
}

struct BuilderPrune: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prune", abstract: "Forget what builds have made before, and remove the folders of RUN --mount=type=cache.",
    discussion: "Images stay. Without --node and --all-hosts it is the manager's own host.\n\nExample: orch builder prune --all-hosts")
  @OptionGroup var connection: Connection
  @OptionGroup var place: ImageCommand.Where

  private struct Answer: Decodable {
    var steps: Int?
    var bytes: Int64
    enum CodingKeys: String, CodingKey { case steps = "StepsDeleted", bytes = "SpaceReclaimed" }
  }

  func run() async throws {
    let client = try connection.client()
    for host in try await place.hosts(client) {
      let answer: Answer = try await client.post("/build/prune", ImageCommand.query(host), [String: String](), as: Answer.self)
      Terminal.print((host.map { $0 + ": " } ?? "") + "\(answer.steps ?? 0) steps forgotten, \(humanSize(answer.bytes)) reclaimed")
    }
  }
}
