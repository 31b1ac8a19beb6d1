// The plan: what the agent prepares and the child carries out between clone and exec, as flat bytes in a sealed memfd.
// Layout: header, then operations {u32 code, u32 payload length (a multiple of 8)}, each payload a row of u64 values and
// byte strings {u64 length, bytes, NUL, padding to 8}. Little endian; written and read by the same build.
#pragma once
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

#define CLINUX_PLAN_MAGIC 0x316e616c7068636fULL

// Of every overlay whose upper folder may become a layer, whatever the machine's defaults are: a layer cannot say that a file's content or a
// folder's name is elsewhere. Both are known since Linux 4.19 and 4.15; what a kernel is built with changes the defaults alone (fs/overlayfs/params.c).
#define CLINUX_OVERLAY_OPTIONS ",metacopy=off,redirect_dir=nofollow"

enum clinux_op {
  // For the parent, before the clone.
  CLINUX_OP_NAMESPACES = 1,   // flags of clone3
  CLINUX_OP_CGROUP = 2,       // directory of a v2 cgroup: CLONE_INTO_CGROUP
  CLINUX_OP_CGROUP_TASKS = 3, // tasks of a v1 cgroup: the child, which has one thread, writes 0 to it
  CLINUX_OP_SETNS = 4,        // kind (CLONE_NEW*), path of a namespace
  CLINUX_OP_JOIN = 5,         // exec: kinds; enter those namespaces of the process whose pidfd is descriptor 5
  CLINUX_OP_STATE = 6,        // state folder, oom counter file ("" none)
  CLINUX_OP_LOG = 7,          // log file, bytes per file, files
  CLINUX_OP_TTY = 8,          // rows, columns: stdio is a new pseudoterminal
  CLINUX_OP_DETACHED = 9,     // 1: keep the session keyring. The child is its launcher's sibling and outlives both
  CLINUX_OP_ID_MAPS = 10,     // uid_map, gid_map of the new user namespace
  CLINUX_OP_TIME_OFFSETS = 11,// timens_offsets of the new time namespace
  // Made by the parent, which may what a user namespace may not; the child takes them by their number, from 1 in this order.
  CLINUX_OP_TREE_BIND = 12,   // source, mount flags, flags taken away, recursive attributes set, cleared, CLINUX_TREE_*, propagation, uid_map, gid_map ("": as they are)
  CLINUX_OP_TREE_NODE = 13,   // mode, major, minor, uid, gid, path: a device node on a file system of its own; where that may not be made the host's at that path
  CLINUX_OP_LISTENER = 14,    // Unix socket that is sent the next SECCOMP's notifications, two texts: the message, with the pid in their place
  CLINUX_OP_FIRST_CPUS = 15,  // mask: before the cgroups are joined
  CLINUX_OP_LISTEN = 16,      // seconds: stdin stays open; descriptor 5 listens for who attaches, whom output awaits so long
  CLINUX_OP_TREE_FOLDER = 17, // path: a folder as it is, for CHROOT
  CLINUX_OP_STUB = 18,        // what follows is only made ready; AWAIT's plan is the container's
  // For the child, in order.
  CLINUX_OP_PRIVATE = 20,     // no mount leaves this mount namespace
  CLINUX_OP_OVERLAY = 21,     // target, upper, work, count, lower... (top first)
  CLINUX_OP_ROOT = 22,        // target, folder, 1: its device nodes work: bind it as the root
  CLINUX_OP_PROC = 23,        // a new procfs on /proc, kept as descriptor for what follows
  CLINUX_OP_MOUNT = 24,       // type, target, mount flags, data, 1: target must be a plain folder
  CLINUX_OP_BIND = 25,        // source, target, flags (CLINUX_BIND_*), path in the source, which it does not leave ("": the source itself)
  CLINUX_OP_DEVICE = 26,      // name: the host's /dev/name, checked, bound to /dev/name
  CLINUX_OP_SYMLINK = 27,     // content, path, 1: what is there already must be the same
  CLINUX_OP_MASK = 28,        // path
  CLINUX_OP_READONLY = 29,    // path
  CLINUX_OP_SYSCTL = 30,      // path below /proc/sys, value
  CLINUX_OP_PIVOT = 31,       // the root becomes /
  CLINUX_OP_ROOT_READONLY = 32,
  CLINUX_OP_HOSTNAME = 33,    // name
  CLINUX_OP_RLIMIT = 34,      // resource, soft, hard
  CLINUX_OP_OOM_SCORE = 35,   // value + 1000
  CLINUX_OP_CWD = 36,         // path, 1: make it
  CLINUX_OP_USER = 37,        // user, count, group...
  CLINUX_OP_CAPABILITIES = 38,// bounding, effective, permitted, inheritable, ambient
  CLINUX_OP_NO_NEW_PRIVS = 39,
  CLINUX_OP_SECCOMP = 40,     // struct sock_filter bytes, SECCOMP_FILTER_FLAG_*
  CLINUX_OP_EXEC = 41,        // argc, args..., envc, env...
  CLINUX_OP_CGROUPFS = 42,    // 0: v2 on /sys/fs/cgroup; else v1, count, controllers...
  CLINUX_OP_LOOPBACK_UP = 43,
  CLINUX_OP_INIT = 44,        // stay as pid 1, run the program as a child
  CLINUX_OP_FILE = 45,        // path, uid, gid, mode, content: a new file on what this plan mounted
  CLINUX_OP_UNMOUNT = 46,     // path: detach what this plan mounted, and remove the folder
  CLINUX_OP_STAGE = 47,       // type, mount flags, data: a MOUNT (or PROC) of the same takes it
  CLINUX_OP_AWAIT = 48,       // report READY; another plan comes, of the same namespaces and cgroup, and is carried out
  // Of OCI bundles.
  CLINUX_OP_PROPAGATION = 50, // path, MS_SHARED and so on with MS_REC
  CLINUX_OP_ATTACH = 51,      // type, source, target, mount flags, flags taken away, recursive attributes set, cleared, propagation, data, CLINUX_ATTACH_*, number of a tree (0: none)
  CLINUX_OP_NODE = 52,        // path, type and mode, major, minor, uid, gid, number of a tree (0: none)
  CLINUX_OP_MOVE_ROOT = 53,   // the root becomes / without pivot_root
  CLINUX_OP_DOMAINNAME = 54,  // name
  CLINUX_OP_PERSONALITY = 55, // persona
  CLINUX_OP_UMASK = 56,       // mask
  CLINUX_OP_IDS = 57,         // uid, gid, count (all ones: keep them), group...
  CLINUX_OP_PRESERVE = 58,    // count, for each 1 or 0: descriptors from 7 become those from 3, or there is none
  CLINUX_OP_HOOKS = 59,       // report, wait for the container's state
  CLINUX_OP_HOOK = 60,        // path, timeout in seconds (0: none), argc, args..., envc, env...
  CLINUX_OP_LOOKUP = 61,      // program, PATH: find what EXEC will execute
  CLINUX_OP_SCHEDULER = 63,   // policy, flags, nice, priority, runtime, deadline, period: sched_setattr(2)
  CLINUX_OP_IO_PRIORITY = 64, // class and priority: ioprio_set(2)
  CLINUX_OP_MEMORY_POLICY = 65, // mode with its flags, mask of nodes ("" none): set_mempolicy(2)
  CLINUX_OP_CPUS = 66,        // mask: sched_setaffinity(2)
  CLINUX_OP_LABEL = 67,       // number of a tree, which is /proc; file below thread-self/attr, text
  CLINUX_OP_KEEP_SHARED = 68, // root: mounts go on being shared with the host, but the root's own
  CLINUX_OP_HOME = 69,        // uid: whose home is looked up
  CLINUX_OP_CHROOT = 70,      // number of a tree (0: none): it becomes /, else the root does; other processes keep theirs
  CLINUX_OP_HERE = 71,        // / is the root of what follows
  CLINUX_OP_DETACH = 72,      // path in the root: unmount it, and what is mounted below
  CLINUX_OP_END = 73,         // nothing is executed: exit with 0
  CLINUX_OP_WAIT = 62,        // report READY; a connection to the socket that is descriptor 5 starts
  CLINUX_OP_LABEL_MOUNT = 75, // folder in the root, SELinux context: of what was mounted there, where no mount option takes one
  CLINUX_OP_HOOKS_DONE = 74,  // report READY on that connection: nothing but EXEC is left to do
};
enum { CLINUX_BIND_READONLY = 1, CLINUX_BIND_RECURSIVE = 2, CLINUX_BIND_DEVICES = 4 };
// A link as source or target is itself meant, not what it leads to.
enum { CLINUX_ATTACH_COPY_UP = 1, CLINUX_ATTACH_SOURCE_LINK = 2, CLINUX_ATTACH_TARGET_LINK = 4 };
enum { CLINUX_TREE_MAP_BELOW = 1, CLINUX_TREE_SOURCE_LINK = 2 };

