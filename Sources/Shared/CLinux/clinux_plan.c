// The path from clone3 to execve. The child is a copy of a process with one thread and no heap in use: plain system calls,
// no allocation. The order of the steps is the plan's; what a step does is here.
#define _GNU_SOURCE
#include "clinux.h"
#include "clinux_child.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <grp.h>

// MARK: reading

int clinux_next(struct cursor *plan, uint32_t *code, struct cursor *payload) {
  if (plan->at == plan->end) return 0;
  uint32_t length;
  if (plan->end - plan->at < 8) return -EBADMSG;
  memcpy(code, plan->at, 4);
  memcpy(&length, plan->at + 4, 4);
  plan->at += 8;
  if (length % 8 || (size_t)(plan->end - plan->at) < length) return -EBADMSG;
  *payload = (struct cursor){plan->at, plan->at + length, 0};
  plan->at += length;
  return 1;
}
int clinux_plan_map(int fd, struct clinux_plan *plan) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  if (status.st_size < 8) return -EBADMSG;
  void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (bytes == MAP_FAILED) return -errno;
  uint64_t magic;
  memcpy(&magic, bytes, 8);
  plan->bytes = bytes;
  plan->length = (size_t)status.st_size;
  return magic == CLINUX_PLAN_MAGIC ? 0 : -EBADMSG;
}
int clinux_plan_launch(const struct clinux_plan *plan, struct clinux_launch *launch) {
  memset(launch, 0, sizeof *launch);
  launch->state = launch->oom = launch->log = launch->cgroup = "";
  launch->uid_map = launch->gid_map = launch->time_offsets = launch->listener = "";
  struct cursor c = {plan->bytes + 8, plan->bytes + plan->length, 0}, p;
  uint32_t code;
  for (int r; (r = clinux_next(&c, &code, &p)) != 0;) {
    if (r < 0) return r;
    switch (code) {
      case CLINUX_OP_NAMESPACES: launch->namespaces = number(&p); break;
      case CLINUX_OP_CGROUP: launch->cgroup = string(&p); break;
      case CLINUX_OP_CGROUP_TASKS:
        if (launch->tasks_count == 16) return -E2BIG;
        launch->tasks[launch->tasks_count++] = string(&p);
        break;
      case CLINUX_OP_SETNS:
        if (launch->joined_count == 8) return -E2BIG;
        launch->joined[launch->joined_count].kind = number(&p);
        launch->joined[launch->joined_count++].path = string(&p);
        break;
      case CLINUX_OP_JOIN: launch->join = number(&p); break;
      case CLINUX_OP_DETACHED: launch->detached = 1; launch->keep_keyring = (int)number(&p); break;
      case CLINUX_OP_ID_MAPS: launch->uid_map = string(&p); launch->gid_map = string(&p); break;
      case CLINUX_OP_TIME_OFFSETS: launch->time_offsets = string(&p); break;
      case CLINUX_OP_STATE: launch->state = string(&p); launch->oom = string(&p); break;
      case CLINUX_OP_LOG: launch->log = string(&p); launch->log_size = number(&p); launch->log_files = number(&p); break;
      case CLINUX_OP_TTY: launch->tty = 1; break;
      case CLINUX_OP_STUB: launch->stub = 1; break;
      case CLINUX_OP_WAIT: launch->waits = 1; break;
      case CLINUX_OP_TREE_BIND: case CLINUX_OP_TREE_NODE: case CLINUX_OP_TREE_FOLDER:
        if (++launch->trees > CLINUX_TREES) return -E2BIG;
        break;
      case CLINUX_OP_LISTENER: launch->listener = string(&p); break;
      case CLINUX_OP_FIRST_CPUS: launch->first_cpus = (const uint8_t *)bytes(&p, &launch->first_cpus_length); break;
      case CLINUX_OP_LISTEN: launch->listens = 1; launch->attach_seconds = number(&p); break;
    }
    if (p.bad) return -EBADMSG;
  }
  return 0;
}

// MARK: telling

void clinux_child_tell(int socket, uint32_t kind, int error, uint32_t index, const char *text, int fd) {
  struct clinux_report report;
  memset(&report, 0, sizeof report);
  report.kind = kind;
  report.error = error;
  report.index = index;
  strncpy(report.text, text, sizeof report.text - 1);
  clinux_send_fd(socket, &report, sizeof report, fd);
}

void clinux_refuse(int report, int error) { clinux_child_tell(report, CLINUX_REPORT_FAILED, error, ~0U, "read the plan", -1); }

// MARK: the child

void clinux_child_fd_path(char path[40], int fd) {
  char digits[24];
  strcat(strcpy(path, "/proc/self/fd/"), clinux_child_digits(digits, (uint64_t)fd));
}
void clinux_child_join_text(struct child *child, const char *a, const char *b) {
  size_t n = strlen(a);
  if (n > 60) n = 60;
  memcpy(child->step_buffer, a, n);
  strncpy(child->step_buffer + n, b, sizeof child->step_buffer - n - 1);
  child->step = child->step_buffer;
}

// No symbolic link on the way.
static const uint64_t plain_path = CLINUX_RESOLVE_BENEATH | CLINUX_RESOLVE_NO_SYMLINKS | CLINUX_RESOLVE_NO_MAGICLINKS;

