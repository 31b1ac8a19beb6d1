import API
import Model
import NIOCore

extension ControlAPI {
  /// `GET /orch/v1/stats?task=NAME…&stream=1`: JSON lines, one a host: once, or each second until the client leaves. `task` names tasks or
  /// services, of which those are asked that run now; without it, every ready host tells of all. A host that does not answer has a line with
  /// the reason.
  func stats(_ target: Target) async throws -> APIResponse {
    let state = try await backend.state()
    let wanted = try Self.wanted(target.query["task"] ?? [], in: state)
    let isStream = target.flag("stream")
    let response = Pipe<ByteBuffer>(capacity: 64)
    let pump = Task {
      await withDiscardingTaskGroup { group in
        for (node, tasks) in wanted {
          group.addTask {
            do { try await relay(tasks, of: node, isStream, into: response) } catch {
              if Task.isCancelled { return }
              let host = state.nodes[node]?.hostname ?? "\(node)"
              await response.send(ByteBuffer(bytes: JSON.encode(HostStatistics(nodeID: "\(node)", host: host, error: "\(error)")) + [10]))
            }
          }
        }
      }
      response.finish()
    }
    return APIResponse(
      status: 200, headers: [APIHeader("Content-Type", "application/x-ndjson")], body: APIBody(stream: Guarded(response, holding: pump)))
  }

  /// Tasks of each host; none: all of its.
  private static func wanted(_ names: [String], in state: ClusterState) throws -> [NodeID: [TaskID]] {
    if names.isEmpty {
      return Dictionary(uniqueKeysWithValues: state.nodes.values.filter { $0.status.state == .ready }.map { ($0.id, []) })
    }
    var wanted: [NodeID: [TaskID]] = [:]
    for name in names {
      let tasks: [ClusterTask]
      do { tasks = Array(state.tasks(of: try state.lookUpService(name).id)) } catch let error as APIError where error.status == 404 {
        do { tasks = [try state.lookUpTask(name)] } catch let error as APIError where error.status == 404 {
          throw APIError(404, "no service and no task is called \(name)")
        }
        if tasks[0].status.state != .running, tasks[0].status.state != .starting {
          throw APIError(409, "task \(state.name(of: tasks[0])) does not run: it is \(tasks[0].status.state)")
        }
      }
      for task in tasks where task.status.state == .running || task.status.state == .starting {
        if let node = task.node, !wanted[node, default: []].contains(task.id) { wanted[node, default: []].append(task.id) }
      }
    }
    return wanted
  }

  /// Whole lines, since those of several hosts share one answer.
  private func relay(_ tasks: [TaskID], of node: NodeID, _ isStream: Bool, into response: Pipe<ByteBuffer>) async throws {
    let query = tasks.map { "task=\($0)" } + (isStream ? ["stream=1"] : [])
    let answer = try await backend.ask(APIRequest(method: "GET", uri: "/stats?" + query.joined(separator: "&")), on: node)
    guard answer.status == 200 else {
      let bytes = Array(try await answer.body.collect(upTo: 64 << 10).readableBytesView)
      throw APIError(answer.status, (try? JSON.decode(ErrorResponse.self, from: bytes).message) ?? String(decoding: bytes, as: UTF8.self))
    }
    var rest = ByteBuffer()
    for try await var part in answer.body {
      rest.writeBuffer(&part)
      guard rest.readableBytes <= Self.lineMax else { throw APIError(500, "its line is longer than \(Self.lineMax) bytes") }
      guard let end = rest.readableBytesView.lastIndex(of: 10) else { continue }
      guard let lines = rest.readSlice(length: end + 1 - rest.readerIndex), await response.send(lines) else { return }
      rest.discardReadBytes()
    }
  }
  /// Bytes of one host's line; 10,000 tasks need half.
  private static var lineMax: Int { 16 << 20 }
}
