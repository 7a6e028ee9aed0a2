/* Fragmented data block transport (TS004, FPort 201), the device's side, version 1 or 2.
 *
 * Theory of operation.  A FragSessionSetupReq, always to this node alone, opens the session: the flash is asked for
 * room, and a request that cannot be served is answered with why. The node has one session; it may have any index, and
 * the newest request replaces what was there. In version 2 the request of the running session again (its answer was lost)
 * is answered again and changes nothing. DataFragments then come by unicast or in the multicast groups that the request
 * named; swn_erasure.h puts the block together. In version 2 the request holds a MIC of the block under a key of this
 * node alone, so whoever knows the group's key can spoil a block but not forge one: the block is whole when its MIC is
 * right. Version 1 has no MIC; what its block says must be protected by itself. A session does not survive a reset of
 * the node; the gateway learns so from its next status and sets it up again.
 *
 * An OFFER (swn_transport_offer) opens a session for a whole group with one frame. It has neither MIC nor SessionCnt, and
 * says the version itself: whoever takes offers checks a signature of the block (swn_receive.c) and says swn_transport_disown()
 * when it is wrong. A block that is known to lie in flash (swn_transport_keep) is whole as soon as a session for it opens.
 *
 * What the session counts of version 2 (replays are refused) must outlive a reset: keep `session_cnt_next` when
 * swn_transport_rx() says SWN_TRANSPORT_OPENED, and hand it back to swn_transport_init().
 */
#ifndef SWN_TRANSPORT_H
#define SWN_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "swn_aes.h"
#include "swn_erasure.h"

enum {
    SWN_PORT_TRANSPORT = 201,
    SWN_TRANSPORT_PACKAGE = 3,
    SWN_TRANSPORT_SETUP_MAX = 16, /* bytes of a FragSessionSetupReq */
    SWN_TRANSPORT_ANSWER_MAX = 16,
    SWN_SESSION_INDICES = 4,
    SWN_UNICAST = 255 /* instead of a multicast group 0..3 */
};

typedef enum swn_transport_event {
    SWN_TRANSPORT_NOTHING = 0,
    SWN_TRANSPORT_OPENED, /* a session */
    SWN_TRANSPORT_CLOSED, /* it is deleted */
    SWN_TRANSPORT_PIECE,  /* a fragment of the session came */
    SWN_TRANSPORT_WHOLE,  /* the block is in flash, its MIC (version 2) right */
    SWN_TRANSPORT_FORGED  /* the block is in flash, its MIC wrong */
} swn_transport_event_t;

/* A session for all who hear it (FPort 10). */
typedef struct swn_offer {
    uint16_t count;      /* of pieces */
    uint16_t start_in_s; /* from the end of the frame; 0: it runs */
    uint16_t length_s;   /* from its start: so long the group sends */
    uint8_t piece_size;
    uint8_t padding;     /* of the last piece, below piece_size */
    uint8_t index;       /* 0..3 */
    uint8_t ack_delay;   /* answers to the group go out at random within 2^(4 + this) s */
    uint8_t version;     /* 1 or 2: of rows and answers */
    uint8_t descriptor[4];
} swn_offer_t;

/* What is to be sent on FPort 201, at `delay_us` from now; size 0: nothing. */
typedef struct swn_transport_answer {
    uint32_t delay_us;
    uint8_t size;
    uint8_t data[SWN_TRANSPORT_ANSWER_MAX];
} swn_transport_answer_t;

typedef struct swn_transport_config {
    const swn_flash_t *flash;
    uint8_t *memory; /* for lost pieces: SWN_ERASURE_MEMORY, more or less */
    size_t memory_size;
    uint64_t seed;
    uint8_t version;                       /* 1 or 2: that the package says it speaks */
    uint8_t no_key;                        /* 1: there is none, and no MIC is checked */
    uint8_t integrity_key[SWN_AES_BLOCK]; /* DataBlockIntKey, see swn_transport_key() */
} swn_transport_config_t;

typedef struct swn_transport {
    swn_transport_config_t config;
    swn_erasure_t erasure;
    uint32_t session_cnt_next[SWN_SESSION_INDICES]; /* the least SessionCnt that is not a replay */
    uint32_t prng;
    uint32_t kept_size; /* of the block that lies whole in flash, 0: none */
    uint8_t kept[4];    /* its descriptor */
    uint16_t received; /* fragments of the session */
    uint8_t is_open;
    uint8_t is_forged;
    uint8_t by_offer;
    uint8_t setup[SWN_TRANSPORT_SETUP_MAX]; /* the request, as it came */
} swn_transport_t;

/* DataBlockIntKey of a node from its GenAppKey (AppKey of a LoRaWAN 1.1 device). */
void swn_transport_key(const uint8_t root[SWN_AES_BLOCK], uint8_t key[SWN_AES_BLOCK]);

/* `session_cnt_next` as kept, NULL for none. */
void swn_transport_init(swn_transport_t *transport, const swn_transport_config_t *config,
                        const uint32_t *session_cnt_next);

/* Takes a payload of FPort 201 that came by unicast (SWN_UNICAST) or in a multicast group 0..3. */
swn_transport_event_t swn_transport_rx(swn_transport_t *transport, const uint8_t *payload, size_t size, uint8_t group,
                                       swn_transport_answer_t *answer);

/* Opens the session of an offer; 0 when it cannot be served. The same one again begins anew. */
uint8_t swn_transport_offer(swn_transport_t *transport, const swn_offer_t *offer);

/* Whether the session is that of the offer, however it was opened. */
uint8_t swn_transport_is_offered(const swn_transport_t *transport, const swn_offer_t *offer);

/* The status of the session, as an answer to its group; size 0 without one. */
void swn_transport_tell(swn_transport_t *transport, swn_transport_answer_t *answer);

/* A block with this descriptor lies whole in flash, `size` bytes of it; 0: none does. */
void swn_transport_keep(swn_transport_t *transport, const uint8_t descriptor[4], uint32_t size);

/* Behind SWN_TRANSPORT_WHOLE: the block is not what the node takes; from now on all is said as if its MIC were wrong.
 * `answer` is the one of that call. */
void swn_transport_disown(swn_transport_t *transport, swn_transport_answer_t *answer);

/* Answers to a group go out within so long. */
uint32_t swn_transport_span_us(const swn_transport_t *transport);

/* Whether a session is open for this node alone: no group hears its fragments. */
uint8_t swn_transport_is_alone(const swn_transport_t *transport);

/* Bytes of the session's block without padding, 0 without a session; its descriptor. */
uint32_t swn_transport_size(const swn_transport_t *transport);
const uint8_t *swn_transport_descriptor(const swn_transport_t *transport);

#endif
