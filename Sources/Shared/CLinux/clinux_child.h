// What the two files of the child's path share. Private to this room.
#pragma once
#include "clinux.h"
#include <errno.h>
#include <string.h>

struct cursor { const uint8_t *at, *end; int bad; };
static inline uint64_t number(struct cursor *c) {
  if (c->end - c->at < 8) { c->bad = 1; return 0; }
  uint64_t value;
  memcpy(&value, c->at, 8);
  c->at += 8;
  return value;
}
static inline const char *bytes(struct cursor *c, uint64_t *length) {
  *length = number(c);
  uint64_t padded = (*length + 8) & ~7ULL;
  if (c->bad || *length > (1 << 24) || (uint64_t)(c->end - c->at) < padded || c->at[*length] != 0) { c->bad = 1; *length = 0; return ""; }
  const char *start = (const char *)c->at;
  c->at += padded;
  return start;
}
static inline const char *string(struct cursor *c) {
  uint64_t length;
  return bytes(c, &length);
}
struct child {
  int report, root, proc, null, tty_done;
  uint32_t index;
  const char *step;  // what was being done, for the report
  char step_buffer[104];
  struct clinux_user user;
  int have_user, init, start, state_fd, preserve, listener, shared, in_user_namespace, marked;
  int receiver;  // of seccomp notifications; -1 none
  const char *root_path;  // of what the plan took as root
  const int *trees;
  const struct clinux_plan *plan;
  struct clinux_shared *outside;
  struct { const char *type, *data; uint64_t flags; int fd; } staged[16];  // mounts that are nowhere yet
  int staged_count;
  char executable[4096];  // found before the wait for start; "" none
  char **strings;         // room for the pointers of one EXEC, HOOK or USER
  uint64_t strings_most;  // of its arguments and environment together, or its groups
};
// Memory that the child and its parent share, for what must be told where no system call may be made.
struct clinux_shared { pid_t pid; int listener; };
int clinux_next(struct cursor *plan, uint32_t *code, struct cursor *payload);
// What the parent prepares (clinux_prepare.c): every tree of the plan; fewer than there are: -errno, `step` says of what.
int clinux_prepare(const struct clinux_plan *plan, int trees[CLINUX_TREES], const char **step);
// Root of a user namespace from before us makes no nodes: the host's very device, where it has one of that name (as runc); -EPERM where not.
int clinux_host_node(const char *path, uint64_t mode, uint64_t device);
int clinux_write_maps(pid_t pid, const char *uid_map, const char *gid_map);
// Mounts (clinux_mount.c). mount(2)'s flags as mount_setattr(2)'s; and the change itself.
uint64_t clinux_attributes(uint64_t flags);
int clinux_set_attributes(int fd, uint64_t set, uint64_t clear, uint64_t propagation, int recursive);
// A file system's mount that is nowhere yet; mount(2)'s flags, `data` as mount(2) has it: "key=value,flag". Where it fails, `step` is what the kernel says.
int clinux_child_make_mount(struct child *child, const char *type, const char *source, uint64_t flags, const char *data);
// The file system and the mount have these flags and no others; with MS_BIND the mount alone.
int clinux_child_remount(struct child *child, int mount, uint64_t flags, const char *data);
// What the two above cannot do, and mount(2) onto an O_PATH descriptor can.
int clinux_only_by_mount(const char *source, uint64_t flags, const char *data);
int clinux_mount_on(int fd, const char *type, const char *source, uint64_t flags, const char *data);
int clinux_connect(const char *path);
// Loads a filter with a listener and sends its descriptor.
int clinux_child_notify(struct child *child, const void *filter, uint64_t flags, const struct clinux_plan *plan);
#define STEP(text) (child->step = (text))
#define TRY(call) do { if ((call) < 0) return -errno; } while (0)
#define TRYR(call) do { int r_ = (call); if (r_ < 0) return r_; } while (0)

static const uint64_t in_root = CLINUX_RESOLVE_IN_ROOT | CLINUX_RESOLVE_NO_MAGICLINKS;
void clinux_child_join_text(struct child *child, const char *a, const char *b);
void clinux_child_tell(int socket, uint32_t kind, int error, uint32_t index, const char *text, int fd);
// Below the root, by openat2; descriptors with O_PATH.
int clinux_child_folder_in_root(struct child *child, const char *path, uint64_t resolve);
int clinux_child_parent_in_root(struct child *child, const char *path, const char **name);
int clinux_child_target_in_root(struct child *child, const char *path, int folder);
int clinux_child_plain_folder(struct child *child, const char *path);
int clinux_child_attach(int mount, int target);
int clinux_child_bind_onto(struct child *child, int source, const char *source_path, int target, uint64_t attributes, int recursive);
// The number in decimal, at the end of `text`.
static inline char *clinux_child_digits(char text[24], uint64_t value) {
  int k = 23;
  text[k] = 0;
  do text[--k] = (char)('0' + value % 10); while (value /= 10);
  return text + k;
}
// "/proc/self/fd/N".
void clinux_child_fd_path(char path[40], int fd);
extern uint32_t clinux_child_groups[CLINUX_GROUPS];  // one thread: room for one list
// Operations of OCI bundles (clinux_bundle.c); -ENOSYS for others.
int clinux_child_bundle(struct child *child, uint32_t code, struct cursor *p);
