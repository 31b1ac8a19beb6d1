import Model

/// A view that `orch sql` offers. Names and columns are an interface (docs/sql.md): columns may be added at the end, none renamed or
/// removed. Ids and names are the CLI's, instants RFC 3339 text in UTC, states their names; labels and specs JSON in Docker's spelling.
///
/// A new table gets its view here, and no view ever reads key material: `StateReaderTests` holds the list of what all of them read.
struct StateView {
  var name: String
  var select: String

  var definition: String { "CREATE TEMP VIEW \(name) AS \(select)" }
  static let names = Set(all.map(\.name) + [columnsName])

  /// Ends every list: which views there are, and their columns.
  static let columnsName = "columns"
  static func columnsView(_ columns: [(view: String, columns: [String])]) -> String {
    let rows = columns.flatMap { view, names in names.enumerated().map { "('\(view)', \($0 + 1), '\($1)')" } }
    return "CREATE TEMP VIEW \(columnsName)(view, position, name) AS VALUES " + rows.joined(separator: ", ")
  }

  static let all: [StateView] = [cluster, managers, nodes, stacks, services, revisions, tasks, addresses, networks, volumes, secrets, configs]

  private static let stackLabel = "$.Labels.\"\(StackLabel.namespace)\""
  private static func nodeName(_ id: String) -> String {
    """
    (SELECT coalesce(json_extract(x.description, '$.Hostname'), json_extract(x.spec, '$.Name'), id_text(x.id)) FROM main.nodes x WHERE x.id = \(id))
    """
  }
  private static func labels(_ json: String) -> String { "coalesce(json_extract(\(json), '$.Labels'), '{}')" }

  private static let cluster = StateView(
    name: "cluster",
    select: """
      SELECT id_text(c.id) AS id, time_text(c.created_at) AS created_at, c.address_pool, c.subnet_length, c.data_path_port, c.task_history,
        (SELECT m.value FROM main.meta m WHERE m.key = 'applied_index') AS log_index, c.version
      FROM main.cluster c
      """)

  private static let managers = StateView(
    name: "managers",
    select: """
      SELECT m.raft_id, \(nodeName("m.node")) AS node, id_text(m.node) AS node_id, m.address, m.role
      FROM main.members m WHERE m.role IN ('voter', 'learner')
      """)

  private static let nodes = StateView(
    name: "nodes",
    select: """
      SELECT id_text(n.id) AS id, coalesce(json_extract(n.description, '$.Hostname'), json_extract(n.spec, '$.Name'), id_text(n.id)) AS name,
        json_extract(n.spec, '$.Role') AS role, json_extract(n.spec, '$.Availability') AS availability, n.state, n.message, n.address,
        \(labels("n.spec")) AS labels, coalesce(json_extract(n.description, '$.Engine.Labels'), '{}') AS engine_labels,
        json_extract(n.description, '$.Platform.OS') AS os, json_extract(n.description, '$.Platform.Architecture') AS architecture,
        json_extract(n.description, '$.Resources.NanoCPUs') / 1e9 AS cpus,
        json_extract(n.description, '$.Resources.MemoryBytes') AS memory_bytes,
        json_extract(n.description, '$.Engine.EngineVersion') AS engine_version, n.manager_address,
        time_text(n.created_at) AS created_at, time_text(n.updated_at) AS updated_at, n.version
      FROM main.nodes n
      """)

  private static let stacks = StateView(
    name: "stacks",
    select: """
      SELECT s.name, s.revision, (SELECT count(*) FROM json_each(s.services)) AS services, s.networks, s.volumes, s.manifest,
        time_text(s.created_at) AS created_at, time_text(s.updated_at) AS updated_at, s.version
      FROM main.stacks s
      """)

  private static let services = StateView(
    name: "services",
    select: """
      SELECT id_text(s.id) AS id, s.name, json_extract(r.spec, '\(stackLabel)') AS stack,
        CASE WHEN json_type(r.spec, '$.Mode.Global') IS NOT NULL THEN 'global'
          WHEN json_type(r.spec, '$.Mode.ReplicatedJob') IS NOT NULL THEN 'replicated-job'
          WHEN json_type(r.spec, '$.Mode.GlobalJob') IS NOT NULL THEN 'global-job' ELSE 'replicated' END AS mode,
        json_extract(r.spec, '$.Mode.Replicated.Replicas') AS replicas, json_extract(r.spec, '$.TaskTemplate.ContainerSpec.Image') AS image,
        s.current AS revision, s.previous AS previous_revision, json_extract(s.update_status, '$.state') AS update_state,
        json_extract(s.update_status, '$.message') AS update_message, json_extract(s.endpoint, '$.ports') AS ports,
        \(labels("r.spec")) AS labels, s.pending_delete AS removing, \(spec), time_text(s.created_at) AS created_at,
        time_text(s.updated_at) AS updated_at, s.version
      FROM main.services s LEFT JOIN main.revisions r ON r.service = s.id AND r.number = s.current
      """)

