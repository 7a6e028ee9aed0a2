/* What a node learns from: a ring of samples (one a day, or what the application observes), and the updates made of
 * them.
 *
 * Theory of operation.  Each noon adds one sample (the trunk's hidden vector: the trunk never changes, so
 * it is computed once); its label is told later.  When a round asks for an update, one is composed and
 * stays pending until the ACK of that round arrives, the next update is composed, or the node drops it:
 *   prototypes   class means of z over the labelled samples not reported yet, of as many classes as the
 *                frame holds with 16 dimensions each, the most frequent first; those samples become
 *                reported with the ACK and are free to be sent again without it.
 *   top_k_sign, top_k_int4, dense_int8
 *                local training from the current global parameters over all labelled samples; the change
 *                is added to the residual, what the coding holds of it travels, and what travelled is
 *                subtracted from it with the ACK.
 *   features     the newest labelled samples not reported yet themselves, z and label, as many as a frame holds;
 *                marked and freed as in prototypes.
 *   blocks       local training as above, of which only this round's chunks of the vector join the residual and
 *                travel; the others are trained afresh when it is their turn.
 *   masked_sums  sums of z and z z' over the same samples as prototypes, which only the group's sum reveals.
 * A further mode is a function in swn_compose.h and a case in swn_learn.c; the ACK treats all alike.
 */
#ifndef SWN_LEARN_H
#define SWN_LEARN_H

#include <stddef.h>
#include <stdint.h>

#include "swn_block.h"
#include "swn_change.h"
#include "swn_frame.h"
#include "swn_mask.h"
#include "swn_model.h"
#include "swn_noise.h"
#include "swn_train.h"

enum { SWN_SAMPLES_MAX = 64, SWN_TRAIN_EPOCHS = 4, SWN_DIMS_MAX_DR0 = 20, SWN_DIMS_MIN = 16 };

enum { SWN_SAMPLE_NEW = 0, SWN_SAMPLE_PENDING = 1, SWN_SAMPLE_REPORTED = 2 };

typedef struct swn_day_sample {
    swn_example_t example;
    uint8_t state;
    uint16_t id; /* the day's number, or the application's own */
} swn_day_sample_t;

typedef struct swn_learner {
    swn_day_sample_t samples[SWN_SAMPLES_MAX];
    int16_t residual[SWN_LOCAL_SIZE_MAX];
    swn_change_t pending;   /* what the pending update carries of the residual */
    uint16_t pending_round;
    uint8_t pending_mode;   /* SWN_MODE_NONE: no update waits for its ACK */
    uint8_t next;           /* slot of the next sample */
    uint8_t used;           /* samples so far, at most 64 */
    uint8_t labelled;       /* of them with a label */
} swn_learner_t;

void swn_learner_init(swn_learner_t *learner);

/* A new sample, still without label; the oldest makes room. */
void swn_learner_add(swn_learner_t *learner, uint16_t id, const int8_t hidden[SWN_HIDDEN]);

/* The features of a sample have changed, before its label came. */
void swn_learner_amend(swn_learner_t *learner, uint16_t id, const int8_t hidden[SWN_HIDDEN]);

/* The true class of a sample, one of the model's; 0 when there is no such sample without a label. */
uint8_t swn_learner_label(swn_learner_t *learner, uint16_t id, uint8_t label);

/* Whose parameters an update is made from, and for which frame. */
typedef struct swn_update {
    const swn_model_t *model;
    const swn_parameters_t *parameters;
    uint64_t seed; /* of the training */
    uint16_t round;
    uint16_t node_index;
    uint8_t mode; /* SWN_MODE_... */
    uint8_t context;
    uint8_t payload_max; /* of one frame */
    uint8_t heads_only; /* leave the adapter, which all crops share, as it is */
    uint8_t epochs; /* of the training; 0: SWN_TRAIN_EPOCHS */
    const swn_mask_t *mask; /* masked_sums; NULL: the node is in no group */
    swn_sums_plan_t sums;
    uint8_t noise_key[SWN_AES_BLOCK];
} swn_update_t;

/* Composes the update into `out` (SWN_UPDATE_SIZE_MAX bytes); 0 when there is nothing to say. Larger than a frame: to
 * be sent in fragments. */
size_t swn_learner_compose(swn_learner_t *learner, const swn_update_t *update, uint8_t *out);

/* The gateway counted the update of this round; 0 when it is not the pending one. */
uint8_t swn_learner_acknowledge(swn_learner_t *learner, uint16_t round);

/* The pending update will not reach the gateway any more. */
void swn_learner_drop(swn_learner_t *learner);

#endif
