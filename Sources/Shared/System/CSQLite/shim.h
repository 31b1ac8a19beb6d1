#include <sqlite3.h>

/// sqlite3_db_config is variadic. The last connection that closes leaves the file and its WAL as they are.
static inline int csqlite_no_checkpoint_on_close(sqlite3 *database) {
  return sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)0);
}

/// sqlite3_config is variadic. Works only before the process's first use of SQLite.
static inline int csqlite_log_to(void (*log)(void *, int, const char *)) {
  return sqlite3_config(SQLITE_CONFIG_LOG, log, (void *)0);
}

static inline int csqlite_get_allocator(sqlite3_mem_methods *methods) { return sqlite3_config(SQLITE_CONFIG_GETMALLOC, methods); }

/// SQLite copies `methods`. Works only before the process's first use of SQLite.
static inline int csqlite_set_allocator(sqlite3_mem_methods *methods) { return sqlite3_config(SQLITE_CONFIG_MALLOC, methods); }