// What the child or its parent says over the report socket: one record, fixed size.
struct clinux_report {
  uint32_t kind;   // CLINUX_REPORT_*
  int32_t error;   // errno
  uint32_t index;  // of the operation in the plan, from 0
  int32_t pid;
  uint64_t start;  // start time of pid (FAILED: a second detail number)
  char text[104];  // which step of the operation, NUL terminated
};
enum { CLINUX_REPORT_FAILED = 1, CLINUX_REPORT_WARNING = 2, CLINUX_REPORT_STARTED = 3, CLINUX_REPORT_TERMINAL = 4, CLINUX_REPORT_EXITED = 5, CLINUX_REPORT_HOOKS = 6, CLINUX_REPORT_READY = 7,
       CLINUX_REPORT_TAKEN = 8 };  // a stub has its container's plan

// A user as the kernel will see it.
struct clinux_user {
  uint32_t uid, gid;
  uint32_t group_count;
  uint32_t *groups;  // room for CLINUX_GROUPS; NULL: they are not wanted
  char home[256];
};
enum { CLINUX_GROUPS = 65536 };  // NGROUPS_MAX (setgroups(2))
// Resolves "user[:group]" and additional groups by etc/passwd and etc/group below `root` (openat2 RESOLVE_IN_ROOT). The rules
// are Docker's: a name in the file wins, then a number; a number must fit in 31 bits. -ENOENT: no such user; -ESRCH: no such
// group; -ERANGE: not a valid number; -E2BIG: more groups than the kernel takes; `what` names the culprit.
int clinux_resolve_user(int root, const char *user, const char *const *groups, int count, struct clinux_user *result, char what[64]);

