/* Exact noise; see swn_noise.h. Algorithm numbers are those of Canonne, Kamath and Steinke (2020). */
#include "swn_noise.h"

#include <string.h>

enum { SCALES_MAX = 64, FACTORS_MAX = 1024 };

void swn_noise_init(swn_noise_t *noise, const uint8_t key[SWN_AES_BLOCK])
{
    memset(noise, 0, sizeof *noise);
    swn_aes_init(&noise->aes, key);
    noise->used = SWN_AES_BLOCK;
}

static uint8_t random_byte(swn_noise_t *noise)
{
    if (noise->used == SWN_AES_BLOCK) {
        memset(noise->block, 0, sizeof noise->block);
        noise->block[0] = (uint8_t)(noise->counter & 0xFFu);
        noise->block[1] = (uint8_t)(noise->counter >> 8 & 0xFFu);
        noise->block[2] = (uint8_t)(noise->counter >> 16 & 0xFFu);
        noise->block[3] = (uint8_t)(noise->counter >> 24);
        swn_aes_encrypt(&noise->aes, noise->block, noise->block);
        noise->counter++;
        noise->used = 0;
    }
    return noise->block[noise->used++];
}

uint64_t swn_noise_below(swn_noise_t *noise, uint64_t range)
{
    uint64_t mask = 0;
    uint64_t value;

    while (mask < range - 1) {
        mask = mask << 1 | 1u;
    }
    do { /* at least half of the draws are in the range */
        uint64_t left;
        value = 0;
        for (left = mask; left != 0; left >>= 8) {
            value = value << 8 | random_byte(noise);
        }
        value &= mask;
    } while (value >= range);
    return value;
}

/* Algorithm 1 for exponents to 1: 1 with probability exp(-numerator / denominator). */
static uint8_t coin_to_one(swn_noise_t *noise, uint64_t numerator, uint64_t denominator)
{
    uint32_t factor = 1; /* reaches n with probability below 1 / (n - 1)! */

    while (factor < FACTORS_MAX && swn_noise_below(noise, denominator * factor) < numerator) {
        factor++;
    }
    return (uint8_t)(factor % 2u);
}

/* Algorithm 1. The first failure ends it, so that large exponents cost little. */
static uint8_t coin(swn_noise_t *noise, uint64_t numerator, uint64_t denominator)
{
    for (; numerator > denominator; numerator -= denominator) {
        if (!coin_to_one(noise, 1, 1)) {
            return 0;
        }
    }
    return coin_to_one(noise, numerator, denominator);
}

/* Algorithm 2: x with probability proportional to exp(-|x| / scale). */
static int32_t laplace(swn_noise_t *noise, uint32_t scale)
{
    for (;;) {
        const uint32_t rest = (uint32_t)swn_noise_below(noise, scale);
        uint32_t scales = 0;
        uint32_t size;

        if (!coin(noise, rest, scale)) {
            continue;
        }
        while (scales < SCALES_MAX && coin_to_one(noise, 1, 1)) {
            scales++;
        }
        size = rest + scale * scales;
        if (swn_noise_below(noise, 2) == 0) {
            return (int32_t)size;
        }
        if (size > 0) { /* else zero would have two signs */
            return -(int32_t)size;
        }
    }
}

int32_t swn_noise_gaussian(swn_noise_t *noise, uint16_t sigma)
{
    const uint64_t square = (uint64_t)sigma * sigma;
    const uint64_t scale = (uint64_t)sigma + 1u;

    if (sigma == 0 || sigma > SWN_SIGMA_MAX) {
        return 0;
    }
    for (;;) {
        /* Algorithm 3: accepted with exp(-(|x| - sigma^2 / scale)^2 / (2 sigma^2)); at most 2^60 over 2^49. */
        const int32_t value = laplace(noise, (uint32_t)scale);
        const uint64_t size = (uint64_t)(value < 0 ? -value : value) * scale;
        const uint64_t off = size > square ? size - square : square - size;

        if (coin(noise, off * off, 2u * square * scale * scale)) {
            return value;
        }
    }
}
