import API
import APIClient
import ArgumentParser
import Model

struct Why: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Say what keeps services from running as they are declared.",
    discussion: """
      Tasks that do not run, with the reason: no host has room, an image is missing, a health check fails, what failed before; updates that stand still; ports that
      others hold. Without a service or task: all services.

      Example: orch why web
      Example: orch why web.2
      """)
  @OptionGroup var connection: Connection
  @Argument(help: ArgumentHelp("Services, or tasks (SERVICE.SLOT, an id); none: all services.", valueName: "service|task")) var names: [String] = []
  @OptionGroup var list: ListOptions

  /// A service, of which one task alone may be meant.
  private typealias Subject = (service: ServiceInspect, task: String?)

  func run() async throws {
    let client = try connection.client()
    let nodes = try await client.get("/nodes", as: [NodeInspect].self)
    let hostnames = nodes.hostnames
    var subjects: [Subject] = []
    for name in names { subjects.append(try await look(for: name, client, hostnames)) }
    if names.isEmpty {
      subjects = try await client.get("/services", as: [ServiceInspect].self).sorted { $0.spec.name < $1.spec.name }.map { ($0, nil) }
    }
    var table = Table([
      .init("Name", "NAME", flexible: true), .init("State", "STATE"), .init("Since", "SINCE"), .init("Reason", "REASON", flexible: true),
    ])
    var ids: [String] = []
    var well: [String] = []
    // Of all services at once, or of the few that were named: a query has no room for thousands of ids.
    let all = subjects.isEmpty ? [] : try await client.tasks(names.isEmpty ? [:] : ["service": subjects.map(\.service.id)])
    let tasksOf = Dictionary(grouping: all, by: \.serviceID)
    for (service, task) in subjects {
      let tasks = tasksOf[service.id] ?? []
      let found = Obstacle.all(service, tasks: tasks, hostnames: hostnames).filter { task == nil || $0.subject == task }
      for obstacle in found {
        table.add([obstacle.subject, capitalized(obstacle.state), obstacle.since.ago, obstacle.reason])
        ids.append(list.short(obstacle.task.isEmpty ? service.id : obstacle.task))
      }
      let running = tasks.count { $0.wanted && $0.status.state == "running" }
      if found.isEmpty {
        well.append(
          "\(task ?? service.spec.name): nothing is in the way" + (task == nil ? ", \(running) \(running == 1 ? "task runs" : "tasks run")" : ""))
      }
    }
    if !ids.isEmpty || list.format == .json || list.quiet { list.show(table, ids: ids) }
    if list.format != .json, !list.quiet { for line in well { Terminal.print(line) } }
    list.warn(nodes.flatMap { $0.warnings(for: subjects.map(\.service)) })
  }

  private func look(for name: String, _ client: APIClient, _ hostnames: [String: String]) async throws -> Subject {
    do { return (try await client.get("/services/\(percentEncoded(name))", as: ServiceInspect.self), nil) } catch let error as ClientError
      where error.status == 404
    {
      do {
        let task = try await client.get("/tasks/\(percentEncoded(name))", as: TaskInspect.self)
        let service = try await client.get("/services/\(task.serviceID)", as: ServiceInspect.self)
        return (service, task.title(service.spec.name, hostnames))
      } catch let error as ClientError where error.status == 404 {
        throw ClientError.broken("no service and no task is called \(name): orch services and orch ps list them")
      }
    }
  }
}