// Runs the plan in the child's part: never returns on success when it has an EXEC.
struct clinux_plan { const uint8_t *bytes; size_t length; };
enum { CLINUX_TREES = 4096 };  // most of one plan; each is a descriptor, of which the parent may have fewer
int clinux_plan_map(int fd, struct clinux_plan *plan);
// What the parent's side of a plan says.
struct clinux_launch {
  uint64_t namespaces;
  const char *cgroup, *state, *oom, *log;
  const char *uid_map, *gid_map, *time_offsets;
  struct { uint64_t kind; const char *path; } joined[8];
  int joined_count;
  uint64_t log_size, log_files, join, listens, attach_seconds;
  int tty, detached, keep_keyring, stub, waits;
  int trees;  // how many there are to make
  const char *listener;
  const uint8_t *first_cpus;
  uint64_t first_cpus_length;
  uint64_t rows, columns;
  const char *tasks[16];
  int tasks_count;
};
int clinux_plan_launch(const struct clinux_plan *plan, struct clinux_launch *launch);
// A stub waits for its container's plan on `report`, which takes the place of its own in `plan` and `launch`.
// Clones the child and lets it carry out the plan. stdio: three descriptors of the child (ignored with a terminal).
// Blocks until the child has executed or failed. Returns its pid (and a pidfd), or -1 after it reported to `report` itself.
// terminal: receives the master's descriptor, -1 without.
pid_t clinux_launch(struct clinux_plan *plan, struct clinux_launch *launch, const int stdio[3], int report, int *pidfd, int *terminal);
uint64_t clinux_start_time(pid_t pid);
// Tells `report` that the plan cannot be carried out: nothing was done.
void clinux_refuse(int report, int error);
