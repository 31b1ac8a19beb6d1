#include <lzma.h>
// Macros of calls, which Swift does not see.
enum { CLZMA_CONCATENATED = LZMA_CONCATENATED };
