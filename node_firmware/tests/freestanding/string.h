/* The only four library functions that the core calls, for compilers without a C library (RISC-V bare). */
#ifndef SWN_FREESTANDING_STRING_H
#define SWN_FREESTANDING_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#endif
