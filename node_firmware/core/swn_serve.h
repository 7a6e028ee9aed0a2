/* What a node answers with: the fleet's newest head only while its own labels do not speak against it.
 *
 * Theory of operation.  The node always mirrors the gateway's parameters, for training and DELTA blocks build on
 * them; what it serves is another matter.  Whenever a label or a new head comes, the candidates are compared on the
 * node's own labelled samples (at most 64):
 *   global      the newest head of the fleet        kept        the head of the fleet that was served before
 *   shipped     the container's head                personal    the global one, trained on the node's own labels
 *   rule        the published rule's class          last label  the true class of the labelled day before
 * A crop that the model was shipped for starts with the shipped head, and the global one has to beat it; another
 * crop starts with the global one, for its shipped head was made for nothing in particular, and so does one whose public
 * data (the prior in the container) lack a class: labels of the others cannot show what the shipped head does not know.  From there on each
 * candidate in turn has to beat the best so far: by more than a coin would on the samples that only one of the two
 * gets right (a sign test of 1.4 sd, samples weighing inversely to their class's frequency, so that a rare
 * class counts).  With fewer than three labels nothing is compared: a crop that the model was shipped for keeps
 * what it served.  "No gain": the fleet changed the node's head, and the node does not use it.
 * The personal head is trained anew when a quarter more labels came, four at least; from sixteen labels on the
 * candidates are compared with every fourth.  What it would have said is asked of heads trained on
 * the other two thirds of the labels (thirds of consecutive samples, for days resemble their neighbours).
 * How far it is to be believed the node tells as well: what it answered on each sample before the label came is kept
 * and counted when it comes (`told`, `right`); the last ones count more.
 */
#ifndef SWN_SERVE_H
#define SWN_SERVE_H

#include <stdint.h>

#include "swn_block.h"
#include "swn_learn.h"
#include "swn_model.h"

typedef enum swn_choice {
    SWN_SERVE_GLOBAL = 0,
    SWN_SERVE_KEPT = 1,
    SWN_SERVE_SHIPPED = 2,
    SWN_SERVE_PERSONAL = 3,
    SWN_SERVE_RULE = 4,
    SWN_SERVE_LAST_LABEL = 5
} swn_choice_t;

enum { SWN_CHOICES = 6, SWN_RULE_NONE = 255, SWN_SERVE_LABELS_MIN = 3, SWN_SERVE_EVERY = 4,
       SWN_PERSONAL_LABELS_MIN = 8, SWN_RIGHT_TOLD_MIN = 3, SWN_RIGHT_TOLD_MAX = 60 };

typedef struct swn_serve {
    int16_t kept[SWN_HEAD_SIZE_MAX];
    int16_t personal[SWN_HEAD_SIZE_MAX];
    uint8_t rule[SWN_SAMPLES_MAX];     /* by slot of the learner's ring: the rule's class, or SWN_RULE_NONE */
    uint8_t personal_said[SWN_SAMPLES_MAX]; /* by slot: without having seen the sample's label; 255: not asked */
    uint8_t answered[SWN_SAMPLES_MAX]; /* by slot: the class that was answered before the label came; 255: none */
    uint8_t choice;                    /* swn_choice_t */
    uint8_t no_gain;
    uint8_t told;                      /* samples with an answer whose label came */
    uint8_t right;                     /* of them, with the answer that the label gave */
    uint8_t has_personal;
    uint8_t labels;                    /* since the personal head was trained */
} swn_serve_t;

/* Whose samples and heads are compared. */
typedef struct swn_own {
    const swn_model_t *model;
    const swn_parameters_t *parameters;
    const swn_learner_t *learner;
    uint64_t seed;
    uint8_t context;
} swn_own_t;

void swn_serve_init(swn_serve_t *serve, const swn_own_t *own);

/* The learner's next sample goes to `slot`; `rule`: the rule's class for it, or SWN_RULE_NONE; `answered`: what the
 * node says of it. */
void swn_serve_sample(swn_serve_t *serve, uint8_t slot, uint8_t rule, uint8_t answered);

/* The label of the sample `id` came. */
void swn_serve_label(swn_serve_t *serve, const swn_own_t *own, uint16_t id);

/* The share of answers that were right, in 1..15 for 0..1; 0: fewer than three were told. */
uint8_t swn_serve_right(const swn_serve_t *serve);

/* After a reset: what was kept by SWN_NVM_SERVE; the samples are gone. */
void swn_serve_recall(swn_serve_t *serve, const void *data);

/* A block changed the parameters. */
void swn_serve_block(swn_serve_t *serve, const swn_own_t *own);

/* Probabilities (sum 255) by what is served, of z; `rule`: the rule's class for the same inputs, or
 * SWN_RULE_NONE. */
void swn_serve_infer(const swn_serve_t *serve, const swn_own_t *own, const int8_t z[SWN_Z], uint8_t rule,
                     uint8_t *probabilities);

#endif
