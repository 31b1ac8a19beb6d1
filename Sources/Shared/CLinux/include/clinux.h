// Missing system call wrappers, and a container's path from clone3 to execve. Nothing else is in C.
// Every wrapper returns a value >= 0, or -errno: errno itself is never the channel.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
// For orch-init, whose Swift has no Glibc module.
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Names and texts of error numbers ("ENOENT", "No such file or directory"); static storage, never NULL.
int clinux_errno(void);
int clinux_open(const char *path, int flags, int mode);  // open(2) with O_CLOEXEC
int clinux_nonblocking(int fd);
const char *clinux_errno_name(int error);
const char *clinux_errno_message(int error);

// openat2(2). `resolve` is a set of CLINUX_RESOLVE_*.
enum { CLINUX_RESOLVE_NO_XDEV = 1, CLINUX_RESOLVE_NO_MAGICLINKS = 2, CLINUX_RESOLVE_NO_SYMLINKS = 4, CLINUX_RESOLVE_BENEATH = 8, CLINUX_RESOLVE_IN_ROOT = 16 };
int clinux_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);

int clinux_pidfd_open(pid_t pid, unsigned flags);
int clinux_pidfd_send_signal(int pidfd, int signal);
// waitid(P_PIDFD, WEXITED): 0 and the status as waitpid gives it (usable with WIFEXITED); `nohang` makes it -EAGAIN instead of waiting.
int clinux_pidfd_wait(int pidfd, int nohang, int *status);
int clinux_setns(int fd, int flags);
int clinux_unshare(int flags);
int clinux_gettid(void);
int clinux_memfd(const char *name, const void *bytes, size_t count);  // sealed against every change
int clinux_memfd_copy(const char *name, int source);  // a file's content from where it stands to its end, sealed
int clinux_pipe(int ends[2], int flags);         // pipe2 with O_CLOEXEC and `flags`
int clinux_socketpair(int ends[2]);               // a connected pair of Unix stream sockets, close-on-exec
int clinux_memory_file(const char *name);           // memfd, writable
int clinux_eventfd(void);                          // close-on-exec, not blocking
int clinux_spawn_closefrom(void *actions, int from); // posix_spawn_file_actions_addclosefrom_np
int clinux_set_subreaper(void);
int clinux_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int clinux_ioctl_winsize(int fd, uint16_t rows, uint16_t columns);
// Makes a file or directory tree below `directory` vanish; symbolic links are not followed. 0 when already gone.
int clinux_remove_tree(int directory, const char *name);
// Extended attributes (xattr(7)); set with flags 0. lgetxattr does not follow a final link and returns the value's length.
int clinux_fsetxattr(int fd, const char *name, const void *value, size_t size);
ssize_t clinux_lgetxattr(const char *path, const char *name, void *value, size_t size);
ssize_t clinux_fgetxattr(int fd, const char *name, void *value, size_t size);
// malloc(3) in at most so many arenas; for the beginning of a program, before its threads allocate.
void clinux_memory_bound(int arenas);
// Gives back to the kernel what malloc(3) holds free, and unmaps code and constants, whose pages come back from the page cache when they are used.
void clinux_memory_release(void);
int clinux_syncfs(int fd);  // everything of the file system that fd is on
int clinux_rlimit(const char *name);  // number of "nofile" and so on; -1 when unknown
// Sends or receives one descriptor with up to `count` bytes over a Unix socket. receive: bytes read, *fd = -1 when none came.
ssize_t clinux_send_fd(int socket, const void *bytes, size_t count, int fd);
ssize_t clinux_receive_fd(int socket, void *bytes, size_t count, int *fd);

// Loads a BPF_PROG_TYPE_CGROUP_DEVICE program (struct bpf_insn, 8 bytes each) and attaches it to a v2 cgroup.
int clinux_bpf_devices(int cgroup, const uint64_t *instructions, size_t count);
// Programs that see frames (BPF_PROG_TYPE_SCHED_CLS). `frames` loads one, `open` makes a descriptor of an id, `program` tells name, id and first map
// (0: none). A program lives as long as a filter or a descriptor has it, a map as its programs.
int clinux_bpf_frames(const uint64_t *instructions, size_t count, const char *name);
int clinux_bpf_open(int is_map, uint32_t id);
int clinux_bpf_program(int program, char name[16], uint32_t *id, uint32_t *map);
// Hash maps of 8 bytes to 8 bytes. `read` fills at most `most` pairs and returns how many.
int clinux_bpf_map(uint32_t most, const char *name);
int clinux_bpf_map_id(int map, uint32_t *id);
int clinux_bpf_set(int map, uint64_t key, uint64_t value);
int clinux_bpf_remove(int map, uint64_t key);
int clinux_bpf_read(int map, uint64_t *keys, uint64_t *values, uint32_t most);
int clinux_ioctl_raw_terminal(int fd, int raw);  // 1: raw, and what it was is kept; 0: as it was
int clinux_copy_winsize(int from, int to);

// The attach socket, `attach` in a folder: SOCK_SEQPACKET, one record a piece of output. Paths of any length.
int clinux_attach_listen(const char *folder);   // not blocking
int clinux_attach_connect(const char *folder);

// The build ids (the linker's digest of what it linked) of the program and of every library it has loaded, each after its length: how many bytes.
// -ENODATA: one of them has none; -ENOSPC.
ssize_t clinux_build_ids(uint8_t *bytes, size_t size);

// For orch-init.
int clinux_accept(int listener);                 // not blocking; -EAGAIN: nobody there
ssize_t clinux_send_record(int socket, uint8_t kind, const void *bytes, size_t count);  // never waits: -EAGAIN
int64_t clinux_monotonic_ms(void);
int clinux_make_pipe(int *read_end, int *write_end);
int clinux_write_byte(int fd, uint8_t byte);
// Bytes that a pipe (or a terminal) can hold at most.
int clinux_unread_max(int fd);
// Writes folder/name whole (beside, then renamed).
int clinux_save(const char *folder, const char *name, const void *bytes, size_t count);
// The other end of a terminal, which does not become the caller's own; whatever name it has and wherever. -1 and errno on failure.
int clinux_terminal_peer(int master);
// path becomes path.1, path.1 becomes path.2 … until `files` files; returns the new path's descriptor, or `fd` when that fails.
int clinux_rotate(int fd, const char *path, int files);
// The counter "oom_kill" in a memory.events (v2) or memory.oom_control (v1); 0 when there is none.
uint64_t clinux_oom_kills(const char *path);

#include "clinux_constants.h"
#include "clinux_plan.h"
