/* Mask repair at the node; see swn_repair.h. */
#include "swn_repair.h"

#include <string.h>

#include "swn_math.h"

#define SECOND_US ((int64_t)1000000)

static void mark(swn_masked_memo_t *memo, uint16_t round, uint8_t used)
{
    uint32_t *bits = &memo->used[round % SWN_MASKED_AHEAD / 32];
    const uint32_t bit = (uint32_t)1 << round % 32;

    *bits = used ? *bits | bit : *bits & ~bit;
}

uint8_t swn_masked_allowed(const swn_node_t *node, const swn_round_t *round)
{
    const swn_masked_memo_t *memo = &node->masked;
    const uint8_t spent = (uint8_t)(round->sums.releases_max > 0 && memo->releases >= round->sums.releases_max);
    const uint8_t used = (uint8_t)(memo->used[round->round % SWN_MASKED_AHEAD / 32] >> round->round % 32 & 1u);

    return (uint8_t)(node->config.mask != NULL && !spent && round->round > memo->over &&
                     round->round <= (uint32_t)memo->over + SWN_MASKED_AHEAD && !used);
}

void swn_masked_heard(swn_node_t *node, uint16_t round, uint8_t multicast)
{
    if (!multicast) {
        swn_masked_told(node, round);
    } else if (node->config.mask != NULL && round > (uint32_t)node->masked.over + SWN_MASKED_ASK) {
        node->masked_asks = 1;
    }
}

void swn_masked_told(swn_node_t *node, uint16_t round)
{
    swn_masked_memo_t *memo = &node->masked;

    node->masked_asks = 0;
    while (memo->over + 1u < round) {
        memo->over++;
        mark(memo, memo->over, 0);
    }
}

void swn_masked_use(swn_node_t *node)
{
    mark(&node->masked, node->round, 1);
    node->masked.releases = (uint16_t)(node->masked.releases + (node->masked.releases < 255));
    if (node->port->nvm_write != NULL) {
        node->port->nvm_write(node->port->ctx, SWN_NVM_MASKED, &node->masked, sizeof node->masked);
    }
}

void swn_masked_draw_key(swn_node_t *node, uint8_t key[SWN_AES_BLOCK])
{
    unsigned i;

    for (i = 0; i < SWN_AES_BLOCK; i += 4) {
        uint32_t word = swn_xorshift32(&node->prng);
        if (node->port->random32 != NULL) {
            word ^= node->port->random32(node->port->ctx);
        }
        key[i] = (uint8_t)(word & 0xFFu);
        key[i + 1] = (uint8_t)(word >> 8 & 0xFFu);
        key[i + 2] = (uint8_t)(word >> 16 & 0xFFu);
        key[i + 3] = (uint8_t)(word >> 24);
    }
}

static unsigned members(uint16_t set)
{
    unsigned count = 0;

    for (; set != 0; set = (uint16_t)(set & (set - 1u))) {
        count++;
    }
    return count;
}

uint8_t swn_repair_asked(swn_node_t *node, int64_t now_us, const swn_repair_t *repair)
{
    const swn_mask_t *mask = node->config.mask;
    const swn_learner_t *learner = &node->learner;
    const uint32_t all = mask == NULL ? 0u : (1u << mask->size) - 1u;
    const uint16_t told = (uint16_t)(node->repair_round == repair->round ? node->repair_received : 0);

    if (mask == NULL || repair->group != mask->group || node->update_mode != SWN_MODE_MASKED_SUMS ||
        repair->round != node->round || !node->round_known || (repair->received & ~all) != 0) {
        return 0;
    }
    if (((unsigned)repair->received >> mask->position & 1u) == 0) {
        node->repair_missing = 0;
        return (uint8_t)(told == 0); /* unless it gave seeds as a survivor already */
    }
    if (node->update_size > 0 || learner->pending_mode != SWN_MODE_MASKED_SUMS ||
        learner->pending_round != repair->round || members(repair->received) < SWN_SURVIVORS_MIN ||
        (told != 0 && told != repair->received)) {
        node->refused++;
        return 0;
    }
    if (node->repair_missing != 0) {
        return 0; /* at it: the request was repeated */
    }
    node->repair_round = repair->round;
    node->repair_received = repair->received;
    node->repair_missing = (uint16_t)(all & ~(uint32_t)repair->received);
    node->repair_due_us = now_us + SECOND_US;
    return 0;
}

/* Of the peers that seeds are owed for, as many as fit into a frame. */
static uint16_t next_peers(const swn_node_t *node)
{
    unsigned room = ((unsigned)node->config.payload_max - SWN_SEEDS_HEADER) / SWN_SEED_SIZE;
    uint16_t chosen = 0;
    unsigned peer;

    for (peer = 0; peer < SWN_GROUP_MAX && room > 0; peer++) {
        if ((unsigned)node->repair_missing >> peer & 1u) {
            chosen = (uint16_t)(chosen | 1u << peer);
            room--;
        }
    }
    return chosen;
}

static size_t next_seeds(const swn_node_t *node, uint8_t out[SWN_PAYLOAD_MAX])
{
    uint8_t seeds[SWN_GROUP_MAX * SWN_SEED_SIZE];
    uint8_t *next = seeds;
    swn_seeds_t message;
    uint8_t peer;

    message.missing = next_peers(node);
    for (peer = 0; peer < SWN_GROUP_MAX; peer++) {
        if ((unsigned)message.missing >> peer & 1u) {
            swn_mask_seed(node->config.mask, peer, node->round, next);
            next += SWN_SEED_SIZE;
        }
    }
    message.seeds = seeds;
    message.round = node->round;
    message.group = node->config.mask->group;
    message.position = node->config.mask->position;
    return swn_frame_seeds(&message, out, node->config.payload_max);
}

void swn_repair_send(swn_node_t *node, int64_t now_us)
{
    uint8_t frame[SWN_PAYLOAD_MAX];
    const size_t size = next_seeds(node, frame);

    if (size == 0) {
        node->repair_missing = 0; /* not at this data rate */
    } else if (swn_transmit(node, now_us, SWN_PORT_LEARNING, frame, size)) {
        node->repair_missing = (uint16_t)(node->repair_missing & ~(unsigned)next_peers(node));
        node->repair_due_us = now_us + SWN_FRAGMENT_GAP_S * SECOND_US;
    }
}
