/* The updates that a node can compose, one function for each mode (swn_learn.c calls the right one).
 *
 * Each writes a whole update into `out` (SWN_UPDATE_SIZE_MAX bytes) and returns its size, 0 when there is
 * nothing to say. An update of one frame keeps to update->payload_max; a larger one is cut by the node.
 * What the update takes from the learner is noted there until the ACK: samples as SWN_SAMPLE_PENDING, a
 * change in learner->pending. */
#ifndef SWN_COMPOSE_H
#define SWN_COMPOSE_H

#include "swn_learn.h"

/* Class means of the labelled samples not reported yet. */
size_t swn_compose_prototypes(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

/* The largest coordinates of the change, as many as fit into a frame: their signs, or levels of four bits. */
size_t swn_compose_top_k_sign(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);
size_t swn_compose_top_k_int4(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

/* The whole change in int8. */
size_t swn_compose_dense_int8(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

/* The newest labelled samples not reported yet, as many as fit into a frame: z in four bits, and the label. */
size_t swn_compose_features(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

/* Those chunks of the change that this round is for, in four bits. */
size_t swn_compose_blocks(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

/* Class sums and second moments under the masks of the node's group. */
size_t swn_compose_masked_sums(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

#endif
