/* SHA-512 (FIPS 180-4) of data that comes in parts. */
#ifndef SWN_SHA512_H
#define SWN_SHA512_H

#include <stddef.h>
#include <stdint.h>

enum { SWN_SHA512_SIZE = 64, SWN_SHA512_BLOCK = 128 };

typedef struct swn_sha512 {
    uint64_t state[8];
    uint32_t size; /* bytes so far, below 2^29 */
    uint8_t block[SWN_SHA512_BLOCK];
} swn_sha512_t;

void swn_sha512_init(swn_sha512_t *hash);
void swn_sha512_update(swn_sha512_t *hash, const uint8_t *data, size_t size);

/* The digest; the hash must be made anew afterwards. */
void swn_sha512_final(swn_sha512_t *hash, uint8_t digest[SWN_SHA512_SIZE]);

#endif