  /// Without what a registry is told, sealed as it is.
  private static let spec = "json_remove(r.spec, '$.OrchRegistryLogin') AS spec"

  private static let revisions = StateView(
    name: "revisions",
    select: """
      SELECT (SELECT s.name FROM main.services s WHERE s.id = r.service) AS service, id_text(r.service) AS service_id, r.number, r.template,
        r.number = (SELECT s.current FROM main.services s WHERE s.id = r.service) AS is_current,
        json_extract(r.spec, '$.TaskTemplate.ContainerSpec.Image') AS image, \(spec), time_text(r.created_at) AS created_at
      FROM main.revisions r
      """)

  private static let tasks = StateView(
    name: "tasks",
    select: """
      SELECT id_text(t.id) AS id,
        coalesce((SELECT s.name FROM main.services s WHERE s.id = t.service), id_text(t.service)) || '.'
          || CASE WHEN t.slot > 0 THEN t.slot ELSE coalesce(id_text(t.node), id_text(t.id)) END AS name,
        (SELECT s.name FROM main.services s WHERE s.id = t.service) AS service, id_text(t.service) AS service_id, t.revision,
        nullif(t.slot, 0) AS slot, \(nodeName("t.node")) AS node, id_text(t.node) AS node_id,
        state_text(t.desired_state) AS desired_state, state_text(t.state) AS state, time_text(t.state_at) AS state_at, t.message, t.error,
        json_extract(t.health, '$.Status') AS health,
        (SELECT json_extract(r.spec, '$.TaskTemplate.ContainerSpec.Image') FROM main.revisions r
          WHERE r.service = t.service AND r.number = t.revision) AS image,
        t.container_id, t.pid, t.exit_code, t.oom_killed, t.restart_count, time_text(t.start_after) AS start_after,
        time_text(t.created_at) AS created_at, t.version
      FROM main.tasks t
      """)

  private static let addresses = StateView(
    name: "addresses",
    select: """
      SELECT CASE WHEN EXISTS (SELECT 1 FROM main.nodes n WHERE n.id = a.owner) THEN 'node' ELSE 'task' END AS kind, id_text(a.owner) AS owner_id,
        (SELECT n.name FROM main.networks n WHERE n.id = a.network) AS network, id_text(a.network) AS network_id, a.address
      FROM main.attachments a
      """)

  private static let networks = StateView(
    name: "networks",
    select: """
      SELECT id_text(n.id) AS id, n.name, json_extract(n.spec, '\(stackLabel)') AS stack,
        coalesce(json_extract(n.spec, '$.Driver'), 'overlay') AS driver, n.subnet, n.subnet6, n.vni,
        coalesce(json_extract(n.spec, '$.Internal'), 0) AS internal, coalesce(json_extract(n.spec, '$.Attachable'), 0) AS attachable,
        coalesce(json_extract(n.spec, '$.Ingress'), 0) AS ingress, \(labels("n.spec")) AS labels, time_text(n.created_at) AS created_at, n.version
      FROM main.networks n
      """)

  private static let volumes = StateView(
    name: "volumes",
    select: """
      SELECT v.name, json_extract(v.labels, '$."\(StackLabel.namespace)"') AS stack, v.driver, v.driver_options AS options, v.labels,
        time_text(v.created_at) AS created_at, v.version
      FROM main.volumes v
      """)

  /// Never its data, sealed as it is.
  private static let secrets = StateView(
    name: "secrets",
    select: """
      SELECT id_text(s.id) AS id, s.name, s.labels, time_text(s.created_at) AS created_at, time_text(s.updated_at) AS updated_at, s.version
      FROM main.secrets s
      """)

  private static let configs = StateView(
    name: "configs",
    select: """
      SELECT id_text(c.id) AS id, c.name, c.labels, CAST(c.data AS TEXT) AS data, time_text(c.created_at) AS created_at,
        time_text(c.updated_at) AS updated_at, c.version
      FROM main.configs c
      """)
}
