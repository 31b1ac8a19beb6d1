#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clinux.h"

void clinux_memory_bound(int arenas) { mallopt(M_ARENA_MAX, arenas); }

// Of segments that nobody may write: what is relocated lies in writable ones, also where it is made read-only afterwards (PT_GNU_RELRO).
static int let_go(struct dl_phdr_info *object, size_t size, void *page_bytes) {
  (void)size;
  // The program itself has no name; the vDSO is no file.
  if (object->dlpi_name[0] && object->dlpi_name[0] != '/') return 0;
  uintptr_t page = *(long *)page_bytes;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
    if (segment->p_type != PT_LOAD || segment->p_flags & PF_W) continue;
    uintptr_t begin = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
    uintptr_t end = (object->dlpi_addr + segment->p_vaddr + segment->p_memsz + page - 1) & ~(page - 1);
    madvise((void *)begin, end - begin, MADV_DONTNEED);
  }
  return 0;
}

void clinux_memory_release(void) {
  malloc_trim(0);
  long page = sysconf(_SC_PAGESIZE);
  dl_iterate_phdr(let_go, &page);
}
