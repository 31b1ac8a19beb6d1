#define _GNU_SOURCE
#include "clinux.h"
#include <dirent.h>
#include <errno.h>
#include <linux/bpf.h>
#include <termios.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int result(long value) { return value < 0 ? -errno : (int)value; }

int clinux_errno(void) { return errno; }
int clinux_open(const char *path, int flags, int mode) { return result(open(path, flags | O_CLOEXEC, mode)); }
int clinux_nonblocking(int fd) { return result(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)); }
const char *clinux_errno_name(int error) {
  const char *name = strerrorname_np(error);
  return name ? name : "E?";
}
const char *clinux_errno_message(int error) {
  const char *text = strerrordesc_np(error);
  return text ? text : "unknown error";
}
int clinux_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
  for (;;) {
    long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    // EAGAIN: a rename or mount raced with the walk inside the root; the kernel asks for another try (openat2(2)).
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) return result(fd);
  }
}
int clinux_pidfd_open(pid_t pid, unsigned flags) { return result(syscall(SYS_pidfd_open, pid, flags)); }
int clinux_pidfd_send_signal(int pidfd, int signal) { return result(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0)); }
int clinux_pidfd_wait(int pidfd, int nohang, int *status) {
  siginfo_t info;
  memset(&info, 0, sizeof info);
  int r;
  do r = waitid((idtype_t)3 /* P_PIDFD */, (id_t)pidfd, &info, WEXITED | (nohang ? WNOHANG : 0)); while (r < 0 && errno == EINTR);
  if (r < 0) return -errno;
  if (info.si_pid == 0) return -EAGAIN;
  *status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : info.si_status & 0x7f;
  return 0;
}
int clinux_setns(int fd, int flags) { return result(setns(fd, flags)); }
int clinux_unshare(int flags) { return result(unshare(flags)); }
int clinux_gettid(void) { return (int)syscall(SYS_gettid); }
static int sealed(int fd, int error) {
  if (!error && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) error = errno;
  if (error) {
    close(fd);
    return -error;
  }
  lseek(fd, 0, SEEK_SET);
  return fd;
}
int clinux_memfd(const char *name, const void *bytes, size_t count) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), error = 0;
  if (fd < 0) return -errno;
  for (size_t done = 0; !error && done < count;) {
    ssize_t n = write(fd, (const char *)bytes + done, count - done);
    if (n >= 0) done += (size_t)n; else if (errno != EINTR) error = errno;
  }
  return sealed(fd, error);
}
int clinux_memfd_copy(const char *name, int source) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), error = 0;
  if (fd < 0) return -errno;
  // sendfile(2): from one page cache into the other, without a buffer of ours.
  for (ssize_t n = 1; !error && n > 0;)
    if ((n = sendfile(fd, source, NULL, 1 << 30)) < 0) { if (errno == EINTR) n = 1; else error = errno; }
  return sealed(fd, error);
}
int clinux_pipe(int ends[2], int flags) { return result(pipe2(ends, O_CLOEXEC | flags)); }
int clinux_socketpair(int ends[2]) { return result(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)); }
int clinux_memory_file(const char *name) { return result(memfd_create(name, MFD_CLOEXEC)); }
int clinux_eventfd(void) { return result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
int clinux_spawn_closefrom(void *actions, int from) { return -posix_spawn_file_actions_addclosefrom_np(actions, from); }
int clinux_set_subreaper(void) { return result(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }
int clinux_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) { return result(prctl(option, a, b, c, d)); }
int clinux_ioctl_winsize(int fd, uint16_t rows, uint16_t columns) {
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  return result(ioctl(fd, TIOCSWINSZ, &size));
}
static int remove_tree(int directory, const char *name, int depth) {
  if (unlinkat(directory, name, 0) == 0 || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return -errno;
  if (depth > 4000) return -ELOOP;
  int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? 0 : -errno;
  DIR *entries = fdopendir(fd);
  if (!entries) {
    int error = errno;
    close(fd);
    return -error;
  }
  int first = 0;
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    int r = remove_tree(fd, entry->d_name, depth + 1);
    if (r < 0 && !first) first = r;
  }
  closedir(entries);
  if (first) return first;
  return unlinkat(directory, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}
int clinux_fsetxattr(int fd, const char *name, const void *value, size_t size) { return fsetxattr(fd, name, value, size, 0) < 0 ? -errno : 0; }
ssize_t clinux_lgetxattr(const char *path, const char *name, void *value, size_t size) {
  ssize_t count = lgetxattr(path, name, value, size);
  return count < 0 ? -errno : count;
}
ssize_t clinux_fgetxattr(int fd, const char *name, void *value, size_t size) {
  ssize_t count = fgetxattr(fd, name, value, size);
  return count < 0 ? -errno : count;
}
int clinux_syncfs(int fd) { return syncfs(fd) < 0 ? -errno : 0; }

int clinux_remove_tree(int directory, const char *name) { return remove_tree(directory, name, 0); }
int clinux_rlimit(const char *name) {
  static const struct { const char *name; int value; } table[] = {
    {"core", RLIMIT_CORE}, {"cpu", RLIMIT_CPU}, {"data", RLIMIT_DATA}, {"fsize", RLIMIT_FSIZE}, {"locks", 10}, {"memlock", RLIMIT_MEMLOCK},
    {"msgqueue", 12}, {"nice", 13}, {"nofile", RLIMIT_NOFILE}, {"nproc", RLIMIT_NPROC}, {"rss", RLIMIT_RSS}, {"rtprio", 14}, {"rttime", 15},
    {"sigpending", 11}, {"stack", RLIMIT_STACK}, {"as", RLIMIT_AS}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (!strcmp(table[i].name, name)) return table[i].value;
  return -1;
}
ssize_t clinux_send_fd(int socket, const void *bytes, size_t count, int fd) {
  struct iovec vector = {.iov_base = (void *)bytes, .iov_len = count};
  union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.space;
    message.msg_controllen = sizeof control.space;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t n;
  do n = sendmsg(socket, &message, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}
ssize_t clinux_receive_fd(int socket, void *bytes, size_t count, int *fd) {
  struct iovec vector = {.iov_base = bytes, .iov_len = count};
  union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
  *fd = -1;
  ssize_t n;
  do n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC); while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(header), sizeof *fd);
  return n;
}

// The kernel's descriptors of programs and maps are closed by exec (bpf_prog_new_fd, bpf_map_new_fd).
static int bpf(int command, union bpf_attr *attributes) { return result(syscall(SYS_bpf, command, attributes, sizeof *attributes)); }
static uint64_t address(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }
static int load(uint32_t type, const uint64_t *instructions, size_t count, const char *name) {
  union bpf_attr a;
  memset(&a, 0, sizeof a);
  a.prog_type = type;
  a.insns = address(instructions);
  a.insn_cnt = (uint32_t)count;
  a.license = address("GPL");
  strncpy(a.prog_name, name, sizeof a.prog_name - 1);
  return bpf(BPF_PROG_LOAD, &a);
}
static int attach(int command, uint32_t type, int target, int program, uint32_t flags) {
  union bpf_attr a;
  memset(&a, 0, sizeof a);
  a.target_fd = (uint32_t)target;
  a.attach_bpf_fd = (uint32_t)program;
  a.attach_type = type;
  a.attach_flags = flags;
  return bpf(command, &a);
}
int clinux_bpf_devices(int cgroup, const uint64_t *instructions, size_t count) {
  int program = load(BPF_PROG_TYPE_CGROUP_DEVICE, instructions, count, "");
  if (program < 0) return program;
  int r = attach(BPF_PROG_ATTACH, BPF_CGROUP_DEVICE, cgroup, program, BPF_F_ALLOW_MULTI);
  close(program);
  return r;
}
int clinux_bpf_frames(const uint64_t *instructions, size_t count, const char *name) {
  return load(BPF_PROG_TYPE_SCHED_CLS, instructions, count, name);
}
int clinux_bpf_open(int is_map, uint32_t id) {
  union bpf_attr a;
  memset(&a, 0, sizeof a);
  a.prog_id = id;
  return bpf(is_map ? BPF_MAP_GET_FD_BY_ID : BPF_PROG_GET_FD_BY_ID, &a);
}
int clinux_bpf_program(int program, char name[16], uint32_t *id, uint32_t *map) {
  struct bpf_prog_info info;
  union bpf_attr a;
  memset(&info, 0, sizeof info);
  memset(&a, 0, sizeof a);
  *map = 0;
  info.map_ids = address(map);
  info.nr_map_ids = 1;
  a.info.bpf_fd = (uint32_t)program;
  a.info.info_len = sizeof info;
  a.info.info = address(&info);
  int r = bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
  memcpy(name, info.name, 16);
  *id = info.id;
  return r;
}
int clinux_bpf_map(uint32_t most, const char *name) {
  union bpf_attr a;
  memset(&a, 0, sizeof a);
  a.map_type = BPF_MAP_TYPE_HASH;
  a.key_size = a.value_size = sizeof(uint64_t);
  a.max_entries = most;
  a.map_flags = BPF_F_NO_PREALLOC;
  strncpy(a.map_name, name, sizeof a.map_name - 1);
  return bpf(BPF_MAP_CREATE, &a);
}
int clinux_bpf_map_id(int map, uint32_t *id) {
  struct bpf_map_info info;
  union bpf_attr a;
  memset(&info, 0, sizeof info);
  memset(&a, 0, sizeof a);
  a.info.bpf_fd = (uint32_t)map;
  a.info.info_len = sizeof info;
  a.info.info = address(&info);
  int r = bpf(BPF_OBJ_GET_INFO_BY_FD, &a);
  *id = info.id;
  return r;
}
int clinux_bpf_set(int map, uint64_t key, uint64_t value) {
  union bpf_attr a;
  memset(&a, 0, sizeof a);
  a.map_fd = (uint32_t)map;
  a.key = address(&key);
  a.value = address(&value);
  return bpf(BPF_MAP_UPDATE_ELEM, &a);
}
int clinux_bpf_remove(int map, uint64_t key) {
  union bpf_attr a;
  memset(&a, 0, sizeof a);
  a.map_fd = (uint32_t)map;
  a.key = address(&key);
  int r = bpf(BPF_MAP_DELETE_ELEM, &a);
  return r == -ENOENT ? 0 : r;
}
int clinux_bpf_read(int map, uint64_t *keys, uint64_t *values, uint32_t most) {
  union bpf_attr a;
  uint32_t position = 0, count = 0;
  for (;;) {
    memset(&a, 0, sizeof a);
    a.batch.map_fd = (uint32_t)map;
    a.batch.in_batch = count ? address(&position) : 0;
    a.batch.out_batch = address(&position);
    a.batch.keys = address(keys + count);
    a.batch.values = address(values + count);
    a.batch.count = most - count;
    int r = bpf(BPF_MAP_LOOKUP_BATCH, &a);
    if (r < 0 && r != -ENOENT) return r;
    count += a.batch.count;
    if (r == -ENOENT || count == most) return (int)count;
  }
}
int clinux_ioctl_raw_terminal(int fd, int raw) {
  static struct termios before;
  static int kept;
  if (!raw) return kept ? result(tcsetattr(fd, TCSANOW, &before)) : 0;
  if (tcgetattr(fd, &before) < 0) return -errno;
  kept = 1;
  struct termios now = before;
  cfmakeraw(&now);
  return result(tcsetattr(fd, TCSANOW, &now));
}
int clinux_copy_winsize(int from, int to) {
  struct winsize size;
  if (ioctl(from, TIOCGWINSZ, &size) < 0) return -errno;
  return result(ioctl(to, TIOCSWINSZ, &size));
}
