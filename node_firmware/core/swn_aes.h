/* AES-128, one block at a time, forwards only: what masks and noise are drawn from (FIPS-197).
 *
 * Portable C: a table of 256 bytes, no other memory than the caller's. The time of a look-up depends on the data where
 * there is a data cache; the parts this runs on have none before their flash. LoRaWAN's own AES is the stack's. */
#ifndef SWN_AES_H
#define SWN_AES_H

#include <stdint.h>

enum { SWN_AES_BLOCK = 16, SWN_AES_ROUNDS = 10 };

typedef struct swn_aes {
    uint8_t keys[SWN_AES_ROUNDS + 1][SWN_AES_BLOCK];
} swn_aes_t;

void swn_aes_init(swn_aes_t *aes, const uint8_t key[SWN_AES_BLOCK]);

/* `in` and `out` may be the same. */
void swn_aes_encrypt(const swn_aes_t *aes, const uint8_t in[SWN_AES_BLOCK], uint8_t out[SWN_AES_BLOCK]);

#endif
