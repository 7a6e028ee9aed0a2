/* The frames of expert questions (docs/SPEC.md 2.16 to 2.21; twin of swarm/wire/expert.py), and the coarse vectors
 * in them: 64 int8 as floor i8, step u8 and 64 nibbles, value = min(127, floor + step * nibble). */
#ifndef SWN_EXPERT_H
#define SWN_EXPERT_H

#include <stddef.h>
#include <stdint.h>

#include "swn_model.h"

enum {
    SWN_COARSE_SIZE = 2 + SWN_HIDDEN / 2,
    SWN_ASK_SIZE = 11 + SWN_COARSE_SIZE,
    SWN_OUTPUT_SIZE = 6 + SWN_COARSE_SIZE, /* of a holder */
    SWN_EXPERTS_HEADER = 7, /* and one byte for each expert */
    SWN_EXPERTS_SIZE_MAX = SWN_EXPERTS_HEADER + SWN_EXPERTS_MAX
};
enum { SWN_EXPERTS_ALWAYS_ON = 1 };
enum { SWN_REPLY_MISSING = 3, SWN_REPLY_FROM_REPLICA = 4 }; /* bits 0, 1: what the contribution contains */

void swn_coarse_put(const int8_t values[SWN_HIDDEN], uint8_t out[SWN_COARSE_SIZE]);
void swn_coarse_get(const uint8_t coarse[SWN_COARSE_SIZE], int8_t values[SWN_HIDDEN]);

/* Uplinks. */

typedef struct swn_ask_message {
    uint16_t ask_id;
    uint16_t generation;
    uint8_t label;       /* what the node thinks by itself, */
    uint8_t probability; /* in 1/255 */
    const swn_routing_t *routing;
} swn_ask_message_t;

typedef struct swn_experts_message {
    uint16_t generation;
    uint16_t held;
    uint8_t flags;
    uint8_t count;       /* of the model's experts, 1..SWN_EXPERTS_MAX */
    const uint16_t *seen;
} swn_experts_message_t;

/* Bytes written; 0 when the protocol cannot say it or there is no room. */
size_t swn_frame_ask(const swn_ask_message_t *message, uint8_t *out, size_t room);
size_t swn_frame_output(uint16_t query_id, uint16_t generation, uint8_t done, const int8_t contribution[SWN_HIDDEN],
                        uint8_t *out, size_t room);
size_t swn_frame_experts(const swn_experts_message_t *message, uint8_t *out, size_t room);

/* Downlinks; the vectors point into the caller's bytes. Readers return 0 for bytes that are no such frame. */

typedef struct swn_reply {
    const uint8_t *contribution;
    uint16_t ask_id;
    uint8_t flags;
} swn_reply_t;

typedef struct swn_expert_query {
    swn_routing_t routing; /* missing: the picks that are wanted */
    uint16_t query_id;
    uint16_t generation;
    uint8_t reply_in_s;
} swn_expert_query_t;

uint8_t swn_read_reply(const uint8_t *data, size_t size, swn_reply_t *out);
uint8_t swn_read_expert_query(const uint8_t *data, size_t size, swn_expert_query_t *out);

#endif
