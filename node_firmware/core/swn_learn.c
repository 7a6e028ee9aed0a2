/* Samples and updates; see swn_learn.h. */
#include "swn_learn.h"

#include <string.h>

#include "swn_compose.h"
#include "swn_frame.h"

void swn_learner_init(swn_learner_t *learner)
{
    memset(learner, 0, sizeof *learner);
}

void swn_learner_add(swn_learner_t *learner, uint16_t id, const int8_t hidden[SWN_HIDDEN])
{
    swn_day_sample_t *sample = &learner->samples[learner->next];

    if (learner->used < SWN_SAMPLES_MAX) {
        learner->used++;
    } else if (sample->example.label != SWN_LABEL_NONE) {
        learner->labelled--;
    }
    memcpy(sample->example.hidden, hidden, SWN_HIDDEN);
    sample->example.label = SWN_LABEL_NONE;
    sample->state = SWN_SAMPLE_NEW;
    sample->id = id;
    learner->next = (uint8_t)((learner->next + 1u) % SWN_SAMPLES_MAX);
}

void swn_learner_amend(swn_learner_t *learner, uint16_t id, const int8_t hidden[SWN_HIDDEN])
{
    unsigned i;

    for (i = 0; i < learner->used; i++) {
        swn_day_sample_t *sample = &learner->samples[i];
        if (sample->id == id && sample->example.label == SWN_LABEL_NONE) {
            memcpy(sample->example.hidden, hidden, SWN_HIDDEN);
        }
    }
}

uint8_t swn_learner_label(swn_learner_t *learner, uint16_t id, uint8_t label)
{
    unsigned i;

    for (i = 0; i < learner->used; i++) {
        swn_day_sample_t *sample = &learner->samples[i];
        if (sample->id == id && sample->example.label == SWN_LABEL_NONE) {
            sample->example.label = label;
            learner->labelled++;
            return 1;
        }
    }
    return 0;
}

void swn_learner_drop(swn_learner_t *learner)
{
    unsigned i;

    for (i = 0; i < learner->used; i++) {
        if (learner->samples[i].state == SWN_SAMPLE_PENDING) {
            learner->samples[i].state = SWN_SAMPLE_NEW;
        }
    }
    memset(&learner->pending, 0, sizeof learner->pending);
    learner->pending_mode = SWN_MODE_NONE;
}

uint8_t swn_learner_acknowledge(swn_learner_t *learner, uint16_t round)
{
    unsigned i;

    if (learner->pending_mode == SWN_MODE_NONE || learner->pending_round != round) {
        return 0;
    }
    swn_change_subtract(learner->residual, SWN_LOCAL_SIZE_MAX, &learner->pending);
    for (i = 0; i < learner->used; i++) {
        if (learner->samples[i].state == SWN_SAMPLE_PENDING) {
            learner->samples[i].state = SWN_SAMPLE_REPORTED;
        }
    }
    swn_learner_drop(learner);
    return 1;
}

static size_t compose(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    switch (update->mode) {
    case SWN_MODE_PROTOTYPES:
        return swn_compose_prototypes(learner, update, out);
    case SWN_MODE_TOP_K_SIGN:
        return swn_compose_top_k_sign(learner, update, out);
    case SWN_MODE_TOP_K_INT4:
        return swn_compose_top_k_int4(learner, update, out);
    case SWN_MODE_DENSE_INT8:
        return swn_compose_dense_int8(learner, update, out);
    case SWN_MODE_FEATURES:
        return swn_compose_features(learner, update, out);
    case SWN_MODE_BLOCKS:
        return swn_compose_blocks(learner, update, out);
    case SWN_MODE_MASKED_SUMS:
        return swn_compose_masked_sums(learner, update, out);
    default:
        return 0;
    }
}

size_t swn_learner_compose(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    size_t size;

    swn_learner_drop(learner);
    size = compose(learner, update, out);
    if (size == 0) {
        swn_learner_drop(learner);
        return 0;
    }
    learner->pending_round = update->round;
    learner->pending_mode = update->mode;
    return size;
}
