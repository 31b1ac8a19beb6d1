// What the parent makes before the clone, since a user namespace's root may not: mounts with ids mapped, device nodes. And the way of a seccomp
// listener out of the container.
#define _GNU_SOURCE
#include "clinux_child.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// A user namespace is what mount_setattr(2) takes for a mapping; it lives as long as the descriptor.
static int user_namespace(const char *uid_map, const char *gid_map) {
  pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (pid < 0) return -errno;
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (;;) pause();
  }
  char path[48] = "/proc/", digits[24];
  strcat(strcat(path, clinux_child_digits(digits, (uint64_t)pid)), "/ns/user");
  int fd = clinux_write_maps(pid, uid_map, gid_map) < 0 ? -errno : open(path, O_RDONLY | O_CLOEXEC);
  if (fd == -1) fd = -errno;
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
  return fd;
}
static int make_bind(struct cursor *p, const char **step) {
  const char *source = string(p);
  uint64_t flags = number(p), cleared = number(p), below_set = number(p), below_cleared = number(p), how = number(p), propagation = number(p);
  const char *uid_map = string(p), *gid_map = string(p);
  if (p->bad) return -EBADMSG;
  *step = "open the source of a bind mount";
  int tree = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (flags & MS_REC ? AT_RECURSIVE : 0) |
                       (how & CLINUX_TREE_SOURCE_LINK ? AT_SYMLINK_NOFOLLOW : 0));
  if (tree < 0) return -errno;
  int r = 0;
  if (*uid_map) {
    *step = "make the mapping of an idmapped mount";
    int mapping = r = user_namespace(uid_map, gid_map);
    if (r >= 0) {
      *step = "map the ids of a mount (its file system and this kernel must be able to)";
      struct mount_attr map = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)mapping};
      r = mount_setattr(tree, "", AT_EMPTY_PATH | (how & CLINUX_TREE_MAP_BELOW ? AT_RECURSIVE : 0), &map, sizeof map) < 0 ? -errno : 0;
      close(mapping);
    }
  }
  // As in any new user namespace: the host's mounts come, none goes back, unless another way is asked for.
  if (r == 0) *step = "set the options of a bind mount";
  if (r == 0 && !propagation) r = clinux_set_attributes(tree, 0, 0, MS_SLAVE, 1);
  if (r == 0) {
    r = clinux_set_attributes(tree, clinux_attributes(flags), clinux_attributes(cleared), 0, 0);
  }
  if (r == 0) r = clinux_set_attributes(tree, below_set, below_cleared, 0, 1);
  if (r < 0) close(tree);
  return r < 0 ? r : tree;
}
// A mount of what lies on a file system that is mounted nowhere. Kernels before 6.15 make one only of what is mounted where the caller is: a helper that
// shares our descriptors mounts it for that moment, in a mount namespace of its own.
static int clone_tree(int *mounted, const char *name) {
  int folder = *mounted, tree = open_tree(folder, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree >= 0 || errno != EINVAL) return tree < 0 ? -errno : tree;
  int *answer = mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (answer == MAP_FAILED) return -errno;
  *answer = -EIO;
  pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) {
    struct mount_attr own = {.propagation = MS_PRIVATE};
    int r = unshare(CLONE_NEWNS) < 0 || mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &own, sizeof own) < 0 ||
            move_mount(folder, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0 ? -1 : open_tree(folder, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    *answer = r < 0 ? -errno : r;
    _exit(0);
  }
  int r = pid < 0 ? -errno : 0;
  while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
  if (r == 0) r = *answer;
  munmap(answer, sizeof *answer);
  // It ended with where it was mounted.
  close(folder);
  *mounted = -1;
  return r;
}
int clinux_host_node(const char *path, uint64_t mode, uint64_t device) {
  int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  struct stat status;
  if (fd >= 0 && fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == (mode & S_IFMT) && status.st_rdev == device) return fd;
  if (fd >= 0) close(fd);
  return -EPERM;
}
// On a tmpfs that is seen nowhere: the container is shown the node alone, by a bind of it.
static int make_node(struct cursor *p, int *folder, int number_of, const char **step) {
  uint64_t mode = number(p), major_number = number(p), minor_number = number(p), uid = number(p), gid = number(p);
  const char *path = string(p);
  if (p->bad) return -EBADMSG;
  *step = "make a device node outside the user namespace";
  dev_t device = makedev((unsigned)major_number, (unsigned)minor_number);
  if (*folder < 0) {
    int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0) return -errno;
    TRY(fsconfig(fs, FSCONFIG_SET_STRING, "size", "64k", 0));
    TRY(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    TRY(*folder = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
    close(fs);
  }
  char digits[24];
  const char *name = clinux_child_digits(digits, (uint64_t)number_of);
  mode_t mask = umask(0);
  int r = mknodat(*folder, name, (mode_t)mode, device) < 0 ? -errno : 0;
  umask(mask);
  if (r == -EPERM) {
    int host = clinux_host_node(path, mode, device);
    if (host < 0) return host;
    int tree = open_tree(host, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), error = errno;
    close(host);
    if (tree < 0) return -error;
    // Its mode and owner are the host's.
    r = clinux_set_attributes(tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0, 0, 0);
    if (r < 0) close(tree);
    return r < 0 ? r : tree;
  }
  TRYR(r);
  TRY(fchownat(*folder, name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW));
  return clone_tree(folder, name);
}
int clinux_prepare(const struct clinux_plan *plan, int trees[CLINUX_TREES], const char **step) {
  struct cursor c = {plan->bytes + 8, plan->bytes + plan->length, 0}, p;
  uint32_t code;
  int count = 0, folder = -1, r = 0;
  while (r >= 0 && clinux_next(&c, &code, &p) > 0) {
    if (code == CLINUX_OP_TREE_BIND) r = make_bind(&p, step);
    else if (code == CLINUX_OP_TREE_NODE) r = make_node(&p, &folder, count, step);
    else if (code == CLINUX_OP_TREE_FOLDER) {
      *step = "open a folder";
      r = open(string(&p), O_PATH | O_DIRECTORY | O_CLOEXEC);
      if (r < 0) r = -errno;
    } else continue;
    if (r >= 0) trees[count++] = r;
  }
  if (folder >= 0) close(folder);
  return r < 0 ? r : count;
}

int clinux_connect(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}
// The message has the container's pid wherever two of the plan's texts meet.
static int send_listener(struct child *child, const struct clinux_plan *plan, int listener) {
  static char message[65536];
  struct cursor c = {plan->bytes + 8, plan->bytes + plan->length, 0}, p;
  uint32_t code;
  size_t length = 0;
  while (clinux_next(&c, &code, &p) > 0) {
    if (code != CLINUX_OP_LISTENER) continue;
    string(&p);
    for (int part = 0; part < 3; part++) {
      const char *text = string(&p);
      char digits[24];
      if (p.bad || length + strlen(text) + 24 > sizeof message) return -EMSGSIZE;
      length = (size_t)(stpcpy(message + length, text) - message);
      if (part < 2) length = (size_t)(stpcpy(message + length, clinux_child_digits(digits, (uint64_t)child->outside->pid)) - message);
    }
  }
  ssize_t n = clinux_send_fd(child->receiver, message, length, listener);
  return n == (ssize_t)length ? 0 : n < 0 ? (int)n : -EIO;
}
// Once the filter is there even sendmsg may wait for an answer of the very program that has not got the listener yet. So a helper that shares our
// descriptors, but not our filter, sends it; it learns the number by memory, since any system call of ours might be one that waits.
int clinux_child_notify(struct child *child, const void *filter, uint64_t flags, const struct clinux_plan *plan) {
  STEP("make the helper that sends the seccomp listener");
  pid_t helper = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
  if (helper < 0) return -errno;
  if (helper == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    int number;
    // For the length of one system call.
    while ((number = __atomic_load_n(&child->outside->listener, __ATOMIC_ACQUIRE)) == -1) syscall(SYS_sched_yield);
    int r = number < 0 ? number : send_listener(child, plan, number);
    _exit(r < 0 ? -r : 0);
  }
  STEP("load the filter");
  long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER, filter);
  int error = listener < 0 ? errno : 0, status = 0;
  __atomic_store_n(&child->outside->listener, error ? -error - 1 : (int)listener, __ATOMIC_RELEASE);
  // From here on whoever has the listener may be asked.
  STEP("send the seccomp listener");
  while (waitpid(helper, &status, 0) < 0 && errno == EINTR) {}
  if (error) return -error;
  close((int)listener);
  close(child->receiver);
  child->receiver = -1;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : WIFEXITED(status) ? -WEXITSTATUS(status) : -EPIPE;
}
