/* Remote multicast setup (TS005, FPort 200), the device's side, version 1 or 2.
 *
 * Theory of operation.  All commands come to this node alone; what a group hears is ignored. McGroupSetupReq brings a
 * group's key under this node's McKEKey, from which the session keys are made; the LoRaWAN stack is given them, and
 * the range of frame counters that it may accept. McClassCSessionReq says when (GPS seconds, swn_clock.h) and where
 * the group will speak; what the receiver cannot do, or what has begun already, is answered with why. There is no
 * class B here: such a request is answered as one for a channel that does not exist. Groups must outlive a reset of the
 * node: keep the whole swn_groups_t when something was set, deleted or opened.
 */
#ifndef SWN_GROUPS_H
#define SWN_GROUPS_H

#include <stddef.h>
#include <stdint.h>

#include "swn_aes.h"

enum {
    SWN_PORT_GROUPS = 200,
    SWN_GROUPS_PACKAGE = 2,
    SWN_GROUPS_MAX = 4,
    SWN_GROUPS_ANSWER_MAX = 48,
    /* What a port says of a channel, as the answer says it. */
    SWN_CHANNEL_OK = 0,
    SWN_CHANNEL_BAD_RATE = 4,
    SWN_CHANNEL_BAD_FREQUENCY = 8
};

typedef enum swn_groups_event {
    SWN_GROUPS_NOTHING = 0,
    SWN_GROUPS_SET,
    SWN_GROUPS_DELETED,
    SWN_GROUPS_SESSION
} swn_groups_event_t;

typedef struct swn_group {
    uint32_t address;
    uint32_t f_cnt_min; /* frames with counters from here */
    uint32_t f_cnt_max; /* up to here, this one not, are the group's */
    uint8_t nwk_s_key[SWN_AES_BLOCK];
    uint8_t app_s_key[SWN_AES_BLOCK];
    uint32_t session_start_s; /* GPS seconds */
    uint32_t session_length_s;
    uint32_t session_frequency_hz;
    uint8_t session_rate;
    uint8_t has_session;
    uint8_t is_set;
} swn_group_t;

typedef struct swn_groups {
    swn_group_t groups[SWN_GROUPS_MAX];
    uint8_t ke_key[SWN_AES_BLOCK]; /* McKEKey, see swn_groups_key() */
    uint8_t version;
} swn_groups_t;

/* What the receiver can do: SWN_CHANNEL_OK, or the sum of what is wrong. */
typedef uint8_t (*swn_channel_t)(void *user, uint32_t frequency_hz, uint8_t data_rate);

/* To be sent on FPort 200; size 0: nothing. `which` is the group of the event. */
typedef struct swn_groups_answer {
    uint8_t size;
    uint8_t which;
    uint8_t data[SWN_GROUPS_ANSWER_MAX];
} swn_groups_answer_t;

/* McKEKey of a node from its GenAppKey, or with `version_1_1` from the AppKey of a LoRaWAN 1.1 device. */
void swn_groups_key(const uint8_t root[SWN_AES_BLOCK], uint8_t version_1_1, uint8_t ke_key[SWN_AES_BLOCK]);

void swn_groups_init(swn_groups_t *groups, const uint8_t ke_key[SWN_AES_BLOCK], uint8_t version);

/* Takes a payload of FPort 200 that came by unicast, at `gps_now_s`. `channel` may be NULL: everything is possible. */
swn_groups_event_t swn_groups_rx(swn_groups_t *groups, uint32_t gps_now_s, const uint8_t *payload, size_t size,
                                 swn_channel_t channel, void *user, swn_groups_answer_t *answer);

#endif
