// The least that a container's life costs on this machine: what orch's children do, by one C program with nothing around it: no state, no log, no monitor.
// usage: floor cold|warm LAYER FOLDER FILTER TURNS          prints the milliseconds of each turn: start to exit, and everything removed
//        floor parallel LAYER FOLDER FILTER SECONDS JOBS    prints the lives of JOBS processes that do nothing else
// FILTER: struct sock_filter[] (runtime-bench writes orch's own). cgroup: v2 by CLONE_INTO_CGROUP where it has controllers, else v1's `tasks`.
// warm: namespaces, cgroup and the kernel's file systems are made before the clock starts.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(call) do { if ((call) < 0) { fprintf(stderr, "floor: %s: %s\n", #call, strerror(errno)); _exit(1); } } while (0)
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
static char *text(const char *format, ...) {
  static char ring[16][512];
  static int at;
  va_list list;
  va_start(list, format);
  vsnprintf(ring[at = (at + 1) % 16], 512, format, list);
  va_end(list);
  return ring[at];
}
static void put(const char *path, const char *value) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  MUST(fd);
  MUST(write(fd, value, strlen(value)));
  close(fd);
}

static struct sock_fprog filter;
static const char *layer, *folder;
static int v2;
static const char *used[] = {"memory", "cpu", "cpuacct", "pids"};
static char *group(const char *controller, const char *name) {
  return v2 ? text("/sys/fs/cgroup/orch-floor/%s", name) : text("/sys/fs/cgroup/%s/orch-floor/%s", controller, name);
}
static void make_group(const char *name) {
  for (int i = 0; i < (v2 ? 1 : 4); i++) MUST(mkdir(group(used[i], name), 0755));
  put(text("%s/%s", group("memory", name), v2 ? "memory.max" : "memory.limit_in_bytes"), "67108864");
  put(text("%s/pids.max", group("pids", name)), "64");
}
static void remove_group(const char *name) {
  for (int i = 0; i < (v2 ? 1 : 4); i++)
    while (rmdir(group(used[i], name)) < 0) {
      if (errno != EBUSY) MUST(-1);
      usleep(100);
    }
}

