import API
import APIClient
import ArgumentParser
import Model

struct Inspect: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show everything about services, tasks, nodes, networks, stacks or volumes, as JSON.",
    discussion: "What a name is, is found out in that order; --type says it.\n\nExample: orch inspect web\nExample: orch inspect --type node h1")
  enum Kind: String, ExpressibleByArgument, CaseIterable {
    case service, task, node, network, stack, volume
    var path: String { self == .stack ? "/orch/v1/stacks/" : "/\(rawValue)s/" }
  }
  @OptionGroup var connection: Connection
  @Argument(help: "Names or ids.") var names: [String]
  @Option(help: "service, task, node, network, stack or volume.") var type: Kind?
  @OptionGroup var shape: InspectShape

  func run() async throws { try await inspect(names, as: type.map { [$0] } ?? Kind.allCases, connection, shape) }
}

struct InspectShape: ParsableArguments {
  @Option(help: "json: one object a line; without it one indented list, as docker inspect's.") var format: JSONFormat?
}

/// Those that are there are shown, the others named; each is of the first kind that has it.
func inspect(_ names: [String], as kinds: [Inspect.Kind], _ connection: Connection, _ shape: InspectShape) async throws {
  let client = try connection.client()
  func object(_ name: String) async throws -> [UInt8]? {
    for kind in kinds {
      do { return try await client.call("GET", kind.path + percentEncoded(name)) } catch let error as ClientError where error.status == 404 {}
    }
    return nil
  }
  var found: [[UInt8]] = []
  var missing: [String] = []
  for name in names {
    if let object = try await object(name) { found.append(object) } else { missing.append(name) }
  }
  if shape.format == .json {
    for object in found { Terminal.write(1, object.last == 10 ? object : object + [10]) }
  } else {
    let list =
      [UInt8(ascii: "[")] + Array(found.map { $0.last == 10 ? Array($0.dropLast()) : $0 }.joined(separator: [UInt8(ascii: ",")])) + [
        UInt8(ascii: "]")
      ]
    Terminal.print(JSONText.indented(list))
  }
  let texts = kinds.map(\.rawValue)
  let wanted = texts.count == 1 ? texts[0] : texts.dropLast().joined(separator: ", ") + " or " + texts[texts.count - 1]
  for name in missing { Terminal.warn("orch: no \(wanted) is called \(name)") }
  if !missing.isEmpty { throw ExitCode(1) }
}

struct Events: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what happens in the cluster, as it happens.",
    discussion: "Ctrl-C ends it.\n\nExample: orch events --filter type=task --filter service=web_web")
  @OptionGroup var connection: Connection
  @Option(name: .shortAndLong, help: ArgumentHelp("type, event, service, node, network, volume, task, stack; repeatable.", valueName: "key=value"))
  var filter: [String] = []
  @Option(help: "json: one object a line; without it lines as docker events writes them.") var format: JSONFormat?

  func run() async throws {
    var filters: [String: [String]] = [:]
    for text in filter {
      let pair = text.split(separator: "=", maxSplits: 1)
      guard pair.count == 2 else { throw ValidationError("--filter \(text): give KEY=VALUE, for example type=task") }
      filters[String(pair[0]), default: []].append(String(pair[1]))
    }
    let body = try await connection.client().stream("/events", filters.isEmpty ? [] : [("filters", JSONText.line(filters))])
    var lines = Lines()
    for try await part in body {
      for line in lines.add(part.readableBytesView) {
        if format == .json {
          Terminal.print(String(decoding: line, as: UTF8.self))
        } else {
          let event = try JSONText.decode(Event.self, Array(line))
          let attributes = event.actor.attributes.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ", ")
          Terminal.print("\(Timestamp(nanoseconds: event.timeNano)) \(event.type) \(event.action) \(event.actor.id) (\(attributes))")
        }
      }
    }
    throw ClientError.broken("the manager ended the stream of events: it stops, or this reader fell behind; run orch events again")
  }
}