// A folder of the root, or a file, made where it is missing, with the folders before it. By a descriptor from name to name, so that nothing that changes
// meanwhile leads out; what a link says is gone below the root in its stead (no links: only with RESOLVE_IN_ROOT). So one to what is not there yet has
// its goal made, as runc and Docker have it. O_PATH descriptor.
static int walk(struct child *child, const char *path, int folder, uint64_t resolve) {
  // What is still to be gone, and the way to `fd`, without links.
  char rest[4096], here[4096] = "", name[256];
  size_t length = 0;
  int links = 0, r = -ENAMETOOLONG, fd = dup(child->root);
  if (fd < 0) return -errno;
  if (strlen(path) >= sizeof rest) goto fail;
  strcpy(rest, path);
  for (const char *at = rest + strspn(rest, "/"); *at;) {
    size_t n = strcspn(at, "/");
    const char *end = at + n, *next = end + strspn(end, "/");
    r = -ENAMETOOLONG;
    if (n >= sizeof name || length + n + 2 > sizeof here) goto fail;
    memcpy(name, at, n);
    name[n] = 0;
    if (!strcmp(name, "..")) {
      // Only links may say so: by names, since the folder may be elsewhere by now.
      r = -EINVAL;
      if (!links) goto fail;
      while (length && here[--length] != '/') {}
      here[length] = 0;
      close(fd);
      if ((fd = clinux_openat2(child->root, length ? here : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, plain_path)) < 0) return fd;
    }
    if (!strcmp(name, "..") || !strcmp(name, ".")) { at = next; continue; }
    int is_folder = folder || *next, kind = is_folder ? O_DIRECTORY : 0;
    int below = clinux_openat2(fd, name, O_PATH | O_CLOEXEC | kind, 0, plain_path);
    if (below == -ENOENT) {
      int made = is_folder ? mkdirat(fd, name, 0755) : openat(fd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_RDONLY, 0644);
      if (made < 0 && errno != EEXIST) { r = -errno; goto fail; }
      if (made >= 0 && !is_folder) close(made);
      below = clinux_openat2(fd, name, O_PATH | O_CLOEXEC | kind, 0, plain_path);
    }
    if (below == -ELOOP && (resolve & CLINUX_RESOLVE_IN_ROOT)) {
      char link[4096];
      // procfs's links to what a process has open say where that is, and are no way there (proc(5)): refused as for what exists. CVE-2024-21626
      memcpy(link, here, length);
      link[length] = '/';
      memcpy(link + length + 1, name, n + 1);
      int seen = clinux_openat2(child->root, link, O_PATH | O_CLOEXEC, 0, in_root);
      if (seen >= 0) close(seen);
      if (seen == -ELOOP) { r = seen; goto fail; }
      ssize_t count = readlinkat(fd, name, link, sizeof link);
      size_t left = strlen(end);
      if (count < 0) { r = -errno; goto fail; }
      if (++links > 40) { r = -ELOOP; goto fail; }
      if (count == (ssize_t)sizeof link || (size_t)count + left >= sizeof rest) goto fail;
      memmove(rest + count, end, left + 1);
      memcpy(rest, link, (size_t)count);
      if (rest[0] == '/') {
        here[length = 0] = 0;
        close(fd);
        if ((fd = dup(child->root)) < 0) return -errno;
      }
      at = rest + strspn(rest, "/");
      continue;
    }
    if ((r = below) < 0) goto fail;
    if (length) here[length++] = '/';
    memcpy(here + length, name, n + 1);
    length += n;
    close(fd);
    fd = below;
    at = next;
    if (is_folder) continue;
    struct stat status;
    r = fstat(fd, &status) < 0 ? -errno : S_ISDIR(status.st_mode) ? -EISDIR : 0;
    if (r < 0) goto fail;
    return fd;
  }
  if (folder) return fd;
  r = -EISDIR;
fail:
  close(fd);
  return r;
}
int clinux_child_folder_in_root(struct child *child, const char *path, uint64_t resolve) { return walk(child, path, 1, resolve); }

// The last name of a path, and a descriptor of the folder before it.
int clinux_child_parent_in_root(struct child *child, const char *path, const char **name) {
  char folder[4096];
  size_t n = strlen(path);
  if (n >= sizeof folder) return -ENAMETOOLONG;
  while (n && path[n - 1] == '/') return -EINVAL;
  size_t slash = n;
  while (slash && path[slash - 1] != '/') slash--;
  if (slash == n || !strcmp(path + slash, "..") || !strcmp(path + slash, ".")) return -EINVAL;
  memcpy(folder, path, slash);
  folder[slash] = 0;
  *name = path + slash;
  return clinux_child_folder_in_root(child, folder, in_root);
}
int clinux_child_target_in_root(struct child *child, const char *path, int folder) {
  int fd = clinux_openat2(child->root, *path ? path : ".", O_PATH | O_CLOEXEC, 0, in_root);
  if (fd == -ENOENT) return walk(child, path, folder, in_root);
  if (fd < 0) return fd;
  struct stat status;
  if (fstat(fd, &status) < 0) { int e = errno; close(fd); return -e; }
  if ((S_ISDIR(status.st_mode) ? 1 : 0) != folder) { close(fd); return folder ? -ENOTDIR : -EISDIR; }
  return fd;
}
// /proc, /sys, /dev: a folder by that very name; a symbolic link there is an attack (CVE-2019-19921, CVE-2023-27561).
int clinux_child_plain_folder(struct child *child, const char *path) {
  int fd = clinux_child_folder_in_root(child, path, CLINUX_RESOLVE_BENEATH | CLINUX_RESOLVE_NO_SYMLINKS | CLINUX_RESOLVE_NO_MAGICLINKS);
  if (fd == -ELOOP || fd == -ENOTDIR) STEP("refused: the image has a symbolic link or file in its place");
  return fd;
}
int clinux_child_attach(int mount, int target) {
  return move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
}
int clinux_child_bind_onto(struct child *child, int source, const char *source_path, int target, uint64_t attributes, int recursive) {
  unsigned recurse = recursive ? AT_RECURSIVE : 0;
  int tree = source_path ? open_tree(AT_FDCWD, source_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recurse)
                         : open_tree(source, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recurse);
  if (tree < 0) return -errno;
  struct mount_attr set = {.attr_set = attributes, .propagation = MS_PRIVATE};
  int r = mount_setattr(tree, "", AT_EMPTY_PATH | recurse, &set, sizeof set) < 0 ? -errno : clinux_child_attach(tree, target);
  close(tree);
  (void)child;
  return r;
}

