// The child's operations that OCI bundles need beyond the agent's own: mounts with every option, nodes, hooks, the wait for start.
#define _GNU_SOURCE
#include "clinux_child.h"
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <dirent.h>
#include <unistd.h>

// MARK: mounts

static int do_propagation(struct cursor *p) {
  const char *path = string(p);
  uint64_t flags = number(p);
  struct mount_attr set = {.propagation = flags & ~(uint64_t)MS_REC};
  TRY(mount_setattr(AT_FDCWD, path, flags & MS_REC ? AT_RECURSIVE : 0, &set, sizeof set));
  return 0;
}

static int copy_tree(int from, int to, int depth);
static int copy_file(int from, int to, const char *name, const struct stat *status) {
  int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (source < 0) return -errno;
  int target = openat(to, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
  int r = target < 0 ? -errno : 0;
  for (off_t left = status->st_size; r == 0 && left > 0;) {
    char block[16384];
    ssize_t n = read(source, block, sizeof block);
    if (n < 0) r = -errno;
    if (n <= 0) break;
    for (ssize_t done = 0; r == 0 && done < n;) {
      ssize_t written = write(target, block + done, (size_t)(n - done));
      if (written < 0) r = -errno; else done += written;
    }
    left -= n;
  }
  if (r == 0 && (fchown(target, status->st_uid, status->st_gid) < 0 || fchmod(target, status->st_mode & 07777) < 0)) r = -errno;
  close(source);
  if (target >= 0) close(target);
  return r;
}
static int copy_entry(int from, int to, const char *name, int depth) {
  struct stat status;
  TRY(fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW));
  if (S_ISREG(status.st_mode)) return copy_file(from, to, name, &status);
  if (S_ISLNK(status.st_mode)) {
    char content[4096];
    ssize_t n = readlinkat(from, name, content, sizeof content - 1);
    if (n < 0) return -errno;
    content[n] = 0;
    TRY(symlinkat(content, to, name));
    TRY(fchownat(to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW));
    return 0;
  }
  if (!S_ISDIR(status.st_mode)) return 0;
  TRY(mkdirat(to, name, 0700));
  int below = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), made = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int r = below < 0 || made < 0 ? -errno : copy_tree(below, made, depth + 1);
  if (r == 0 && (fchown(made, status.st_uid, status.st_gid) < 0 || fchmod(made, status.st_mode & 07777) < 0)) r = -errno;
  if (below >= 0) close(below);
  if (made >= 0) close(made);
  return r;
}
// A folder's content into another; getdents64 since readdir allocates.
static int copy_tree(int from, int to, int depth) {
  if (depth > 64) return -ELOOP;
  struct entry { uint64_t inode; int64_t offset; unsigned short length; unsigned char type; char name[]; };
  _Alignas(8) char block[4096];
  for (;;) {
    long n = syscall(SYS_getdents64, from, block, sizeof block);
    if (n < 0) return -errno;
    if (n == 0) return 0;
    for (long at = 0; at < n;) {
      struct entry *entry = (struct entry *)(block + at);
      at += entry->length;
      if (strcmp(entry->name, ".") && strcmp(entry->name, "..")) TRYR(copy_entry(from, to, entry->name, depth));
    }
  }
}

