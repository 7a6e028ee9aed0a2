/* The whole test framework: EXPECT counts what does not hold and says where; EXPECT_EQ shows both numbers. */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "swn_math.h"

static int expect_failures;

static void expect_failed(const char *file, int line, const char *what, long long got, long long wanted)
{
    expect_failures++;
    if (expect_failures <= 20) {
        printf("%s:%d: %s: got %lld, wanted %lld\n", file, line, what, got, wanted);
    }
}

#define EXPECT_EQ(got, wanted)                                                                             \
    do {                                                                                                   \
        const long long got_ = (long long)(got);                                                           \
        const long long wanted_ = (long long)(wanted);                                                     \
        if (got_ != wanted_) {                                                                             \
            expect_failed(__FILE__, __LINE__, #got, got_, wanted_);                                        \
        }                                                                                                  \
    } while (0)

#define EXPECT(condition) EXPECT_EQ((condition) != 0, 1)

static inline int expect_done(const char *name)
{
    printf("%s: %s\n", name, expect_failures == 0 ? "ok" : "FAILED");
    return expect_failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Bytes of a file, aligned for any type; NULL when it cannot be read. The test never frees it. */
static inline uint8_t *expect_load(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(1 << 20);

    if (file == NULL || bytes == NULL) {
        printf("%s: cannot read\n", path);
        return NULL;
    }
    *size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

#endif
