/* Noise for differential privacy: exact discrete Gaussian integers, from AES in counter mode.
 *
 * The sampler is that of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (2020),
 * algorithms 1 to 3: rejection from a discrete Laplace distribution, all coins with rational odds, so that nothing is
 * rounded. One departure: the Laplace value is cut at 64 of its scales, which changes the distribution by less than
 * 2^-90. Coins come from a 128-bit key; how unpredictable the noise is, is how unpredictable that key is. */
#ifndef SWN_NOISE_H
#define SWN_NOISE_H

#include <stdint.h>

#include "swn_aes.h"

enum { SWN_SIGMA_MAX = 4095 };

typedef struct swn_noise {
    swn_aes_t aes;
    uint32_t counter;
    uint8_t block[SWN_AES_BLOCK];
    uint8_t used; /* bytes of the block */
} swn_noise_t;

void swn_noise_init(swn_noise_t *noise, const uint8_t key[SWN_AES_BLOCK]);

/* Evenly in 0 .. range - 1, exactly; range 1 .. 2^63. */
uint64_t swn_noise_below(swn_noise_t *noise, uint64_t range);

/* An integer x with probability proportional to exp(-x^2 / (2 sigma^2)); sigma 0 (always 0) .. SWN_SIGMA_MAX. */
int32_t swn_noise_gaussian(swn_noise_t *noise, uint16_t sigma);

#endif
