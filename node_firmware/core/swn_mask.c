/* Pairwise masks; see swn_mask.h. */
#include "swn_mask.h"

#include <string.h>

#include "swn_math.h"

enum { SEED_LABEL = 0x4D, WORDS = SWN_AES_BLOCK / 2 };

uint8_t swn_mask_valid(const swn_mask_t *mask)
{
    return (uint8_t)(mask->size >= SWN_GROUP_MIN && mask->size <= SWN_GROUP_MAX && mask->position < mask->size);
}

void swn_mask_seed(const swn_mask_t *mask, uint8_t peer, uint16_t round, uint8_t seed[SWN_SEED_SIZE])
{
    swn_aes_t aes;

    memset(seed, 0, SWN_SEED_SIZE);
    seed[0] = SEED_LABEL;
    seed[1] = (uint8_t)(round & 0xFFu);
    seed[2] = (uint8_t)(round >> 8);
    swn_aes_init(&aes, mask->keys[peer]);
    swn_aes_encrypt(&aes, seed, seed);
}

static void add_stream(const uint8_t seed[SWN_SEED_SIZE], uint8_t negative, uint16_t *values, size_t count)
{
    uint8_t block[SWN_AES_BLOCK];
    swn_aes_t aes;
    size_t i;

    swn_aes_init(&aes, seed);
    for (i = 0; i < count; i++) {
        uint16_t word;

        if (i % WORDS == 0) {
            const uint32_t counter = (uint32_t)(i / WORDS);
            memset(block, 0, sizeof block);
            block[0] = (uint8_t)(counter & 0xFFu);
            block[1] = (uint8_t)(counter >> 8 & 0xFFu);
            swn_aes_encrypt(&aes, block, block);
        }
        word = swn_get16(block + i % WORDS * 2);
        values[i] = (uint16_t)(negative ? values[i] - word : values[i] + word);
    }
}

void swn_mask_apply(const swn_mask_t *mask, uint16_t round, uint16_t *values, size_t count)
{
    uint8_t peer;

    for (peer = 0; peer < mask->size; peer++) {
        uint8_t seed[SWN_SEED_SIZE];

        if (peer != mask->position) {
            swn_mask_seed(mask, peer, round, seed);
            add_stream(seed, (uint8_t)(peer < mask->position), values, count);
        }
    }
}
