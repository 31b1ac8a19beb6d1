// Who a container's process runs as. Reads two small files below a root; knows nothing else.
#define _GNU_SOURCE
#include "clinux.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { file_max = 4 << 20, name_max = 256 };
struct text { char *bytes; size_t length; };
struct field { const char *start; size_t length; };

static int read_file(int root, const char *path, struct text *text) {
  text->bytes = NULL;
  text->length = 0;
  // O_NONBLOCK: a fifo in its place must not hold us.
  int fd = clinux_openat2(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, CLINUX_RESOLVE_IN_ROOT | CLINUX_RESOLVE_NO_MAGICLINKS);
  if (fd < 0) return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
  char *bytes = mmap(NULL, file_max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bytes == MAP_FAILED) {
    close(fd);
    return -ENOMEM;
  }
  size_t length = 0;
  int error = 0;
  for (;;) {
    ssize_t n = read(fd, bytes + length, file_max - length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) error = -errno;
    if (n <= 0) break;
    length += (size_t)n;
    if (length == file_max) { error = -EFBIG; break; }
  }
  close(fd);
  if (error) {
    munmap(bytes, file_max);
    return error;
  }
  text->bytes = bytes;
  text->length = length;
  return 0;
}
static void drop(struct text *text) { if (text->bytes) munmap(text->bytes, file_max); }

// The next line's fields, split at ':'; 0 at the end.
static int next_line(const struct text *text, size_t *position, struct field *fields, int count) {
  if (*position >= text->length) return 0;
  const char *start = text->bytes + *position, *stop = text->bytes + text->length;
  const char *end = memchr(start, '\n', (size_t)(stop - start));
  if (!end) end = stop;
  *position = (size_t)(end - text->bytes) + 1;
  for (int i = 0; i < count; i++) fields[i] = (struct field){end, 0};
  for (int i = 0; i < count && start <= end; i++) {
    const char *colon = memchr(start, ':', (size_t)(end - start));
    if (!colon) colon = end;
    fields[i] = (struct field){start, (size_t)(colon - start)};
    start = colon + 1;
  }
  return 1;
}
// Decimal digits below 2^31: 1; digits beyond: -1; something else: 0.
static int number(struct field f, uint32_t *value) {
  if (f.length == 0) return 0;
  uint64_t sum = 0;
  int large = 0;
  for (size_t i = 0; i < f.length; i++) {
    if (f.start[i] < '0' || f.start[i] > '9') return 0;
    sum = sum * 10 + (uint64_t)(f.start[i] - '0');
    if (sum > 0x7fffffff) large = 1, sum = 0x80000000;
  }
  *value = (uint32_t)sum;
  return large ? -1 : 1;
}
static int same(struct field a, struct field b) { return a.length == b.length && memcmp(a.start, b.start, a.length) == 0; }
static int add_group(struct clinux_user *user, uint32_t gid) {
  if (!user->groups) return 0;
  // One that is there twice does no harm; looked for among the first alone, so that a file with very many takes no time.
  for (uint32_t i = 0; i < user->group_count && i < 256; i++) if (user->groups[i] == gid) return 0;
  if (user->group_count == CLINUX_GROUPS) return -E2BIG;
  user->groups[user->group_count++] = gid;
  return 0;
}
static int fail(char what[64], struct field f, int error) {
  size_t n = f.length < 63 ? f.length : 63;
  memcpy(what, f.start, n);
  what[n] = 0;
  return -error;
}
// A group by number (all digits) or by name, never one taken for the other.
static int find_group(const struct text *file, struct field wanted, uint32_t *gid) {
  int kind = number(wanted, gid);
  if (kind < 0) return -ERANGE;
  if (kind > 0) return 0;
  struct field f[4];
  for (size_t at = 0; next_line(file, &at, f, 4);)
    if (f[0].length && same(f[0], wanted)) return number(f[2], gid) > 0 ? 0 : -ERANGE;
  return -ESRCH;
}

int clinux_resolve_user(int root, const char *text, const char *const *groups, int count, struct clinux_user *user, char what[64]) {
  struct text passwd = {0}, group = {0};
  *user = (struct clinux_user){.groups = user->groups};
  memset(what, 0, 64);
  strcpy(user->home, "/");
  const char *colon = strchr(text, ':');
  struct field name = {text, colon ? (size_t)(colon - text) : strlen(text)};
  struct field group_name = {colon ? colon + 1 : "", colon ? strlen(colon + 1) : 0};
  int r = read_file(root, "etc/passwd", &passwd);
  if (r < 0) return fail(what, (struct field){"/etc/passwd", 11}, -r);
  r = read_file(root, "etc/group", &group);
  if (r < 0) {
    drop(&passwd);
    return fail(what, (struct field){"/etc/group", 10}, -r);
  }
  struct field found_name = {"", 0}, f[7];
  uint32_t uid = 0;
  int kind = name.length ? number(name, &uid) : 1, found = 0;
  if (kind < 0) {
    r = fail(what, name, ERANGE);
    goto out;
  }
  for (size_t at = 0; !found && next_line(&passwd, &at, f, 7);) {
    uint32_t line_uid, line_gid;
    int valid = number(f[2], &line_uid) > 0 && number(f[3], &line_gid) > 0;
    if (kind > 0 ? !valid || line_uid != uid : !same(f[0], name)) continue;
    if (!valid) {
      r = fail(what, name, ERANGE);
      goto out;
    }
    found = 1;
    uid = line_uid;
    user->gid = line_gid;
    found_name = f[0];
    if (f[5].length && f[5].length < name_max) {
      memcpy(user->home, f[5].start, f[5].length);
      user->home[f[5].length] = 0;
    }
  }
  if (!found && kind == 0) {
    r = fail(what, name, ENOENT);
    goto out;
  }
  user->uid = uid;
  if (group_name.length) {
    if ((r = find_group(&group, group_name, &user->gid)) < 0) {
      r = fail(what, group_name, -r);
      goto out;
    }
  } else if (found_name.length) {
    for (size_t at = 0; next_line(&group, &at, f, 4);) {
      uint32_t gid;
      if (number(f[2], &gid) <= 0) continue;
      const char *member = f[3].start, *end = f[3].start + f[3].length;
      while (member < end) {
        const char *comma = memchr(member, ',', (size_t)(end - member));
        if (!comma) comma = end;
        if (same((struct field){member, (size_t)(comma - member)}, found_name) && (r = add_group(user, gid)) < 0) {
          r = fail(what, found_name, -r);
          goto out;
        }
        member = comma + 1;
      }
    }
  }
  for (int i = 0; i < count; i++) {
    struct field wanted = {groups[i], strlen(groups[i])};
    uint32_t gid;
    if ((r = find_group(&group, wanted, &gid)) < 0 || (r = add_group(user, gid)) < 0) {
      r = fail(what, wanted, -r);
      goto out;
    }
  }
  if ((r = add_group(user, user->gid)) < 0) r = fail(what, name, -r);
out:
  drop(&passwd);
  drop(&group);
  return r;
}