// The root itself may be mounted over: then that is the root.
static int take_root(struct child *child, const char *target) {
  if (*target) return 0;
  int root = open(child->root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return -errno;
  close(child->root);
  child->root = root;
  return 0;
}
// Where a mount goes. A link that is itself meant must be there, and in no file system of the kernel's: /proc/self, /dev/pts and the like are what
// everybody in the container goes by (as crun has it).
static int mount_target(struct child *child, const char *target, int folder, uint64_t how) {
  if (!(how & CLINUX_ATTACH_TARGET_LINK)) return clinux_child_target_in_root(child, target, folder);
  const char *name;
  int parent = clinux_child_parent_in_root(child, target, &name);
  if (parent < 0) return parent;
  int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), error = errno;
  close(parent);
  if (fd < 0) return -error;
  struct statfs fs;
  if (fstatfs(fd, &fs) < 0 || fs.f_type == 0x9fa0 /* proc */ || fs.f_type == 0x62656572 /* sysfs */ || fs.f_type == 0x1cd1 /* devpts */) {
    STEP("dest-nofollow: its target is in a file system of the kernel's");
    close(fd);
    return -EPERM;
  }
  return fd;
}
// What the parent made, with its options set.
static int attach_tree(struct child *child, int tree, const char *target, uint64_t propagation, uint64_t how) {
  struct stat status;
  TRY(fstat(tree, &status));
  STEP("make the target");
  int fd = mount_target(child, target, S_ISDIR(status.st_mode), how);
  if (fd < 0) return fd;
  STEP("attach");
  int r = clinux_child_attach(tree, fd);
  close(fd);
  if (r < 0) return r;
  STEP("set the propagation");
  TRYR(clinux_set_attributes(tree, 0, 0, propagation & ~(uint64_t)MS_REC, (propagation & MS_REC) != 0));
  return take_root(child, target);
}
static int do_remount(struct child *child, const char *target, uint64_t flags, const char *data) {
  int fd = clinux_openat2(child->root, target, O_PATH | O_CLOEXEC, 0, in_root);
  if (fd < 0) return fd;
  int r = clinux_child_remount(child, fd, flags, data);
  close(fd);
  return r;
}
// A user namespace without a network namespace of its own may mount no sysfs: then it is shown the host's, without its cgroups.
static int bind_host_sys(struct child *child, int target, uint64_t flags, uint64_t cleared) {
  STEP("bind the host's");
  int tree = open_tree(AT_FDCWD, "/sys", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (tree < 0) return -errno;
  int r = clinux_set_attributes(tree, clinux_attributes(flags), clinux_attributes(cleared), MS_PRIVATE, 1);
  if (r == 0) r = clinux_child_attach(tree, target);
  if (r == 0) {
    int cgroup = openat(tree, "fs/cgroup", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (cgroup >= 0) {
      int empty = r = clinux_child_make_mount(child, "tmpfs", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,mode=755");
      if (empty >= 0) {
        r = clinux_child_attach(empty, cgroup);
        close(empty);
      }
      close(cgroup);
    }
  }
  close(tree);
  return r;
}

// The mount on top of the target; where that is the root, it becomes the root.
static int mounted(struct child *child, const char *target) {
  TRYR(take_root(child, target));
  STEP("open what was mounted");
  return clinux_openat2(child->root, *target ? target : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, in_root);
}
static int is_plain(const char *path) { return !strcmp(path, "proc") || !strcmp(path, "sys"); }
static int do_attach(struct child *child, struct cursor *p) {
  const char *type = string(p), *source = string(p), *target = string(p);
  uint64_t flags = number(p), cleared = number(p), below_set = number(p), below_cleared = number(p), propagation = number(p);
  const char *data = string(p);
  uint64_t how = number(p), tree_number = number(p), copy_up = how & CLINUX_ATTACH_COPY_UP;
  if (p->bad || tree_number > CLINUX_TREES) return -EBADMSG;
  int recursive = (flags & MS_REC) != 0, fd;
  if (flags & MS_REMOUNT) return do_remount(child, target, flags, data);
  if (tree_number) return attach_tree(child, child->trees[tree_number - 1], target, propagation, how);
  if (flags & MS_BIND) {
    struct stat status;
    STEP("look at the source");
    int link = how & CLINUX_ATTACH_SOURCE_LINK ? AT_SYMLINK_NOFOLLOW : 0;
    TRY(fstatat(AT_FDCWD, source, &status, link));
    STEP("make the target");
    fd = mount_target(child, target, S_ISDIR(status.st_mode), how);
    if (fd < 0) return fd;
    STEP("clone the source");
    int tree;
    TRY(tree = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | link | (recursive ? AT_RECURSIVE : 0)));
    STEP("set the options");
    TRYR(clinux_set_attributes(tree, clinux_attributes(flags), clinux_attributes(cleared), 0, 0));
    TRYR(clinux_set_attributes(tree, below_set, below_cleared, 0, 1));
    STEP("attach");
    TRYR(clinux_child_attach(tree, fd));
    close(fd);
    // Sharing needs a place in the tree.
    STEP("set the propagation");
    TRYR(clinux_set_attributes(tree, 0, 0, propagation & ~(uint64_t)MS_REC, (propagation & MS_REC) != 0));
    close(tree);
    return take_root(child, target);
  }
  STEP("make the target");
  static char with_mode[4200];
  int was_there = 0;
  if (!strcmp(type, "tmpfs") && !strstr(data, "mode=")) {
    // It has the mode of what it covers, as with runc and crun; the file system's own where there was nothing.
    struct stat covered;
    int below = clinux_openat2(child->root, *target ? target : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, in_root);
    was_there = below >= 0;
    if (below >= 0 && fstat(below, &covered) == 0 && strlen(data) < 4096) {
      char digits[24], *end = stpcpy(with_mode, data);
      int k = 23;
      digits[k] = 0;
      unsigned mode = covered.st_mode & 07777;
      do digits[--k] = (char)('0' + (mode & 7)); while (mode >>= 3);
      strcpy(stpcpy(stpcpy(end, *data ? "," : ""), "mode="), digits + k);
      data = with_mode;
    }
    if (below >= 0) close(below);
  }
  fd = is_plain(target) ? clinux_child_plain_folder(child, target) : clinux_child_target_in_root(child, target, 1);
  if (fd < 0) return fd;
  int under = -1;
  struct stat status;
  if (copy_up) {
    STEP("open what is to be copied up");
    TRY(under = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    TRY(fstat(under, &status));
  }
  STEP("");
  // Read-only after the copying.
  uint64_t now = copy_up ? flags & ~(uint64_t)MS_RDONLY : flags;
  int by_name = clinux_only_by_mount(source, now, data), attached = by_name, tree = -1;
  if (!by_name) {
    tree = clinux_child_make_mount(child, type, source, now, data);
    if (tree == -EPERM && child->in_user_namespace && !strcmp(type, "sysfs")) {
      attached = 1;
      tree = bind_host_sys(child, fd, flags, cleared);
      if (tree == 0) tree = mounted(child, target);
    }
    // A hierarchy of v1 that is going has mount(2) begin again (cgroup1_get_tree); a context that failed cannot.
    attached |= by_name = tree == -EBUSY && !strcmp(type, "cgroup");
  }
  if (by_name) {
    STEP("");
    tree = clinux_mount_on(fd, type, source, now, data);
    if (tree == 0) tree = mounted(child, target);
  }
  if (tree < 0) {
    close(fd);
    return tree;
  }
  if (copy_up) {
    STEP("copy up");
    int into;
    TRY(into = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    TRYR(copy_tree(under, into, 0));
    if (was_there && !strstr(data, "mode=")) TRY(fchmod(into, status.st_mode & 07777));
    close(into);
    close(under);
    if (flags & MS_RDONLY) TRYR(clinux_set_attributes(tree, MOUNT_ATTR_RDONLY, 0, 0, 0));
  }
  STEP("set the options");
  TRYR(clinux_set_attributes(tree, below_set, below_cleared, 0, 1));
  if (!attached) {
    STEP("attach");
    TRYR(clinux_child_attach(tree, fd));
  }
  close(fd);
  STEP("set the propagation");
  TRYR(clinux_set_attributes(tree, 0, 0, propagation & ~(uint64_t)MS_REC, (propagation & MS_REC) != 0));
  close(tree);
  return take_root(child, target);
}

static int bind_host_node(struct child *child, const char *path, uint64_t mode, dev_t device) {
  STEP("make it, or bind the host's");
  int source = clinux_host_node(path, mode, device);
  if (source < 0) return source;
  int target = clinux_child_target_in_root(child, path, 0);
  // Read-only: its mode and owner are the host's.
  int r = target < 0 ? target : clinux_child_bind_onto(child, source, NULL, target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
  close(source);
  if (target >= 0) close(target);
  return r;
}
// By the folder's descriptor: a /dev that is a symbolic link leads nowhere but inside the root.
static int do_node(struct child *child, struct cursor *p) {
  const char *path = string(p), *name;
  uint64_t mode = number(p), major_number = number(p), minor_number = number(p), uid = number(p), gid = number(p), tree = number(p);
  if (p->bad || tree > CLINUX_TREES) return -EBADMSG;
  if (tree) return attach_tree(child, child->trees[tree - 1], path, 0, 0);
  dev_t device = S_ISFIFO(mode) ? 0 : makedev((unsigned)major_number, (unsigned)minor_number);
  int parent = clinux_child_parent_in_root(child, path, &name);
  if (parent < 0) return parent;
  mode_t mask = umask(0);
  int r = mknodat(parent, name, (mode_t)mode, device) < 0 ? -errno : 0;
  umask(mask);
  if (r == -EEXIST) {
    struct stat status;
    if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && (status.st_mode & S_IFMT) == (mode & S_IFMT) && status.st_rdev == device) r = 0;
    else STEP("another file is in its place");
  }
  if (r == -EPERM && !S_ISFIFO(mode)) {
    close(parent);
    return bind_host_node(child, path, mode, device);
  }
  if (r == 0 && fchownat(parent, name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0) r = -errno;
  close(parent);
  return r;
}
// In a mount namespace that others are in.
static int do_chroot(struct child *child, struct cursor *p) {
  uint64_t tree = number(p);
  if (p->bad || tree > CLINUX_TREES) return -EBADMSG;
  TRY(fchdir(tree ? child->trees[tree - 1] : child->root));
  TRY(chroot("."));
  TRY(chdir("/"));
  return 0;
}
// By the folder's descriptor and a name that is no link: the container may change its links meanwhile.
static int do_detach(struct child *child, struct cursor *p) {
  const char *path = string(p);
  char folder[4096];
  size_t n = strlen(path);
  if (p->bad || n == 0 || n >= sizeof folder) return -EINVAL;
  size_t slash = n;
  while (slash && path[slash - 1] != '/') slash--;
  memcpy(folder, path, slash);
  folder[slash] = 0;
  int parent = clinux_openat2(child->root, slash ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, in_root);
  if (parent < 0) return parent;
  int r = fchdir(parent) < 0 || umount2(path + slash, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
  close(parent);
  return r;
}
static int do_move_root(struct child *child) {
  TRY(fchdir(child->root));
  TRY(move_mount(child->root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
  TRY(chroot("."));
  TRY(chdir("/"));
  return 0;
}

// MARK: the process

// Before a seccomp filter, which may not know openat2. For HOME alone: a broken /etc/passwd is none of our business.
static int do_home(struct child *child, struct cursor *p) {
  uint64_t uid = number(p);
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  char text[24], what[64];
  child->have_user = root >= 0 && clinux_resolve_user(root, clinux_child_digits(text, uid), NULL, 0, &child->user, what) == 0;
  if (root >= 0) close(root);
  return 0;
}
static int do_ids(struct child *child, struct cursor *p) {
  uint64_t uid = number(p), gid = number(p), count = number(p);
  int keep = count == UINT64_MAX;
  if (keep) count = 0;
  if (count > CLINUX_GROUPS) return -E2BIG;
  for (uint64_t i = 0; i < count; i++) clinux_child_groups[i] = (uint32_t)number(p);
  if (p->bad) return -EBADMSG;
  STEP("own stdio");
  for (int fd = 0; fd < 3; fd++) {
    struct stat status;
    // As runc: so that /dev/stdout can be opened again. Not the host's devices, not what is someone else's, and no file that is only read: as its
    // owner the container could have it opened for writing.
    if (uid == 0 || fstat(fd, &status) < 0) continue;
    // The terminal is the container's own, made just now. Its group stays the file system's, which is tty's.
    if (child->tty_done) (void)!fchown(fd, (uid_t)uid, (gid_t)-1);
    int writable = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    if (S_ISFIFO(status.st_mode) || (S_ISREG(status.st_mode) && writable && status.st_uid == 0))
      (void)!fchown(fd, (uid_t)uid, (gid_t)gid);
  }
  TRY(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
  STEP("set groups");
  if (!keep && syscall(SYS_setgroups, count, clinux_child_groups) < 0 && (errno != EPERM || count > 0)) return -errno;
  STEP("set gid");
  TRY(syscall(SYS_setresgid, gid, gid, gid));
  STEP("set uid");
  TRY(syscall(SYS_setresuid, uid, uid, uid));
  return 0;
}
static int do_scheduler(struct cursor *p) {
  // linux/sched/types.h, the first version: glibc 2.36 has neither the type nor the call.
  struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } wanted = {.size = 48};
  wanted.policy = (uint32_t)number(p);
  wanted.flags = number(p);
  wanted.nice = (int32_t)number(p);
  wanted.priority = (uint32_t)number(p);
  wanted.runtime = number(p);
  wanted.deadline = number(p);
  wanted.period = number(p);
  if (p->bad) return -EBADMSG;
  TRY(syscall(SYS_sched_setattr, 0, &wanted, 0));
  return 0;
}
static int do_preserve(struct child *child, struct cursor *p) {
  uint64_t count = number(p);
  if (count > 1024) return -E2BIG;
  int *ours[] = {&child->report, &child->state_fd, &child->receiver};
  for (int i = 0; i < 3; i++)
    if (*ours[i] >= 0) TRY(*ours[i] = fcntl(*ours[i], F_DUPFD_CLOEXEC, 7 + (int)count));
  // 5 is the socket that waits for start: out of the way, too.
  int listener = fcntl(5, F_DUPFD_CLOEXEC, 7 + (int)count);
  // A place without one is closed: some descriptor of ours may have its number.
  for (int i = 0; i < (int)count; i++)
    if (number(p)) TRY(dup2(7 + i, 3 + i)); else close(3 + i);
  if (p->bad) return -EBADMSG;
  child->preserve = (int)count;
  child->listener = listener;
  return 0;
}

static int run_hook(struct child *child, const char *path, uint64_t seconds, char *const *argv, char *const *envp) {
  int pidfd = -1;
  pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD | CLONE_PIDFD, 0, &pidfd, 0, 0);
  if (pid < 0) return -errno;
  if (pid == 0) {
    if (child->state_fd >= 0) {
      lseek(child->state_fd, 0, SEEK_SET);
      dup2(child->state_fd, 0);
    }
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
    syscall(SYS_execve, path, argv, envp);
    _exit(127);
  }
  struct pollfd end = {.fd = pidfd, .events = POLLIN};
  int r = 0, status = 0;
  if (poll(&end, 1, seconds ? (int)(seconds > 2000000 ? 2000000000 : seconds * 1000) : -1) == 0) {
    kill(pid, SIGKILL);
    r = -ETIMEDOUT;
  }
  while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {}
  close(pidfd);
  if (r == 0 && status != 0) r = -ECANCELED;
  return r;
}
static int do_hook(struct child *child, struct cursor *p) {
  char **list = child->strings;
  const char *path = string(p);
  uint64_t seconds = number(p), argc = number(p), n = 0;
  if (argc > child->strings_most) return -EBADMSG;
  for (uint64_t i = 0; i < argc; i++) list[n++] = (char *)(uintptr_t)string(p);
  list[n++] = NULL;
  char **envp = list + n;
  uint64_t envc = number(p);
  if (envc > child->strings_most - argc) return -EBADMSG;
  for (uint64_t i = 0; i < envc; i++) list[n++] = (char *)(uintptr_t)string(p);
  list[n] = NULL;
  if (p->bad) return -EBADMSG;
  int r = run_hook(child, path, seconds, list, envp);
  if (r == -ECANCELED) STEP("it did not exit with 0");
  if (r == -ETIMEDOUT) STEP("it was killed at its timeout");
  return r;
}
static int take_state(struct child *child, int socket) {
  char byte;
  int fd;
  if (clinux_receive_fd(socket, &byte, 1, &fd) != 1) return -EPIPE;
  if (child->state_fd >= 0) close(child->state_fd);
  child->state_fd = fd;
  return 0;
}

// access(2): user and effective user are one by now. A filter of the configuration may be loaded and not know the call: then exec itself will tell.
static int may_execute(const char *path) {
  if (syscall(SYS_faccessat, AT_FDCWD, path, X_OK) == 0 || errno == EPERM || errno == ENOSYS) return 0;
  return -1;
}
static int do_lookup(struct child *child, struct cursor *p) {
  const char *program = string(p), *path = string(p);
  if (p->bad) return -EBADMSG;
  size_t length = strlen(program);
  if (length >= sizeof child->executable) return -ENAMETOOLONG;
  if (strchr(program, '/')) {
    struct stat status;
    TRY(stat(program, &status));
    if (S_ISDIR(status.st_mode)) return -EISDIR;
    TRY(may_execute(program));
    strcpy(child->executable, program);
    return 0;
  }
  STEP("not found in PATH");
  int error = ENOENT;
  for (const char *at = *path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";; at++) {
    const char *end = strchrnul(at, ':');
    size_t n = (size_t)(end - at);
    struct stat status;
    if (n && *at == '/' && n + length + 2 < sizeof child->executable) {
      memcpy(child->executable, at, n);
      child->executable[n] = '/';
      strcpy(child->executable + n + 1, program);
      if (stat(child->executable, &status) == 0 && S_ISREG(status.st_mode)) {
        if (may_execute(child->executable) == 0) return 0;
        error = errno;
      }
    }
    if (!*end) break;
    at = end;
  }
  child->executable[0] = 0;
  return -error;
}
static int do_wait(struct child *child) {
  clinux_child_tell(child->report, CLINUX_REPORT_READY, 0, child->index, "", -1);
  close(child->report);
  child->report = -1;
  int connection, listener = child->listener >= 0 ? child->listener : 5;
  do connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC); while (connection < 0 && errno == EINTR);
  if (connection < 0) return -errno;
  close(listener);
  // Until exec closes it, whoever started us learns what goes wrong.
  child->report = connection;
  if (child->preserve) TRY(child->report = fcntl(connection, F_DUPFD_CLOEXEC, 7 + child->preserve));
  if (child->report != connection) close(connection);
  return take_state(child, child->report);
}

// By write(2): a filter that is loaded already knows it if it knows any call. Whoever started us may be gone, which is no reason to end.
static int do_hooks_done(struct child *child) {
  struct clinux_report report = {.kind = CLINUX_REPORT_READY, .index = child->index};
  signal(SIGPIPE, SIG_IGN);
  ssize_t n = write(child->report, &report, sizeof report);
  signal(SIGPIPE, SIG_DFL);
  (void)n;
  return 0;
}

static int do_keep_shared(struct child *child, struct cursor *p) {
  const char *root = string(p);
  size_t n = strlen(root);
  char path[4096];
  if (p->bad || n >= sizeof path) return -ENAMETOOLONG;
  memcpy(path, root, n + 1);
  child->shared = 1;
  // The mount that the root lies on: neither the root's own mount nor what is mounted in it appears on the host.
  for (;;) {
    struct statx info;
    TRY(statx(AT_FDCWD, path, AT_NO_AUTOMOUNT, 0, &info));
    if (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) break;
    while (n > 1 && path[n - 1] != '/') n--;
    if (n > 1) n--;
    if (n == 0) return -ENOENT;
    path[n] = 0;
  }
  struct mount_attr own = {.propagation = MS_PRIVATE};
  TRY(mount_setattr(AT_FDCWD, path, 0, &own, sizeof own));
  return 0;
}
static int do_memory_policy(struct cursor *p) {
  static unsigned long mask[4096 / (8 * sizeof(unsigned long))];
  uint64_t mode = number(p), length;
  const char *nodes = bytes(p, &length);
  if (p->bad || length > sizeof mask) return -EBADMSG;
  memcpy(mask, nodes, length);
  // One bit more than there are: set_mempolicy(2) counts so.
  TRY(syscall(SYS_set_mempolicy, mode, length ? mask : NULL, length ? sizeof mask * 8 - 1 : 0));
  return 0;
}
static int do_cpus(struct cursor *p) {
  uint64_t length;
  const char *mask = bytes(p, &length);
  if (p->bad) return -EBADMSG;
  TRY(syscall(SYS_sched_setaffinity, 0, length, mask));
  return 0;
}
// For the next exec. By the host's /proc, opened before anything was entered: what the container calls /proc may take the label and do nothing
// (CVE-2019-16884, CVE-2025-52881).
static int do_label(struct child *child, struct cursor *p) {
  uint64_t tree = number(p);
  const char *file = string(p), *text = string(p);
  char path[64] = "thread-self/attr/";
  if (p->bad || tree == 0 || tree > CLINUX_TREES || strlen(file) > 40) return -EBADMSG;
  strcat(path, file);
  struct statfs kind;
  TRY(fstatfs(child->trees[tree - 1], &kind));
  if (kind.f_type != 0x9fa0 /* proc */) return -ENOTSUP;
  int fd = openat(child->trees[tree - 1], path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
  close(fd);
  return r;
}

static int do_label_mount(struct child *child, struct cursor *p) {
  const char *target = string(p), *context = string(p);
  if (p->bad) return -EBADMSG;
  int fd = clinux_openat2(child->root, target, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, in_root);
  if (fd < 0) return fd;
  int r = fsetxattr(fd, "security.selinux", context, strlen(context) + 1, 0) < 0 ? -errno : 0;
  close(fd);
  return r;
}

int clinux_child_bundle(struct child *child, uint32_t code, struct cursor *p) {
  switch (code) {
    case CLINUX_OP_PROPAGATION: return do_propagation(p);
    case CLINUX_OP_ATTACH: return do_attach(child, p);
    case CLINUX_OP_NODE: return do_node(child, p);
    case CLINUX_OP_MOVE_ROOT: return do_move_root(child);
    case CLINUX_OP_CHROOT: return do_chroot(child, p);
    case CLINUX_OP_HERE: TRY(child->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)); return 0;
    case CLINUX_OP_DETACH: return do_detach(child, p);
    case CLINUX_OP_END: _exit(0);
    case CLINUX_OP_DOMAINNAME: {
      const char *name = string(p);
      TRY(setdomainname(name, strlen(name)));
      return 0;
    }
    case CLINUX_OP_PERSONALITY: TRY(personality((unsigned long)number(p))); return 0;
    case CLINUX_OP_UMASK: umask((mode_t)number(p)); return 0;
    case CLINUX_OP_SCHEDULER: return do_scheduler(p);
    case CLINUX_OP_IO_PRIORITY: TRY(syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, (int)number(p))); return 0;
    case CLINUX_OP_HOME: return do_home(child, p);
    case CLINUX_OP_IDS: return do_ids(child, p);
    case CLINUX_OP_PRESERVE: return do_preserve(child, p);
    case CLINUX_OP_MEMORY_POLICY: return do_memory_policy(p);
    case CLINUX_OP_CPUS: return do_cpus(p);
    case CLINUX_OP_LABEL: return do_label(child, p);
    case CLINUX_OP_LABEL_MOUNT: return do_label_mount(child, p);
    case CLINUX_OP_KEEP_SHARED: return do_keep_shared(child, p);
    case CLINUX_OP_HOOKS:
      clinux_child_tell(child->report, CLINUX_REPORT_HOOKS, 0, child->index, "", -1);
      return take_state(child, child->report);
    case CLINUX_OP_HOOK: return do_hook(child, p);
    case CLINUX_OP_LOOKUP: return do_lookup(child, p);
    case CLINUX_OP_WAIT: return do_wait(child);
    case CLINUX_OP_HOOKS_DONE: return do_hooks_done(child);
    default: return -ENOSYS;
  }
}
