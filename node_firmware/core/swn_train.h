/* Training on the node: int16 SGD on adapter and head. What travels of the change: swn_change.h.
 *
 * Theory of operation: the trunk is frozen, so one int8 hidden vector per day is all that training needs.
 * Each step runs adapter, projection and head forward, takes the softmax error in Q15 back through the
 * head and the projection, and changes a local int16 copy of the adapter and the head. Steps smaller than one
 * unit survive by stochastic rounding, from a seeded generator: the same seed gives the same weights. */
#ifndef SWN_TRAIN_H
#define SWN_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "swn_model.h"

#define SWN_LABEL_NONE 255

typedef struct swn_example {
    int8_t hidden[SWN_HIDDEN];  /* from swn_features_to_hidden */
    uint8_t label;              /* below the model's classes; SWN_LABEL_NONE: skipped */
} swn_example_t;

typedef struct swn_train {
    const swn_model_t *model;
    uint32_t prng;                          /* never 0; swn_seed32() makes one */
    int16_t parameters[SWN_LOCAL_SIZE_MAX]; /* adapter A, adapter B, head: the local copy that learns */
    uint8_t rate_head;                      /* learning rate * 1024 */
    uint8_t rate_adapter;                   /* learning rate * 4096; 0 leaves the adapter as it is */
    uint8_t class_weight[SWN_CLASSES_MAX];  /* 64 = 1.0, at most 64: weigh frequent classes down */
} swn_train_t;

/* A local copy of the parameters and the default rates (head 1/64, adapter 1/1024, weights 1.0). */
void swn_train_init(swn_train_t *train, const swn_model_t *model, const int16_t adapter[SWN_ADAPTER_SIZE],
                    const int16_t *head, uint64_t seed);

/* Class weights from the labels: the rarest class present 64, others inversely to the root of their count. */
void swn_train_balance(swn_train_t *train, const swn_example_t *first, size_t stride, size_t count);

/* One step; returns the cross-entropy before it, in Q13. label must be a class. */
int32_t swn_train_step(swn_train_t *train, const int8_t hidden[SWN_HIDDEN], uint8_t label);

/* One pass over `count` examples, `stride` bytes apart (so that they may lie inside larger records), in an
 * order drawn from the seed. Returns the mean cross-entropy in Q13 of the examples with a label, 0 if none. */
int32_t swn_train_epoch(swn_train_t *train, const swn_example_t *first, size_t stride, size_t count);

/* Mean cross-entropy in Q13 without learning; *correct (may be NULL) gets the number of right answers. */
int32_t swn_train_evaluate(const swn_train_t *train, const swn_example_t *first, size_t stride, size_t count,
                           size_t *correct);

#endif
