// File systems and mounts by the API of Linux 5.2 (fsopen, fsconfig, fsmount, fspick, mount_setattr). Plain system calls: the child's, too.
#define _GNU_SOURCE
#include "clinux_child.h"
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

// MARK: flags

uint64_t clinux_attributes(uint64_t flags) {
  // As mount(2) has it: with both, each access is written.
  if (flags & MS_STRICTATIME) flags &= ~(uint64_t)MS_NOATIME;
  return (flags & MS_RDONLY ? MOUNT_ATTR_RDONLY : 0) | (flags & MS_NOSUID ? MOUNT_ATTR_NOSUID : 0) | (flags & MS_NODEV ? MOUNT_ATTR_NODEV : 0) |
         (flags & MS_NOEXEC ? MOUNT_ATTR_NOEXEC : 0) | (flags & MS_NODIRATIME ? MOUNT_ATTR_NODIRATIME : 0) |
         (flags & MS_NOATIME ? MOUNT_ATTR_NOATIME : 0) | (flags & MS_STRICTATIME ? MOUNT_ATTR_STRICTATIME : 0) |
         (flags & 256 /* MS_NOSYMFOLLOW */ ? MOUNT_ATTR_NOSYMFOLLOW : 0);
}
int clinux_set_attributes(int fd, uint64_t set, uint64_t clear, uint64_t propagation, int recursive) {
  const uint64_t times = MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME;
  // The three ways to keep access times are one field, cleared as a whole.
  if ((set | clear) & times) clear |= MOUNT_ATTR__ATIME;
  struct mount_attr change = {.attr_set = set, .attr_clr = clear & ~(set & ~times), .propagation = propagation};
  if (!change.attr_set && !change.attr_clr && !propagation) return 0;
  return mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &change, sizeof change) < 0 ? -errno : 0;
}
// mount(2)'s flags of a file system, by the names that every file system has (fs/fs_context.c, common_set_sb_flag). MS_SILENT has none and needs none: a
// context's messages are read from it instead of going to the kernel's log.
static const struct { uint64_t flag; const char *set, *clear; } superblock[] = {
  {MS_RDONLY, "ro", "rw"}, {MS_SYNCHRONOUS, "sync", "async"}, {MS_MANDLOCK, "mand", "nomand"}, {MS_LAZYTIME, "lazytime", "nolazytime"},
  {MS_DIRSYNC, "dirsync", NULL},
};

// MARK: what is left to mount(2)

static const size_t value_size = 256;  // fsconfig(2) copies that much of a value, with its end (fs/fsopen.c)
int clinux_only_by_mount(const char *source, uint64_t flags, const char *data) {
  // It has no name there.
  if (flags & MS_I_VERSION) return 1;
  // A comma inside of a value: overlay's escapes, SELinux's context="a,b". Each has a parser of its own for mount(2)'s text.
  if (strpbrk(data, "\"\\")) return 1;
  if (strlen(source) >= value_size) return 1;
  for (const char *at = data;; at++) {
    const char *end = strchrnul(at, ','), *value = memchr(at, '=', (size_t)(end - at));
    if ((size_t)(end - (value ? value + 1 : at)) >= value_size) return 1;
    if (!*end) return 0;
    at = end;
  }
}
int clinux_mount_on(int fd, const char *type, const char *source, uint64_t flags, const char *data) {
  char path[40];
  clinux_child_fd_path(path, fd);
  return mount(source, path, type, flags, *data ? data : NULL) < 0 ? -errno : 0;
}

// MARK: a file system's context

// The kernel's own words: the last error of the context's log, a line "e tmpfs: Unknown parameter 'x'" a read (fs/fsopen.c, fscontext_read).
static void explain(struct child *child, int fs) {
  char text[256];
  for (ssize_t n; (n = read(fs, text, sizeof text - 1)) > 0;) {
    while (n && text[n - 1] == '\n') n--;
    text[n] = 0;
    if (n > 2 && text[0] == 'e' && text[1] == ' ') clinux_child_join_text(child, "", text + 2);
  }
}
static int set_options(struct child *child, int fs, const char *type, const char *data) {
  char text[4096], *rest = text, *option;
  if (strlen(data) >= sizeof text) return -E2BIG;
  strcpy(text, data);
  while ((option = strsep(&rest, ","))) {
    // A list of memory nodes has commas: mpol=bind:0,2 (mm/shmem.c, shmem_next_opt).
    while (rest && *rest >= '0' && *rest <= '9' && !strcmp(type, "tmpfs")) {
      rest[-1] = ',';
      rest = strchr(rest, ',');
      if (rest) *rest++ = 0;
    }
    char *value = strchr(option, '=');
    if (!*option || value == option) continue;
    if (value) *value++ = 0;
    if ((value ? fsconfig(fs, FSCONFIG_SET_STRING, option, value, 0) : fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0)) == 0) continue;
    int error = errno;
    clinux_child_join_text(child, "option ", option);
    return -error;
  }
  return 0;
}
int clinux_child_make_mount(struct child *child, const char *type, const char *source, uint64_t flags, const char *data) {
  int fs = fsopen(type, FSOPEN_CLOEXEC);
  if (fs < 0) return -errno;
  const char *subtype = strchr(type, '.');
  int r = fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) < 0 || (subtype && fsconfig(fs, FSCONFIG_SET_STRING, "subtype", subtype + 1, 0) < 0)
            ? -errno : set_options(child, fs, type, data);
  // As mount(2) has it, the file system itself is read-only, too.
  for (size_t i = 0; r == 0 && i < sizeof superblock / sizeof *superblock; i++)
    if ((flags & superblock[i].flag) && fsconfig(fs, FSCONFIG_SET_FLAG, superblock[i].set, NULL, 0) < 0) r = -errno;
  if (r == 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) r = -errno;
  if (r == 0 && (r = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)clinux_attributes(flags))) < 0) r = -errno;
  if (r < 0) explain(child, fs);
  close(fs);
  return r;
}
static int reconfigure(struct child *child, int mount, uint64_t flags, const char *data) {
  int fs = fspick(mount, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
  if (fs < 0) return -errno;
  int r = set_options(child, fs, "", data);
  for (size_t i = 0; r == 0 && i < sizeof superblock / sizeof *superblock; i++) {
    const char *name = flags & superblock[i].flag ? superblock[i].set : superblock[i].clear;
    if (name && fsconfig(fs, FSCONFIG_SET_FLAG, name, NULL, 0) < 0) r = -errno;
  }
  if (r == 0 && fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0) r = -errno;
  if (r < 0) explain(child, fs);
  close(fs);
  return r;
}
int clinux_child_remount(struct child *child, int mount, uint64_t flags, const char *data) {
  if (!(flags & MS_BIND)) {
    if (clinux_only_by_mount("", flags, data)) return clinux_mount_on(mount, NULL, NULL, flags, data);
    TRYR(reconfigure(child, mount, flags, data));
    STEP("set the options");
  }
  // Access times stay as they are unless something is said of them (mount(2)).
  const uint64_t times = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
  uint64_t cleared = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW |
                     (flags & times ? MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME : 0);
  return clinux_set_attributes(mount, clinux_attributes(flags), cleared, 0, 0);
}
