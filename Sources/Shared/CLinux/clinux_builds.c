// What this process is made of: the build ids of its objects.
#define _GNU_SOURCE
#include "clinux.h"
#include <elf.h>
#include <errno.h>
#include <link.h>

struct builds {
  uint8_t *bytes;
  size_t count, size;
  int error, objects;
};

static int collect(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  struct builds *all = data;
  // The kernel's page (vdso(7)) need have none; it changes with the kernel.
  int optional = info->dlpi_name && strncmp(info->dlpi_name, "linux-vdso", 10) == 0;
  optional |= all->objects++ > 0 && (!info->dlpi_name || !*info->dlpi_name);
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type != PT_NOTE) continue;
    const uint8_t *at = (const uint8_t *)(info->dlpi_addr + part->p_vaddr), *end = at + part->p_memsz;
    size_t align = part->p_align == 8 ? 8 : 4;
    while ((size_t)(end - at) >= sizeof(ElfW(Nhdr))) {
      const ElfW(Nhdr) *note = (const ElfW(Nhdr) *)at;
      size_t name = (note->n_namesz + align - 1) & ~(align - 1), text = (note->n_descsz + align - 1) & ~(align - 1);
      if (name > (size_t)(end - at) - sizeof *note || text > (size_t)(end - at) - sizeof *note - name) break;
      const uint8_t *id = at + sizeof *note + name;
      if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && memcmp(at + sizeof *note, "GNU", 4) == 0 && note->n_descsz > 0 && note->n_descsz < 256) {
        if (all->count + 1 + note->n_descsz > all->size) { all->error = -ENOSPC; return 1; }
        all->bytes[all->count++] = (uint8_t)note->n_descsz;
        memcpy(all->bytes + all->count, id, note->n_descsz);
        all->count += note->n_descsz;
        return 0;
      }
      at = id + text;
    }
  }
  if (optional) return 0;
  all->error = -ENODATA;
  return 1;
}

ssize_t clinux_build_ids(uint8_t *bytes, size_t size) {
  struct builds all = {.bytes = bytes, .size = size};
  dl_iterate_phdr(collect, &all);
  return all.error ? all.error : (ssize_t)all.count;
}
