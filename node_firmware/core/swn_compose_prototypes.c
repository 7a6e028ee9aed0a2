/* Class means of what a node has seen; see swn_compose.h. */
#include "swn_compose.h"

#include <string.h>

#include "swn_frame.h"
#include "swn_math.h"

/* Rounds to the nearest, halves away from zero; denominator > 0. */
static int32_t divide_nearest(int32_t numerator, int32_t denominator)
{
    const int32_t half = denominator / 2;

    return (numerator < 0 ? numerator - half : numerator + half) / denominator;
}

static int32_t divide_up(int32_t numerator, int32_t denominator)
{
    return (numerator + denominator - 1) / denominator;
}

/* The mean of `count` vectors as int4 q and the smallest scale with which q * scale / 8 reaches it. */
static void quantise_mean(swn_class_mean_t *mean, const int16_t sum[SWN_Z], uint8_t count, uint8_t dims)
{
    int32_t scale = 1;
    unsigned i;

    for (i = 0; i < dims; i++) {
        const int32_t need = sum[i] < 0 ? divide_up(-(int32_t)sum[i], count) : divide_up(8 * (int32_t)sum[i], 7 * count);
        scale = need > scale ? need : scale;
    }
    mean->count = count;
    mean->scale = (uint8_t)scale;
    for (i = 0; i < dims; i++) {
        mean->q[i] = (int8_t)swn_clamp(divide_nearest(8 * (int32_t)sum[i], scale * count), -8, 7);
    }
}

/* Dimensions that fit for each of `classes` means: 32 or, where a frame holds 51 bytes, 20, which leaves 6 bytes to
 * MAC commands; else as many as there is room for. */
static int32_t dims_for(int32_t room, int32_t classes)
{
    const int32_t each = room / classes - 2;

    return each >= SWN_Z / 2 ? SWN_Z : each >= SWN_DIMS_MAX_DR0 / 2 ? SWN_DIMS_MAX_DR0 : each > 0 ? 2 * each : 0;
}

/* What a prototypes frame will hold. */
typedef struct swn_choice {
    uint8_t chosen[SWN_CLASSES_MAX];
    uint8_t dims;
} swn_choice_t;

/* If all classes fit, a node always sends the same number of dimensions; else those that are there do; else the most
 * frequent ones, as many as fit with 16 dimensions: fewer dimensions say too little. */
static swn_choice_t choose(const uint8_t *counts, unsigned classes, uint8_t payload_max)
{
    const int32_t room = payload_max - SWN_PROTOTYPES_HEADER - (classes > SWN_MASK_CLASSES);
    swn_choice_t choice;
    int32_t present = 0;
    int32_t fit;
    unsigned i;

    memset(&choice, 0, sizeof choice);
    for (i = 0; i < classes; i++) {
        present += counts[i] > 0;
    }
    if (present == 0) {
        return choice;
    }
    fit = dims_for(room, (int32_t)classes) >= SWN_DIMS_MIN ? (int32_t)classes : present;
    if (dims_for(room, fit) < SWN_DIMS_MIN) {
        fit = room / (2 + SWN_DIMS_MIN / 2);
        fit = fit > 0 ? fit : 1;
    }
    choice.dims = (uint8_t)dims_for(room, fit);
    for (; fit > 0; fit--) {
        unsigned best = classes;
        for (i = 0; i < classes; i++) {
            if (counts[i] > 0 && !choice.chosen[i] && (best == classes || counts[i] > counts[best])) {
                best = i;
            }
        }
        if (best < classes) {
            choice.chosen[best] = 1;
        }
    }
    return choice;
}

/* Labelled and not reported yet. */
static int is_free(const swn_day_sample_t *sample)
{
    return sample->example.label != SWN_LABEL_NONE && sample->state != SWN_SAMPLE_REPORTED;
}

size_t swn_compose_prototypes(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    const unsigned classes = update->model->classes;
    int16_t sums[SWN_CLASSES_MAX][SWN_Z]; /* at most 64 samples: |sum| <= 8192 */
    uint8_t counts[SWN_CLASSES_MAX];
    swn_prototypes_t message;
    swn_choice_t choice;
    unsigned i;
    unsigned d;

    memset(sums, 0, sizeof sums);
    memset(counts, 0, sizeof counts);
    memset(&message, 0, sizeof message);
    for (i = 0; i < learner->used; i++) {
        if (is_free(&learner->samples[i])) {
            counts[learner->samples[i].example.label]++;
        }
    }
    choice = choose(counts, classes, update->payload_max);
    message.round = update->round;
    message.model_version = update->parameters->model_version;
    message.context = update->context;
    message.dims = choice.dims;
    for (i = 0; i < learner->used; i++) {
        swn_day_sample_t *sample = &learner->samples[i];
        int8_t z[SWN_Z];

        if (!is_free(sample) || !choice.chosen[sample->example.label]) {
            continue;
        }
        swn_hidden_to_z(update->model, update->parameters->adapter, sample->example.hidden, z);
        for (d = 0; d < SWN_Z; d++) {
            sums[sample->example.label][d] = (int16_t)(sums[sample->example.label][d] + z[d]);
        }
        message.num_examples++;
        sample->state = SWN_SAMPLE_PENDING;
    }
    for (i = 0; i < classes; i++) {
        if (choice.chosen[i]) {
            quantise_mean(&message.means[i], sums[i], counts[i], message.dims);
        }
    }
    return swn_frame_prototypes(&message, out, update->payload_max);
}
