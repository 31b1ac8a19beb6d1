/// The tables. Ids are 16-byte blobs, instants nanoseconds since 1970 (UTC), structures of the public API JSON in Docker's spelling.
/// To look inside: `sqlite3 raft.db "SELECT lower(hex(id)), slot, state, error FROM tasks"`.
enum Schema {
  /// "orch" in ASCII.
  static let applicationID = 0x6f72_6368

  /// Step n brings a file of format n (`PRAGMA user_version`) to n + 1. Only ever append.
  static let migrations: [String] = [
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE hard_state (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL, vote INTEGER NOT NULL, committed INTEGER NOT NULL);
    CREATE TABLE raft_log (
      position INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL);
    CREATE TABLE members (raft_id INTEGER PRIMARY KEY, node BLOB, address TEXT NOT NULL, role TEXT NOT NULL);

    CREATE TABLE cluster (
      one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, created_at INTEGER NOT NULL, settings TEXT NOT NULL, version INTEGER NOT NULL);
    CREATE TABLE nodes (
      id BLOB PRIMARY KEY, spec TEXT NOT NULL, description TEXT, state TEXT NOT NULL, message TEXT NOT NULL, address TEXT,
      raft_id INTEGER, manager_address TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE services (
      id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, current INTEGER NOT NULL, previous INTEGER, latest INTEGER NOT NULL, update_status TEXT,
      endpoint TEXT NOT NULL, pending_delete INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
      version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE revisions (
      service BLOB NOT NULL, number INTEGER NOT NULL, spec TEXT NOT NULL, template INTEGER NOT NULL, created_at INTEGER NOT NULL,
      PRIMARY KEY (service, number)) WITHOUT ROWID;
    CREATE TABLE tasks (
      id BLOB PRIMARY KEY, service BLOB NOT NULL, revision INTEGER NOT NULL, slot INTEGER NOT NULL, node BLOB, desired_state INTEGER NOT NULL,
      state INTEGER NOT NULL, state_at INTEGER NOT NULL, message TEXT NOT NULL, error TEXT NOT NULL, container_id TEXT, pid INTEGER,
      exit_code INTEGER, oom_killed INTEGER NOT NULL, created_at INTEGER NOT NULL, restart_count INTEGER NOT NULL, start_after INTEGER NOT NULL,
      version INTEGER NOT NULL) WITHOUT ROWID;
    -- Addresses of tasks and of nodes; owner is the id of either.
    CREATE TABLE attachments (
      owner BLOB NOT NULL, position INTEGER NOT NULL, network BLOB NOT NULL, address TEXT NOT NULL, PRIMARY KEY (owner, position)) WITHOUT ROWID;
    CREATE TABLE networks (
      id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, vni INTEGER, subnet TEXT, created_at INTEGER NOT NULL,
      version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE volumes (
      name TEXT PRIMARY KEY, labels TEXT NOT NULL, driver TEXT NOT NULL, driver_options TEXT NOT NULL, created_at INTEGER NOT NULL,
      version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE stacks (
      name TEXT PRIMARY KEY, revision INTEGER NOT NULL, manifest TEXT NOT NULL, services TEXT NOT NULL, networks TEXT NOT NULL,
      volumes TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
    """,
    "ALTER TABLE tasks ADD COLUMN health TEXT;",
    // A secret's data is sealed; a config's is not.
    """
    CREATE TABLE secrets (
      id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, labels TEXT NOT NULL, data BLOB NOT NULL, created_at INTEGER NOT NULL,
      updated_at INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE configs (
      id BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, labels TEXT NOT NULL, data BLOB NOT NULL, created_at INTEGER NOT NULL,
      updated_at INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
    """,
    // What may be shown of the settings: the rest is key material (the CA's sealed key, join tokens). Written with them, never read back.
    """
    ALTER TABLE cluster ADD COLUMN address_pool TEXT NOT NULL DEFAULT '';
    ALTER TABLE cluster ADD COLUMN subnet_length INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE cluster ADD COLUMN data_path_port INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE cluster ADD COLUMN task_history INTEGER NOT NULL DEFAULT 0;
    UPDATE cluster SET address_pool = json_extract(settings, '$.addressPool'), subnet_length = json_extract(settings, '$.subnetLength'),
      data_path_port = json_extract(settings, '$.dataPathPort'), task_history = json_extract(settings, '$.taskHistory');
    """,
    // Of what this manager promised; NULL until it is written next.
    "ALTER TABLE hard_state ADD COLUMN checksum INTEGER;",
    // What rows were before slices of a flush that is not whole yet: serialised actions that make or remove them, each after its length.
    "CREATE TABLE undo (slice INTEGER PRIMARY KEY, actions BLOB NOT NULL, checksum INTEGER NOT NULL);",
    // NULL: IPv4 alone.
    "ALTER TABLE networks ADD COLUMN subnet6 TEXT;",
  ]

  static let replicatedTables = [
    "cluster", "nodes", "services", "revisions", "tasks", "attachments", "networks", "volumes", "stacks", "secrets", "configs",
  ]
}
