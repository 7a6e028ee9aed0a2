/* Pairwise masks: a node's sums look like noise, and the masks of a whole group cancel.
 *
 * Theory of operation.  Provisioning gives each pair of a group a key that the gateway never holds. In round r the pair
 * has the seed AES(key, 4D | r | 0...), and the mask AES(seed, counter) for counter 0, 1, ...: 16-bit words, little
 * endian. The member with the smaller position adds it, the other subtracts it, modulo 2^16 (and so modulo any
 * 2^bits). A seed tells the mask of one round; the key, and with it every other round, stays in the node.
 * No round may be masked twice with different values: swn_node.h keeps those that were over resets. */
#ifndef SWN_MASK_H
#define SWN_MASK_H

#include <stddef.h>
#include <stdint.h>

#include "swn_aes.h"

enum {
    SWN_GROUP_MIN = 4,
    SWN_GROUP_MAX = 16,
    SWN_SURVIVORS_MIN = 3,
    SWN_SEED_SIZE = SWN_AES_BLOCK,
    SWN_MASKED_AHEAD = 128, /* rounds that may be masked beyond the last number that is sure */
    SWN_MASKED_ASK = 16     /* so far beyond it the node asks */
};

/* The group of a node; in flash. keys[i] is shared with the member at position i; the own one is not used. */
typedef struct swn_mask {
    uint16_t group;
    uint8_t position; /* 0..size - 1 */
    uint8_t size;     /* 4..16 */
    uint8_t keys[SWN_GROUP_MAX][SWN_AES_BLOCK];
} swn_mask_t;

/* 1 when the numbers are in their ranges. */
uint8_t swn_mask_valid(const swn_mask_t *mask);

/* What the pair with `peer` derives this round's mask from. */
void swn_mask_seed(const swn_mask_t *mask, uint8_t peer, uint16_t round, uint8_t seed[SWN_SEED_SIZE]);

/* Adds the masks of all pairs to `values`, modulo 2^16. */
void swn_mask_apply(const swn_mask_t *mask, uint16_t round, uint16_t *values, size_t count);

#endif