static int mounted(const char *type, unsigned attributes, const char *const *options) {
  int fs = fsopen(type, FSOPEN_CLOEXEC);
  MUST(fs);
  for (; *options; options += 2) {
    if (options[1]) MUST(fsconfig(fs, FSCONFIG_SET_STRING, options[0], options[1], 0));
    else MUST(fsconfig(fs, FSCONFIG_SET_FLAG, options[0], NULL, 0));
  }
  MUST(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
  int mount = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
  MUST(mount);
  close(fs);
  return mount;
}
enum { safe = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };
static struct { int fd; const char *target; } made[12];
static int made_count;
static void make(const char *target, const char *type, unsigned attributes, const char *const *options) {
  made[made_count].fd = mounted(type, attributes, options);
  made[made_count++].target = target;
}
#define OPTIONS(...) (const char *const[]){__VA_ARGS__ __VA_OPT__(,) NULL}
static void prepare(void) {
  MUST(unshare(CLONE_NEWCGROUP));
  MUST(setsid());
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  MUST(ioctl(fd, SIOCSIFFLAGS, &request));
  close(fd);
  make("proc", "proc", safe, OPTIONS());
  make("sys", "sysfs", safe | MOUNT_ATTR_RDONLY, OPTIONS());
  if (v2) make("sys/fs/cgroup", "cgroup2", safe | MOUNT_ATTR_RDONLY, OPTIONS());
  else {
    make("sys/fs/cgroup", "tmpfs", safe, OPTIONS("mode", "755", "size", "64k"));
    for (int i = 0; i < 4; i++) make(text("sys/fs/cgroup/%s", used[i]), "cgroup", safe | MOUNT_ATTR_RDONLY, OPTIONS(used[i], NULL));
  }
  make("dev", "tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, OPTIONS("mode", "755", "size", "64m"));
  make("dev/pts", "devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, OPTIONS("ptmxmode", "0666", "mode", "0620"));
  make("dev/mqueue", "mqueue", safe, OPTIONS());
  make("dev/shm", "tmpfs", safe, OPTIONS("mode", "1777", "size", "64m"));
}
static void show(const char *source, const char *target, unsigned attributes) {
  int tree = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (tree < 0 && errno == ENOENT) return;
  MUST(tree);
  struct mount_attr set = {.attr_set = attributes};
  MUST(mount_setattr(tree, "", AT_EMPTY_PATH, &set, sizeof set));
  MUST(move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH));
  close(tree);
}
static _Noreturn void become(const char *name, int starts) {
  char byte;
  if (starts >= 0) {
    prepare();
    MUST(write(starts, "r", 1));
    if (read(starts, &byte, 1) != 1) _exit(1);
    MUST(unshare(CLONE_NEWNS));
  }
  struct mount_attr private = {.propagation = MS_PRIVATE};
  MUST(mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &private, sizeof private));
  if (starts < 0) prepare();
  const char *root = text("%s/%s/root", folder, name);
  MUST(mount("overlay", root, "overlay", MS_NODEV,
             text("lowerdir=%s,upperdir=%s/%s/upper,workdir=%s/%s/work,volatile", layer, folder, name, folder, name)));
  MUST(chdir(root));
  for (int i = 0; i < made_count; i++) {
    mkdir(made[i].target, 0755);
    MUST(move_mount(made[i].fd, "", AT_FDCWD, made[i].target, MOVE_MOUNT_F_EMPTY_PATH));
  }
  const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
  for (int i = 0; i < 6; i++) {
    const char *target = text("dev/%s", devices[i]);
    close(open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    show(text("/dev/%s", devices[i]), target, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  }
  MUST(symlink("/proc/self/fd", "dev/fd"));
  const char *masked[] = {"interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats"};
  for (int i = 0; i < 7; i++)
    if (access(text("proc/%s", masked[i]), F_OK) == 0) show("/dev/null", text("proc/%s", masked[i]), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  const char *fixed[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
  for (int i = 0; i < 5; i++) show(text("proc/%s", fixed[i]), text("proc/%s", fixed[i]), safe | MOUNT_ATTR_RDONLY);
  MUST(syscall(SYS_pivot_root, ".", "."));
  MUST(umount2(".", MNT_DETACH));
  MUST(chdir("/"));
  MUST(sethostname(name, strlen(name)));
  const uint64_t kept = 0xa80425fb;  // docker's fourteen
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{(uint32_t)kept, (uint32_t)kept, 0}, {0, 0, 0}};
  for (unsigned long value = 0; value < 64; value++)
    if (!(kept >> value & 1) && prctl(PR_CAPBSET_READ, value, 0, 0, 0) == 1) MUST(prctl(PR_CAPBSET_DROP, value, 0, 0, 0));
  MUST(syscall(SYS_capset, &header, data));
  MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  MUST(syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC));
  MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
  char *argv[] = {"true", NULL}, *envp[] = {"PATH=/bin", NULL};
  execve("/bin/true", argv, envp);
  _exit(127);
}
static pid_t start(const char *name, int starts) {
  for (const char *const *part = OPTIONS("", "/root", "/upper", "/work"); *part; part++) MUST(mkdir(text("%s/%s%s", folder, name, *part), 0755));
  make_group(name);
  int directory = -1;
  struct clone_args arguments = {.exit_signal = SIGCHLD, .flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET};
  if (starts < 0) arguments.flags |= CLONE_NEWNS;
  if (v2) {
    MUST(directory = open(group("", name), O_PATH | O_DIRECTORY | O_CLOEXEC));
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = (uint64_t)directory;
  }
  pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  MUST(pid);
  if (pid == 0) {
    for (int i = 0; !v2 && i < 4; i++) put(text("%s/tasks", group(used[i], name)), "0");
    become(name, starts);
  }
  if (directory >= 0) close(directory);
  return pid;
}
static void discard(int at, const char *name) {
  if (unlinkat(at, name, AT_REMOVEDIR) == 0 || (errno == ENOTDIR && unlinkat(at, name, 0) == 0)) return;
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  MUST(fd);
  DIR *entries = fdopendir(fd);
  for (struct dirent *entry; (entry = readdir(entries));)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) discard(fd, entry->d_name);
  closedir(entries);
  MUST(unlinkat(at, name, AT_REMOVEDIR));
}
static void end(const char *name, pid_t pid) {
  int status;
  MUST(waitpid(pid, &status, 0));
  if (status) { fprintf(stderr, "floor: the child ended with %x\n", status); exit(1); }
  remove_group(name);
  discard(AT_FDCWD, text("%s/%s", folder, name));
}

int main(int argc, char **argv) {
  if (argc < 6) { fprintf(stderr, "usage: floor cold|warm|parallel LAYER FOLDER FILTER TURNS|SECONDS [JOBS]\n"); return 2; }
  layer = argv[2];
  folder = argv[3];
  static struct sock_filter program[32768];
  int fd = open(argv[4], O_RDONLY | O_CLOEXEC);
  MUST(fd);
  ssize_t size = read(fd, program, sizeof program);
  MUST(size);
  filter = (struct sock_fprog){(unsigned short)((size_t)size / sizeof *program), program};
  v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
  int count = atoi(argv[5]), warm = !strcmp(argv[1], "warm");
  for (int i = 0; i < (v2 ? 1 : 4); i++) mkdir(v2 ? "/sys/fs/cgroup/orch-floor" : text("/sys/fs/cgroup/%s/orch-floor", used[i]), 0755);
  if (v2) put("/sys/fs/cgroup/orch-floor/cgroup.subtree_control", "+memory +cpu +pids");
  if (!strcmp(argv[1], "parallel")) {
    int jobs = argc > 6 ? atoi(argv[6]) : 8, ends[2];
    MUST(pipe(ends));
    for (int job = 0; job < jobs; job++)
      if (fork() == 0) {
        int lives = 0;
        for (double stop = now() + count * 1e3; now() < stop; lives++) {
          char name[64];
          snprintf(name, sizeof name, "%d-%d", getpid(), lives);
          end(name, start(name, -1));
        }
        MUST(write(ends[1], &lives, sizeof lives));
        _exit(0);
      }
    close(ends[1]);
    int sum = 0, lives;
    while (read(ends[0], &lives, sizeof lives) == sizeof lives) sum += lives;
    printf("%.1f\n", (double)sum / count);
  } else {
    for (int turn = 0; turn < count; turn++) {
      char name[64];
      snprintf(name, sizeof name, "%d-%d", getpid(), turn);
      int ends[2] = {-1, -1};
      double begin = now();
      if (warm) MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
      pid_t pid = start(name, ends[1]);
      if (warm) {
        char byte;
        close(ends[1]);
        if (read(ends[0], &byte, 1) != 1) return 1;
        usleep(20000);
        begin = now();
        MUST(write(ends[0], "s", 1));
      }
      siginfo_t info;
      MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
      double ended = now();
      end(name, pid);
      printf("%.3f %.3f\n", ended - begin, now() - begin);
      if (warm) close(ends[0]);
    }
  }
  for (int i = 0; i < (v2 ? 1 : 4); i++) rmdir(v2 ? "/sys/fs/cgroup/orch-floor" : text("/sys/fs/cgroup/%s/orch-floor", used[i]));
  return 0;
}
