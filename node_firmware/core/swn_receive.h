/* Large blocks: a model container that travels in fragments (TS004), signed by the gateway.
 *
 * Theory of operation.  An OFFER (or the unicast set-up of TS004) opens a session; the receiver is on from its start until
 * the block is whole or its length is over, whatever the windows of rounds do (swn_listen.h). Fragments go through
 * swn_transport to the board's flash. When the block is whole, three things have to be right before it counts: its
 * signature (the last 64 bytes, Ed25519 over "SWNB", 255 and all before them); its SHA-512, which begins with the
 * descriptor that was offered; and what was signed is a container that the engine runs and that is not older than the one it
 * runs. Then it is SWN_WHOLE_AND_VERIFIED and written down in SWN_NVM_STORED. Anything else is SWN_FORGED: dropped, counted
 * in `refused`, and told as a wrong MIC. Either way the node says so by itself, SWN_WHOLE_TOLD times, for it closes its
 * receiver and hears no more polls. A node that is helped by unicast says its status behind each fragment, so that the
 * next one can follow, and again when none does: one of the two frames was lost. Nothing is installed while the node runs: the board does that at its next restart.
 *
 * An OFFER is not signed: whoever has the group's key may open a session, spoil one, or make receivers listen. What that
 * costs is bounded: SWN_SESSIONS_A_DAY sessions, each one erasing of the flash, and SWN_SESSION_DAY_S of listening in any
 * day. The newest OFFER wins; the same one again keeps the session and only moves its end.
 */
#ifndef SWN_RECEIVE_H
#define SWN_RECEIVE_H

#include <stdint.h>

#include "swn_ed25519.h"
#include "swn_transport.h"

enum {
    SWN_SIGNED_KIND = 255,        /* of blocks that come by TS004 */
    SWN_SESSIONS_A_DAY = 16,
    SWN_SESSION_DAY_S = 8 * 3600,
    SWN_WHOLE_TOLD = 2,           /* an uplink may be lost */
    SWN_TELL_AGAIN_S = 3600       /* who offers what the node has is told again, not more often */
};

typedef enum swn_receive_state {
    SWN_NO_BLOCK = 0,
    SWN_RECEIVING,
    SWN_WHOLE_AND_VERIFIED,
    SWN_FORGED /* or no container that this engine runs */
} swn_receive_state_t;

/* What outlives a reset (SWN_NVM_STORED): the verified block that lies in the board's flash, and which SessionCnts
 * were used. */
typedef struct swn_stored {
    uint32_t session_cnt_next[SWN_SESSION_INDICES];
    uint32_t size; /* with its signature; 0: nothing is there that may be installed */
    uint8_t descriptor[4];
} swn_stored_t;

/* Set by the board before swn_init(), the rest of it is the node's. */
typedef struct swn_receive_config {
    const swn_flash_t *flash;
    uint8_t *lost_pieces;     /* memory for them: SWN_ERASURE_MEMORY, more or less */
    size_t lost_pieces_size;
    const uint8_t *block_key; /* DataBlockIntKey (swn_transport_key()), 16 B; NULL: no MIC is checked */
} swn_receive_config_t;

typedef struct swn_receive {
    swn_receive_config_t config;
    swn_transport_t transport;
    swn_transport_answer_t answer; /* that waits; size 0: none */
    int64_t answer_due_us;
    int64_t answer_until_us;
    int64_t tell_due_us;
    int64_t forged_until_us;       /* the same offer opens nothing before */
    int64_t day_us;                /* the first session of the day in which are counted: */
    int64_t day_listened_us;       /* without the running session */
    uint8_t day_sessions;
    uint8_t asks;                  /* so often the answer is still repeated, unless a fragment comes */
    uint8_t tells;                 /* to be sent: the block is whole */
    uint8_t state;                 /* swn_receive_state_t */
} swn_receive_t;

#endif