static int do_overlay(struct child *child, struct cursor *p) {
  const char *target = string(p), *upper = string(p), *work = string(p);
  uint64_t count = number(p);
  // By mount(2): fsconfig(2) takes 255 bytes of lowerdir, and lowerdir+ only since Linux 6.7. A page is all that mount(2) takes. Descriptors' names keep
  // long lists short.
  static char data[4096];
  size_t n = 0;
  for (int compact = 0; compact < 2; compact++) {
    struct cursor list = *p;
    n = 0;
    int overflow = 0;
    for (uint64_t i = 0; i < count && !overflow; i++) {
      const char *layer = string(&list);
      if (list.bad) return -EBADMSG;
      char name[40];
      if (compact) {
        int fd = open(layer, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) { clinux_child_join_text(child, "open layer ", layer); return -errno; }
        clinux_child_fd_path(name, fd);
        layer = name;
      }
      const char *head = i ? ":" : "lowerdir=";
      if (n + strlen(head) + strlen(layer) * 2 + strlen(upper) + strlen(work) + 64 + sizeof CLINUX_OVERLAY_OPTIONS > sizeof data) { overflow = 1; break; }
      n = (size_t)(stpcpy(data + n, head) - data);
      for (const char *c = layer; *c; c++) {
        if (*c == ':' || *c == ',' || *c == '\\') data[n++] = '\\';
        data[n++] = *c;
      }
      data[n] = 0;
    }
    if (!overflow) break;
    if (compact) { STEP("too many layers"); return -E2BIG; }
  }
  char *end = data + n;
  end = stpcpy(stpcpy(end, ",upperdir="), upper);
  end = stpcpy(stpcpy(end, ",workdir="), work);
  end = stpcpy(end, CLINUX_OVERLAY_OPTIONS);
  STEP("mount overlay");
  // volatile: no sync at unmount; a container's upper folder is never mounted twice.
  strcpy(end, ",volatile");
  if (mount("overlay", target, "overlay", MS_NODEV, data) < 0) {
    *end = 0;
    TRY(mount("overlay", target, "overlay", MS_NODEV, data));
  }
  STEP("open the root");
  TRY(child->root = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC));
  return 0;
}
static int do_root(struct child *child, struct cursor *p) {
  const char *target = string(p), *source = string(p);
  uint64_t devices = number(p);
  int fd = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  TRYR(clinux_child_bind_onto(child, -1, source, fd, devices ? 0 : MOUNT_ATTR_NODEV, 1));
  close(fd);
  child->root_path = target;
  TRY(child->root = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC));
  return 0;
}
static int do_stage(struct child *child, struct cursor *p) {
  const char *type = string(p);
  uint64_t flags = number(p);
  const char *data = string(p);
  if (p->bad || child->staged_count == sizeof child->staged / sizeof *child->staged) return -E2BIG;
  int fd = clinux_child_make_mount(child, type, type, flags, data);
  if (fd < 0) return fd;
  child->staged[child->staged_count].type = type;
  child->staged[child->staged_count].flags = flags;
  child->staged[child->staged_count].data = data;
  child->staged[child->staged_count++].fd = fd;
  return 0;
}
// What was staged, once; else made now.
static int take_mount(struct child *child, const char *type, uint64_t flags, const char *data) {
  for (int i = 0; i < child->staged_count; i++) {
    if (child->staged[i].fd < 0 || child->staged[i].flags != flags || strcmp(child->staged[i].type, type) || strcmp(child->staged[i].data, data)) continue;
    int fd = child->staged[i].fd;
    child->staged[i].fd = -1;
    return fd;
  }
  return clinux_child_make_mount(child, type, type, flags, data);
}
static int new_proc(struct child *child) {
  child->proc = take_mount(child, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
  return child->proc < 0 ? child->proc : 0;
}
static int do_proc(struct child *child) {
  TRYR(new_proc(child));
  int target = clinux_child_plain_folder(child, "proc");
  if (target < 0) return target;
  int r = clinux_child_attach(child->proc, target);
  close(target);
  return r;
}
static int do_mount(struct child *child, struct cursor *p) {
  const char *type = string(p), *target = string(p);
  uint64_t flags = number(p);
  const char *data = string(p);
  uint64_t plain = number(p);
  int fd = plain ? clinux_child_plain_folder(child, target) : clinux_child_target_in_root(child, target, 1);
  if (fd < 0) return fd;
  int mount = take_mount(child, type, flags, data), r = mount;
  if (mount >= 0) {
    r = clinux_child_attach(mount, fd);
    close(mount);
  }
  close(fd);
  return r;
}
static int do_bind(struct child *child, struct cursor *p) {
  const char *source = string(p), *target = string(p);
  uint64_t flags = number(p);
  const char *subpath = string(p);
  if (p->bad) return -EBADMSG;
  // Opened once: what is looked at is what is bound, whatever its names lead to by then (CVE-2017-1002101, CVE-2021-25741).
  STEP("look at the source");
  int from = open(source, O_PATH | O_CLOEXEC);
  if (from < 0) return -errno;
  if (*subpath) {
    STEP("find the subpath in its volume");
    int below = clinux_openat2(from, subpath, O_PATH | O_CLOEXEC, 0, in_root);
    close(from);
    if (below < 0) return below;
    from = below;
  }
  struct stat status;
  TRY(fstat(from, &status));
  STEP("make the target");
  int fd = clinux_child_target_in_root(child, target, S_ISDIR(status.st_mode));
  if (fd < 0) return fd;
  STEP("bind");
  int r = clinux_child_bind_onto(child, from, NULL, fd, (flags & CLINUX_BIND_READONLY ? MOUNT_ATTR_RDONLY : 0) | (flags & CLINUX_BIND_DEVICES ? 0 : MOUNT_ATTR_NODEV),
                    flags & CLINUX_BIND_RECURSIVE);
  close(fd);
  close(from);
  return r;
}
// Only in folders that this plan made: no symbolic link on the way, and no file there before.
static int do_file(struct child *child, struct cursor *p) {
  const char *path = string(p);
  uint64_t uid = number(p), gid = number(p), mode = number(p), length;
  const char *content = bytes(p, &length);
  if (p->bad) return -EBADMSG;
  int fd = clinux_openat2(child->root, path, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600, plain_path);
  if (fd < 0) return fd;
  STEP("write");
  for (uint64_t done = 0; done < length;) {
    ssize_t count = write(fd, content + done, length - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) { int e = errno; close(fd); return -e; }
    done += (uint64_t)count;
  }
  STEP("give it its owner and mode");
  // In this order: a change of owner takes set-id bits away.
  int r = fchown(fd, (uid_t)uid, (gid_t)gid) < 0 || fchmod(fd, (mode_t)mode) < 0 ? -errno : 0;
  close(fd);
  return r;
}
static int do_unmount(struct child *child, struct cursor *p) {
  const char *path = string(p);
  int fd = clinux_openat2(child->root, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, plain_path);
  if (fd < 0) return fd;
  char name[40];
  clinux_child_fd_path(name, fd);
  int r = umount2(name, MNT_DETACH) < 0 ? -errno : 0;
  close(fd);
  if (r < 0) return r;
  const char *last;
  int parent = clinux_child_parent_in_root(child, path, &last);
  if (parent < 0) return parent;
  r = unlinkat(parent, last, AT_REMOVEDIR) < 0 ? -errno : 0;
  close(parent);
  return r;
}
static int do_device(struct child *child, struct cursor *p) {
  const char *name = string(p);
  uint64_t major_number = number(p), minor_number = number(p);
  char path[128] = "/dev/";
  if (strlen(name) > 100) return -EINVAL;
  strcat(path, name);
  int source = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (source < 0) return -errno;
  struct stat status;
  TRY(fstat(source, &status));
  STEP("check the host's device");
  if (!S_ISCHR(status.st_mode) || status.st_rdev != ((major_number << 8) | minor_number)) return -ENODEV;
  STEP("make the target");
  int target = clinux_child_target_in_root(child, path, 0);
  if (target < 0) return target;
  // Read-only: the device works as ever, its mode and owner on the host cannot be changed from inside.
  int r = clinux_child_bind_onto(child, source, NULL, target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
  close(target);
  if (!strcmp(name, "null")) child->null = source; else close(source);
  return r;
}
static int do_symlink(struct child *child, struct cursor *p) {
  const char *content = string(p), *path = string(p), *name;
  uint64_t same = number(p);
  if (p->bad) return -EBADMSG;
  int parent = clinux_child_parent_in_root(child, path, &name);
  if (parent < 0) return parent;
  int r = symlinkat(content, parent, name) < 0 ? -errno : 0;
  if (r == -EEXIST) {
    char there[4096];
    ssize_t n = same ? readlinkat(parent, name, there, sizeof there) : 0;
    if (!same || (n == (ssize_t)strlen(content) && !memcmp(there, content, (size_t)n))) r = 0;
  }
  close(parent);
  return r;
}
static int do_mask(struct child *child, struct cursor *p) {
  const char *path = string(p);
  int target = clinux_openat2(child->root, path, O_PATH | O_CLOEXEC, 0, in_root);
  if (target == -ENOENT || target == -ENOTDIR) return 0;
  if (target < 0) return target;
  struct stat status;
  TRY(fstat(target, &status));
  int r;
  if (S_ISDIR(status.st_mode)) {
    static int empty = -1;
    if (empty < 0) {
      TRYR(empty = clinux_child_make_mount(child, "tmpfs", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k"));
      r = clinux_child_attach(empty, target);
    } else {
      r = clinux_child_bind_onto(child, empty, NULL, target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0);
    }
  } else {
    if (child->null < 0) {
      child->null = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
      struct stat device;
      if (child->null < 0) return -errno;
      TRY(fstat(child->null, &device));
      if (!S_ISCHR(device.st_mode) || device.st_rdev != ((1 << 8) | 3)) return -ENODEV;
    }
    r = clinux_child_bind_onto(child, child->null, NULL, target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
  }
  close(target);
  return r;
}
static int do_readonly(struct child *child, struct cursor *p) {
  const char *path = string(p);
  int target = clinux_openat2(child->root, path, O_PATH | O_CLOEXEC, 0, in_root);
  if (target == -ENOENT || target == -ENOTDIR) return 0;
  if (target < 0) return target;
  // A mount of its own is changed as it is; a second one over it would only be in /proc/self/mountinfo twice.
  struct statx info;
  struct mount_attr set = {.attr_set = MOUNT_ATTR_RDONLY};
  int r;
  if (statx(target, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, 0, &info) == 0 && (info.stx_attributes & STATX_ATTR_MOUNT_ROOT))
    r = mount_setattr(target, "", AT_EMPTY_PATH, &set, sizeof set) < 0 ? -errno : 0;
  else
    r = clinux_child_bind_onto(child, target, NULL, target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 1);
  close(target);
  return r;
}
static int do_sysctl(struct child *child, struct cursor *p) {
  const char *path = string(p), *value = string(p);
  char full[512] = "sys/";
  if (strlen(path) > 400) return -EINVAL;
  if (child->proc < 0) TRYR(new_proc(child));
  strcat(full, path);
  int fd = clinux_openat2(child->proc, full, O_WRONLY | O_CLOEXEC, 0, CLINUX_RESOLVE_BENEATH | CLINUX_RESOLVE_NO_SYMLINKS | CLINUX_RESOLVE_NO_XDEV);
  if (fd < 0) return fd;
  int r = write(fd, value, strlen(value)) < 0 ? -errno : 0;
  close(fd);
  return r;
}
static int do_pivot(struct child *child) {
  int old = -1;
  if (child->shared) TRY(old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  TRY(fchdir(child->root));
  TRY(syscall(SYS_pivot_root, ".", "."));
  if (old >= 0) {
    // The host's mounts must not go with ours.
    STEP("part from the host's mounts");
    TRYR(clinux_set_attributes(old, 0, 0, MS_SLAVE, 1));
    close(old);
    STEP("");
  }
  TRY(umount2(".", MNT_DETACH));
  TRY(chdir("/"));
  return 0;
}
static int do_rlimit(struct child *child, struct cursor *p) {
  int resource = (int)number(p);
  struct rlimit wanted = {.rlim_cur = number(p), .rlim_max = number(p)}, now;
  if (setrlimit(resource, &wanted) == 0) return 0;
  if (errno != EPERM) return -errno;
  TRY(getrlimit(resource, &now));
  if (wanted.rlim_max > now.rlim_max) wanted.rlim_max = now.rlim_max;
  if (wanted.rlim_cur > wanted.rlim_max) wanted.rlim_cur = wanted.rlim_max;
  TRY(setrlimit(resource, &wanted));
  clinux_child_tell(child->report, CLINUX_REPORT_WARNING, EPERM, child->index, "lowered to the host's hard limit", -1);
  return 0;
}
static int write_oom_score(uint64_t shifted) {
  char text[8];
  int value = (int)shifted - 1000, k = 7;
  unsigned v = (unsigned)(value < 0 ? -value : value);
  text[k] = 0;
  do text[--k] = (char)('0' + v % 10); while (v /= 10);
  if (value < 0) text[--k] = '-';
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int r = write(fd, text + k, (size_t)(7 - k)) < 0 ? -errno : 0;
  close(fd);
  return r;
}
static int do_cwd(struct child *child, struct cursor *p) {
  const char *path = string(p);
  uint64_t make = number(p);
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  child->root = root;
  int fd = clinux_openat2(root, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, in_root);
  if (fd == -ENOENT && make) fd = clinux_child_folder_in_root(child, path, in_root);
  if (fd < 0) return fd;
  TRY(fchdir(fd));
  close(fd);
  char here[4096];
  // CVE-2024-21626: the working folder must be reachable from the root; the kernel says "(unreachable)" when not.
  STEP("verify that it is inside the root");
  long n = syscall(SYS_getcwd, here, sizeof here);
  if (n < 0) return -errno;
  return here[0] == '/' ? 0 : -EPERM;
}
uint32_t clinux_child_groups[CLINUX_GROUPS];
static int do_user(struct child *child, struct cursor *p) {
  const char *user = string(p);
  uint64_t count = number(p);
  char **groups = child->strings;
  if (count > child->strings_most) return -EBADMSG;
  for (uint64_t i = 0; i < count; i++) groups[i] = (char *)(uintptr_t)string(p);
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  char what[64];
  child->user.groups = clinux_child_groups;
  int r = clinux_resolve_user(root, user, (const char *const *)groups, (int)count, &child->user, what);
  close(root);
  if (r < 0) {
    clinux_child_join_text(child, r == -ENOENT ? "no such user in /etc/passwd: " : r == -ESRCH ? "no such group in /etc/group: " : "not a valid id: ", what);
    return r;
  }
  child->have_user = 1;
  STEP("own stdio");
  for (int fd = 0; fd < 3; fd++) {
    // So that /dev/stdout can be opened again by this user; never the host's /dev/null. A terminal was made for this process alone.
    struct stat status;
    if (fstat(fd, &status) == 0 && (child->tty_done || !S_ISCHR(status.st_mode)) && fchown(fd, child->user.uid, (gid_t)-1) < 0 && errno != EPERM && errno != EROFS)
      return -errno;
  }
  STEP("set groups");
  TRY(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
  TRY(syscall(SYS_setgroups, child->user.group_count, child->user.groups));
  STEP("set gid");
  TRY(syscall(SYS_setresgid, child->user.gid, child->user.gid, child->user.gid));
  STEP("set uid");
  TRY(syscall(SYS_setresuid, child->user.uid, child->user.uid, child->user.uid));
  return 0;
}
// Bounding set first: it needs CAP_SETPCAP, which is then still there.
static int do_capabilities(struct child *child, struct cursor *p) {
  uint64_t bounding = number(p), effective = number(p), permitted = number(p), inheritable = number(p), ambient = number(p);
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct data[2];
  // A change of user left the permitted set (PR_SET_KEEPCAPS) but no effective one.
  STEP("raise");
  TRY(syscall(SYS_capget, &header, data));
  data[0].effective = data[0].permitted;
  data[1].effective = data[1].permitted;
  TRY(syscall(SYS_capset, &header, data));
  STEP("bound");
  for (unsigned long value = 0; value < 64; value++) {
    if (bounding >> value & 1) continue;
    if (prctl(PR_CAPBSET_READ, value, 0, 0, 0) != 1) continue;
    TRY(prctl(PR_CAPBSET_DROP, value, 0, 0, 0));
  }
  STEP("clear ambient");
  TRY(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
  STEP("set");
  memset(data, 0, sizeof data);
  data[0] = (struct __user_cap_data_struct){(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable};
  data[1] = (struct __user_cap_data_struct){(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)};
  TRY(syscall(SYS_capset, &header, data));
  STEP("raise ambient");
  for (unsigned long value = 0; value < 64; value++)
    if (ambient >> value & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, value, 0, 0) < 0)
      clinux_child_tell(child->report, CLINUX_REPORT_WARNING, errno, child->index, "an ambient capability is neither permitted nor inheritable", -1);
  return 0;
}
static int do_seccomp(struct child *child, struct cursor *p) {
  uint64_t length;
  const char *program = bytes(p, &length);
  struct sock_fprog filter = {.len = (unsigned short)(length / sizeof(struct sock_filter)), .filter = (struct sock_filter *)(uintptr_t)program};
  uint64_t flags = number(p);
  if (p->bad) return -EBADMSG;
  if (length == 0 || length / sizeof(struct sock_filter) > 4096 * 8) return -EINVAL;
  // Now, since the filter may not know the call; what is opened from here on is closed by exec, too.
  child->marked = syscall(SYS_close_range, 3 + child->preserve, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
  if (child->receiver >= 0) return clinux_child_notify(child, &filter, flags, child->plan);
  TRY(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter));
  return 0;
}
static int do_loopback(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  int r = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
  close(fd);
  return r;
}
static int do_tty(struct child *child, struct cursor *p) {
  uint64_t rows = number(p), columns = number(p), console = number(p);
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  int master = clinux_openat2(root, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0, CLINUX_RESOLVE_BENEATH | CLINUX_RESOLVE_NO_SYMLINKS);
  if (master < 0) return master;
  struct stat status;
  struct statfs filesystem;
  TRY(fstat(master, &status));
  TRY(fstatfs(master, &filesystem));
  if (!S_ISCHR(status.st_mode) || status.st_rdev != ((5 << 8) | 2) || filesystem.f_type != 0x1cd1) return -EPERM;
  int unlock = 0;
  TRY(ioctl(master, TIOCSPTLCK, &unlock));
  int slave;
  TRY(slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (rows) clinux_ioctl_winsize(master, (uint16_t)rows, (uint16_t)columns);
  if (console) {
    STEP("bind to /dev/console");
    child->root = root;
    int target = clinux_child_target_in_root(child, "dev/console", 0);
    if (target < 0) return target;
    TRYR(clinux_child_bind_onto(child, slave, NULL, target, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0));
    close(target);
  }
  STEP("make it the controlling terminal");
  TRY(ioctl(slave, TIOCSCTTY, 0));
  for (int fd = 0; fd < 3; fd++) TRY(dup2(slave, fd));
  child->tty_done = 1;
  clinux_child_tell(child->report, CLINUX_REPORT_TERMINAL, 0, child->index, "", master);
  close(master);
  return 0;
}

// A pid 1 for programs that are none: hands on signals, reaps, ends as its child ends.
static _Noreturn void be_init(pid_t program) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  for (;;) {
    // Before the wait, too: a program that ended before signals were blocked has left none.
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
      if (pid == program) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    siginfo_t info;
    int signal = sigwaitinfo(&all, &info);
    if (signal > 0 && signal != SIGCHLD) kill(program, signal);
  }
}
// How many there are is for exec to judge. Made before any filter is there, which may not know mmap.
static int make_room(struct child *child, const struct clinux_plan *plan) {
  struct cursor c = {plan->bytes + 8, plan->bytes + plan->length, 0}, p;
  uint32_t code;
  uint64_t most = 0;
  while (clinux_next(&c, &code, &p) > 0) {
    // A string is 16 bytes of the plan, or more.
    uint64_t here = (uint64_t)(p.end - p.at) / 16;
    if ((code == CLINUX_OP_EXEC || code == CLINUX_OP_HOOK || code == CLINUX_OP_USER) && here > most) most = here;
  }
  if (most == 0) return 0;
  // Each list has its NULL, and HOME may be added.
  void *room = mmap(NULL, (most + 3) * sizeof(char *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return -errno;
  child->strings = room;
  child->strings_most = most;
  return 0;
}
// What was too much for execve(2), in figures.
static void tell_size(struct child *child, char *const *argv, char *const *envp) {
  uint64_t count = 0, bytes = 0, longest = 0;
  char *const *lists[] = {argv, envp};
  for (int i = 0; i < 2; i++)
    for (char *const *at = lists[i]; *at; at++, count++) {
      uint64_t length = strlen(*at) + 1;
      bytes += length;
      if (length > longest) longest = length;
    }
  char digits[24], *text = child->step_buffer;
  strcpy(text, clinux_child_digits(digits, count));
  strcat(strcat(text, " arguments and variables of "), clinux_child_digits(digits, bytes));
  strcat(strcat(text, " bytes, the longest of "), clinux_child_digits(digits, longest));
  STEP(text);
}
static int execute(struct child *child, const char *path, char *const *argv, char *const *envp) {
  syscall(SYS_execve, path, argv, envp);
  int error = errno;
  STEP("");
  if (error == E2BIG) tell_size(child, argv, envp);
  return -error;
}
static int do_exec(struct child *child, struct cursor *p) {
  static char home[300] = "HOME=";
  uint64_t argc = number(p), n = 0;
  char **list = child->strings, **argv = list;
  if (argc == 0 || argc > child->strings_most) return -EBADMSG;
  for (uint64_t i = 0; i < argc; i++) list[n++] = (char *)(uintptr_t)string(p);
  list[n++] = NULL;
  char **envp = list + n;
  uint64_t envc = number(p);
  if (envc > child->strings_most - argc) return -EBADMSG;
  const char *path = NULL;
  int has_home = 0;
  for (uint64_t i = 0; i < envc; i++) {
    char *entry = (char *)(uintptr_t)string(p);
    if (!strncmp(entry, "PATH=", 5)) path = entry + 5;
    if (!strncmp(entry, "HOME=", 5)) has_home = 1;
    list[n++] = entry;
  }
  if (p->bad) return -EBADMSG;
  if (!has_home) list[n++] = strcat(home, child->have_user ? child->user.home : "/");
  list[n] = NULL;
  // The parent's death is ours; after the last change of credentials, which would clear it (prctl(2)).
  if (!child->start) prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  // Every descriptor above stdio (and those to be kept) ends with exec, whoever left it open (CVE-2024-21626).
  STEP("close descriptors");
  if (syscall(SYS_close_range, 3 + child->preserve, ~0U, CLOSE_RANGE_CLOEXEC) < 0 && !(child->marked && (errno == EPERM || errno == ENOSYS))) return -errno;
  if (*child->executable) return execute(child, child->executable, argv, envp);
  if (child->init) {
    STEP("fork the program");
    pid_t program = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (program < 0) return -errno;
    if (program > 0) {
      syscall(SYS_close_range, 0, ~0U, 0);
      be_init(program);
    }
    if (!child->tty_done) {
      setsid();
    } else {
      // The terminal is this session's, whose leader is the init. As tini does: a group of its own, in the foreground, so that keys reach the
      // program and its children. Blocked: who is not there yet would be stopped for it (tcsetpgrp(3)).
      sigset_t stop, before;
      sigemptyset(&stop);
      sigaddset(&stop, SIGTTOU);
      sigprocmask(SIG_BLOCK, &stop, &before);
      STEP("go to the foreground of the terminal");
      if (setpgid(0, 0) < 0 || tcsetpgrp(0, getpid()) < 0) return -errno;
      sigprocmask(SIG_SETMASK, &before, NULL);
    }
  }
  if (strchr(argv[0], '/')) return execute(child, argv[0], argv, envp);
  STEP("not found in PATH");
  if (!path || !*path) path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  int error = ENOENT;
  for (const char *at = path;; at++) {
    char full[4096];
    const char *end = strchrnul(at, ':');
    size_t length = (size_t)(end - at);
    if (length && *at == '/' && length + strlen(argv[0]) + 2 < sizeof full) {
      memcpy(full, at, length);
      full[length] = '/';
      strcpy(full + length + 1, argv[0]);
      int r = execute(child, full, argv, envp);
      if (r == -EACCES) error = EACCES;
      else if (r != -ENOENT && r != -ENOTDIR) return r;
      STEP("not found in PATH");
    }
    if (!*end) return -error;
    at = end;
  }
}

static int perform(struct child *child, uint32_t code, struct cursor *p, int join) {
  switch (code) {
    case CLINUX_OP_PRIVATE: {
      struct mount_attr set = {.propagation = MS_PRIVATE};
      TRY(mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &set, sizeof set));
      return 0;
    }
    case CLINUX_OP_OVERLAY: return do_overlay(child, p);
    case CLINUX_OP_ROOT: return do_root(child, p);
    case CLINUX_OP_PROC: return do_proc(child);
    case CLINUX_OP_MOUNT: return do_mount(child, p);
    case CLINUX_OP_STAGE: return do_stage(child, p);
    case CLINUX_OP_BIND: return do_bind(child, p);
    case CLINUX_OP_FILE: return do_file(child, p);
    case CLINUX_OP_UNMOUNT: return do_unmount(child, p);
    case CLINUX_OP_DEVICE: return do_device(child, p);
    case CLINUX_OP_SYMLINK: return do_symlink(child, p);
    case CLINUX_OP_MASK: return do_mask(child, p);
    case CLINUX_OP_READONLY: return do_readonly(child, p);
    case CLINUX_OP_SYSCTL: return do_sysctl(child, p);
    case CLINUX_OP_PIVOT: return do_pivot(child);
    case CLINUX_OP_ROOT_READONLY: {
      struct mount_attr set = {.attr_set = MOUNT_ATTR_RDONLY};
      TRY(mount_setattr(child->root, "", AT_EMPTY_PATH, &set, sizeof set));
      return 0;
    }
    case CLINUX_OP_HOSTNAME: {
      const char *name = string(p);
      TRY(sethostname(name, strlen(name)));
      return 0;
    }
    case CLINUX_OP_RLIMIT: return do_rlimit(child, p);
    case CLINUX_OP_OOM_SCORE: {
      if (join) return 0;
      int r = write_oom_score(number(p));
      if (r == -EPERM || r == -EACCES) {
        clinux_child_tell(child->report, CLINUX_REPORT_WARNING, -r, child->index, "not permitted", -1);
        return 0;
      }
      return r;
    }
    case CLINUX_OP_CWD: return do_cwd(child, p);
    case CLINUX_OP_USER: return do_user(child, p);
    case CLINUX_OP_CAPABILITIES: return do_capabilities(child, p);
    case CLINUX_OP_NO_NEW_PRIVS:
      TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
      return 0;
    case CLINUX_OP_SECCOMP: return do_seccomp(child, p);
    case CLINUX_OP_TTY: return do_tty(child, p);
    case CLINUX_OP_LOOPBACK_UP: return do_loopback();
    case CLINUX_OP_INIT: child->init = 1; return 0;
    case CLINUX_OP_EXEC: return do_exec(child, p);
    default: return code < CLINUX_OP_PRIVATE ? 0 : clinux_child_bundle(child, code, p);
  }
}

static int in_user_namespace(const struct clinux_launch *launch) {
  for (int i = 0; i < launch->joined_count; i++)
    if (launch->joined[i].kind == CLONE_NEWUSER) return 1;
  return ((launch->namespaces | launch->join) & CLONE_NEWUSER) != 0;
}
// A stub becomes a container: everything from here on is what a child does that was just cloned for it, with the plan that comes now. It has seen
// neither another plan nor another's files; the host's mounts are copied now, so that they are today's.
static int await_plan(struct child *child, const struct clinux_launch *stub, struct clinux_plan *plan) {
  static struct clinux_launch launch;
  char byte;
  int fd;
  clinux_child_tell(child->report, CLINUX_REPORT_READY, 0, child->index, "", -1);
  // Without a word: it is not needed, or its parent is gone.
  if (clinux_receive_fd(child->report, &byte, 1, &fd) != 1 || fd < 0) _exit(0);
  STEP("read the container's plan");
  TRYR(clinux_plan_map(fd, plan));
  TRYR(clinux_plan_launch(plan, &launch));
  TRYR(make_room(child, plan));
  close(fd);
  STEP("be another container than the stub was made for");
  int same = (launch.namespaces & ~(uint64_t)CLONE_NEWNS) == stub->namespaces && !strcmp(launch.cgroup, stub->cgroup) &&
             launch.tasks_count == stub->tasks_count && !launch.join && !launch.detached && !launch.tty && !launch.listens && !launch.trees &&
             !*launch.uid_map && !*launch.time_offsets && !*launch.listener && !launch.first_cpus_length;
  for (int i = 0; same && i < launch.tasks_count; i++) same = !strcmp(launch.tasks[i], stub->tasks[i]);
  if (!same) return -EINVAL;
  for (int i = 0; i < launch.joined_count; i++) {
    clinux_child_join_text(child, "join namespace ", launch.joined[i].path);
    int space = open(launch.joined[i].path, O_RDONLY | O_CLOEXEC);
    if (space < 0) return -errno;
    TRY(setns(space, (int)launch.joined[i].kind));
    close(space);
  }
  STEP("new mount namespace");
  TRY(unshare(CLONE_NEWNS));
  return 0;
}
static _Noreturn void run_child(const struct clinux_plan *plan, const struct clinux_launch *launch, const int stdio[3], int report, const int *joined,
                                const int *tasks, const int *trees, int receiver, struct clinux_shared *outside) {
  static struct child state;
  struct child *child = &state;
  *child = (struct child){.report = report, .root = -1, .proc = -1, .null = -1, .state_fd = -1, .listener = -1, .start = launch->detached, .step = "",
                          .receiver = receiver, .trees = trees, .outside = outside, .plan = plan};
  int r = 0;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  umask(022);
  // First into the cgroups: whatever is used from here on counts as the container's.
  for (int i = 0; i < launch->tasks_count; i++)
    if (write(tasks[i], "0", 1) < 0) {
      clinux_child_join_text(child, "join cgroup ", launch->tasks[i]);
      r = -errno;
      goto fail;
    }
  if (*launch->uid_map) {
    char byte;
    STEP("wait for the user namespace's maps");
    if (recv(report, &byte, 1, 0) != 1) { r = -EPIPE; goto fail; }
  }
  if (launch->namespaces & CLONE_NEWCGROUP) {
    STEP("new cgroup namespace");
    if (unshare(CLONE_NEWCGROUP) < 0) { r = -errno; goto fail; }
  }
  for (int i = 0; i < launch->joined_count; i++) {
    if (joined[i] < 0) continue;
    clinux_child_join_text(child, "join namespace ", launch->joined[i].path);
    if (setns(joined[i], (int)launch->joined[i].kind) < 0) { r = -errno; goto fail; }
  }
  if ((child->in_user_namespace = in_user_namespace(launch))) {
    // Its root, where it has one: what is made from here on is owned by a user that the namespace knows.
    STEP("become the user namespace's root");
    if ((syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0) && errno != EINVAL) { r = -errno; goto fail; }
  }
  STEP("begin a session");
  if (setsid() < 0) { r = -errno; goto fail; }
  // A session keyring of its own; not every kernel has them.
  if (!launch->keep_keyring) syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL);
  STEP("set stdio");
  if (!launch->tty)
    for (int fd = 0; fd < 3; fd++)
      if (dup2(stdio[fd], fd) < 0) { r = -errno; goto fail; }
  STEP("make room for arguments");
  if ((r = make_room(child, plan)) < 0) goto fail;
  struct cursor c = {plan->bytes + 8, plan->bytes + plan->length, 0}, p;
  uint32_t code;
  for (;; child->index++) {
    child->step = "";
    if ((r = clinux_next(&c, &code, &p)) <= 0) break;
    if (code == CLINUX_OP_AWAIT) {
      static struct clinux_plan second;
      r = await_plan(child, launch, &second);
      child->index = (uint32_t)-1;
      if (r < 0) break;
      c = (struct cursor){second.bytes + 8, second.bytes + second.length, 0};
      child->plan = &second;
      continue;
    }
    if ((r = perform(child, code, &p, launch->join || launch->detached)) == 0 && p.bad) r = -EBADMSG;
    if (r < 0) break;
  }
  if (r == 0) r = -EBADMSG;
fail:
  // Not `report`: after the wait for start it is another.
  clinux_child_tell(child->report, CLINUX_REPORT_FAILED, -r, child->index, child->step, -1);
  _exit(127);
}

uint64_t clinux_start_time(pid_t pid) {
  char path[40] = "/proc/", digits[24], text[1024];
  strcat(strcat(path, clinux_child_digits(digits, (uint64_t)pid)), "/stat");
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  char *at = strrchr(text, ')');
  // Field 22; the one after ')' is field 3 (proc(5)).
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  return at ? strtoull(at + 1, NULL, 10) : 0;
}

static int write_to(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = write(fd, text, strlen(text));
  int error = errno;
  close(fd);
  errno = error;
  return n < 0 ? -1 : 0;
}
// user_namespaces(7): by a process outside, before the child does anything in it.
int clinux_write_maps(pid_t pid, const char *uid_map, const char *gid_map) {
  char path[48], text[24];
  const char *digits = clinux_child_digits(text, (uint64_t)pid);
  if (write_to(strcat(strcat(strcpy(path, "/proc/"), digits), "/gid_map"), gid_map) < 0) return -1;
  return write_to(strcat(strcat(strcpy(path, "/proc/"), digits), "/uid_map"), uid_map);
}

// The plan of its container for a stub that is ready: ours to know of, the child's to carry out. -1: there will be none.
static int hand_over(struct clinux_plan *plan, struct clinux_launch *launch, int channel, int report) {
  char byte;
  int fd;
  clinux_child_tell(report, CLINUX_REPORT_READY, 0, ~0U, "", -1);
  if (clinux_receive_fd(report, &byte, 1, &fd) != 1 || fd < 0) return -1;
  if (clinux_plan_map(fd, plan) < 0 || clinux_plan_launch(plan, launch) < 0) return -1;
  clinux_child_tell(report, CLINUX_REPORT_TAKEN, 0, ~0U, "", -1);
  ssize_t n = clinux_send_fd(channel, "p", 1, fd);
  close(fd);
  return n == 1 ? 0 : -1;
}

pid_t clinux_launch(struct clinux_plan *plan, struct clinux_launch *launch, const int stdio[3], int report, int *pidfd, int *terminal) {
  static int trees[CLINUX_TREES];
  int channel[2], cgroup = -1, tasks[16], joined[8], receiver = -1;
  struct clinux_shared *outside = NULL;
  *pidfd = *terminal = -1;
#define GIVE_UP(text) do { clinux_child_tell(report, CLINUX_REPORT_FAILED, errno, ~0U, text, -1); return -1; } while (0)
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0) GIVE_UP("make the error channel");
  for (int i = 0; i < launch->joined_count; i++)
    if ((joined[i] = open(launch->joined[i].path, O_RDONLY | O_CLOEXEC)) < 0) GIVE_UP("open a namespace");
  if (*launch->cgroup && (cgroup = open(launch->cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) GIVE_UP("open the cgroup");
  for (int i = 0; i < launch->tasks_count; i++)
    if ((tasks[i] = open(launch->tasks[i], O_WRONLY | O_CLOEXEC)) < 0) GIVE_UP("open the cgroup's tasks");
  if (launch->trees) {
    const char *step = "";
    int r = clinux_prepare(plan, trees, &step);
    if (r < 0) { errno = -r; GIVE_UP(step); }
  }
  if (*launch->listener) {
    if ((receiver = clinux_connect(launch->listener)) < 0) { errno = -receiver; GIVE_UP("connect to linux.seccomp.listenerPath"); }
    outside = mmap(NULL, sizeof *outside, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outside == MAP_FAILED) GIVE_UP("share memory with the child");
    outside->listener = -1;
  }
  if (launch->first_cpus_length && syscall(SYS_sched_setaffinity, 0, launch->first_cpus_length, launch->first_cpus) < 0)
    GIVE_UP("set process.execCPUAffinity.initial");
  // Nobody inside may look into this process or its copies before exec (ptrace(2), /proc/PID/exe).
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (launch->join || launch->detached) {
    // Inherited; inside it may not be permitted any more.
    struct cursor c = {plan->bytes + 8, plan->bytes + plan->length, 0}, p;
    uint32_t code;
    while (clinux_next(&c, &code, &p) > 0)
      if (code == CLINUX_OP_OOM_SCORE && write_oom_score(number(&p)) < 0 && launch->detached)
        clinux_child_tell(report, CLINUX_REPORT_WARNING, EPERM, ~0U, "oom_score_adj: not permitted", -1);
  }
  if (launch->join && setns(5, (int)launch->join) < 0) GIVE_UP("join the container's namespaces");
  if (launch->namespaces & CLONE_NEWTIME) {
    // For children alone; clocks can be moved as long as nobody is in it (time_namespaces(7)).
    if (unshare(CLONE_NEWTIME) < 0) GIVE_UP("make a time namespace");
    if (*launch->time_offsets && write_to("/proc/self/timens_offsets", launch->time_offsets) < 0) GIVE_UP("set the clocks of the time namespace");
  }
  // What decides who owns the others, and what only children enter, is joined here; the rest by the child.
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < launch->joined_count; i++) {
      if (joined[i] < 0 || (pass == 0 ? launch->joined[i].kind != CLONE_NEWUSER : launch->joined[i].kind != CLONE_NEWPID)) continue;
      if (setns(joined[i], (int)launch->joined[i].kind) < 0) GIVE_UP(pass ? "join the pid namespace" : "join the user namespace");
      close(joined[i]);
      joined[i] = -1;
    }
  struct clone_args arguments;
  memset(&arguments, 0, sizeof arguments);
  arguments.flags = (launch->namespaces & ~(uint64_t)(CLONE_NEWCGROUP | CLONE_NEWTIME)) | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0);
  arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
  if (outside) {
    // Written before the child runs; its own number is another.
    arguments.flags |= CLONE_PARENT_SETTID;
    arguments.parent_tid = (uint64_t)(uintptr_t)&outside->pid;
  }
  // A sibling is reaped by our parent, whom its end tells.
  if (launch->detached) arguments.flags |= CLONE_PARENT; else arguments.exit_signal = SIGCHLD;
  arguments.cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0;
  pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid < 0) GIVE_UP("clone");
  if (pid == 0) {
    close(channel[0]);
    run_child(plan, launch, stdio, channel[1], joined, tasks, trees, receiver, outside);
  }
  close(channel[1]);
  for (int i = 0; i < launch->joined_count; i++)
    if (joined[i] >= 0) close(joined[i]);
  if (cgroup >= 0) close(cgroup);
  for (int i = 0; i < launch->tasks_count; i++) close(tasks[i]);
  for (int i = 0; i < launch->trees; i++) close(trees[i]);
  if (receiver >= 0) close(receiver);
  if (*launch->uid_map) {
    if (clinux_write_maps(pid, launch->uid_map, launch->gid_map) < 0) {
      int error = errno;
      syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
      errno = error;
      GIVE_UP("map ids into the user namespace");
    }
    send(channel[0], "m", 1, MSG_NOSIGNAL);
  }
  for (;;) {
    struct clinux_report record;
    int fd;
    ssize_t n = clinux_receive_fd(channel[0], &record, sizeof record, &fd);
    if (n > 0 && record.kind == CLINUX_REPORT_READY && launch->stub) {
      if (hand_over(plan, launch, channel[0], report) == 0) continue;
      syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
      waitpid(pid, NULL, 0);
      return -1;
    }
    if (n <= 0 && launch->waits) {
      // It says so where something fails; exec, which would be silent, comes after the wait.
      memset(&record, 0, sizeof record);
      record.kind = CLINUX_REPORT_FAILED;
      record.error = ESRCH;
      record.index = ~0U;
      record.pid = pid;
      strcpy(record.text, "its first process was killed while it was made");
      clinux_send_fd(report, &record, sizeof record, -1);
      syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
      return -1;
    }
    if (n <= 0 || record.kind == CLINUX_REPORT_READY) break;
    if (record.kind == CLINUX_REPORT_TERMINAL) {
      *terminal = fd;
      continue;
    }
    record.pid = pid;
    clinux_send_fd(report, &record, sizeof record, -1);
    if (record.kind == CLINUX_REPORT_FAILED) {
      waitpid(pid, NULL, 0);
      close(channel[0]);
      return -1;
    }
    if (record.kind == CLINUX_REPORT_HOOKS) {
      // Our parent runs the hooks and answers with the container's state; without an answer the child ends.
      char answer;
      if (clinux_receive_fd(report, &answer, 1, &fd) != 1) break;
      clinux_send_fd(channel[0], &answer, 1, fd);
      if (fd >= 0) close(fd);
    }
  }
  close(channel[0]);
  return pid;
}
