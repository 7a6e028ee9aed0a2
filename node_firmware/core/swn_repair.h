/* What a member of a masking group does when others of it stay silent, and when it must stay silent itself.
 *
 * Theory of operation.  A REPAIR names the members of a group that were heard in a round. One that was heard answers with the
 * seeds of the masks that it shares with the others, and the gateway takes these masks off the sum. One that was not
 * heard forgets its vector: sent later, it would lie open. A node answers for one set of members in each round and for no
 * other, only while its own vector waits for the ACK, and never so that fewer than three stay behind their masks.
 *
 * No two vectors are made for one round: the same masks over both tell their difference. ROUND is not signed, and who has
 * the group's key may announce any number; if numbers only had to rise, one ROUND of number 65535 would end masked sums at
 * all nodes that hear it. So a number uses up its own masks and no other's (kept in NVM, a bit each), and only those that are
 * at most SWN_MASKED_AHEAD beyond the last one that the gateway told this node alone count: by SCHEDULE, which a node asks
 * for when a number is SWN_MASKED_ASK beyond it, or by a unicast ROUND. What lies at or below that number is over. */
#ifndef SWN_REPAIR_H
#define SWN_REPAIR_H

#include "swn_node.h"

/* Whether the node may make a vector for this round. */
uint8_t swn_masked_allowed(const swn_node_t *node, const swn_round_t *round);

/* A round of masked sums was announced, to the group or to this node alone: what that says of its number. */
void swn_masked_heard(swn_node_t *node, uint16_t round, uint8_t multicast);

/* The gateway told this node alone that `round` is the last one it announced: those before it are over. */
void swn_masked_told(swn_node_t *node, uint16_t round);

/* Notes, before the vector leaves, that this round's masks are used up. */
void swn_masked_use(swn_node_t *node);

/* A key for this round's noise: the port's chance where there is one, beside the node's own. */
void swn_masked_draw_key(swn_node_t *node, uint8_t key[SWN_AES_BLOCK]);

/* 1: the node was not heard, and has to forget its vector. */
uint8_t swn_repair_asked(swn_node_t *node, int64_t now_us, const swn_repair_t *repair);

/* Sends the next SEEDS frame, or gives up where none fits at this data rate; only while repair_missing is not 0. */
void swn_repair_send(swn_node_t *node, int64_t now_us);

#endif
