/* Samples and updates; see swn_learn.h. */
#include "swn_learn.h"

#include <string.h>

#include "swn_frame.h"
#include "swn_math.h"

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
    learner->pending_mode = SWN_MODE_NONE;
}

uint8_t swn_learner_acknowledge(swn_learner_t *learner, uint16_t round)
{
    unsigned i;

    if (learner->pending_mode == SWN_MODE_NONE || learner->pending_round != round) {
        return 0;
    }
    if (learner->pending_mode == SWN_MODE_TOP_K_SIGN) {
        swn_top_k_acknowledge(learner->residual, SWN_LOCAL_SIZE_MAX, &learner->pending);
    }
    for (i = 0; i < learner->used; i++) {
        if (learner->samples[i].state == SWN_SAMPLE_PENDING) {
            learner->samples[i].state = SWN_SAMPLE_REPORTED;
        }
    }
    learner->pending_mode = SWN_MODE_NONE;
    return 1;
}

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

static size_t compose_prototypes(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    const unsigned classes = update->model->classes;
    int16_t sums[SWN_CLASSES_MAX][SWN_Z]; /* at most 64 samples: |sum| <= 8192 */
    uint8_t counts[SWN_CLASSES_MAX];
    swn_prototypes_t message;
    swn_choice_t choice;
    size_t size;
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
    size = swn_frame_prototypes(&message, out, update->payload_max);
    if (size == 0) {
        swn_learner_drop(learner);
    }
    return size;
}

/* residual += what local training changes in the node's parameters; leaves the stack before encoding. */
static void train_locally(swn_learner_t *learner, const swn_update_t *update)
{
    const int16_t *head = update->parameters->heads[update->context];
    const unsigned epochs = update->epochs > 0 ? update->epochs : SWN_TRAIN_EPOCHS;
    const size_t stride = sizeof(swn_day_sample_t);
    const unsigned size = swn_local_size(update->model);
    swn_train_t train;
    unsigned i;

    swn_train_init(&train, update->model, update->parameters->adapter, head, update->seed);
    if (update->heads_only) {
        train.rate_adapter = 0;
    }
    swn_train_balance(&train, &learner->samples[0].example, stride, learner->used);
    for (i = 0; i < epochs; i++) {
        (void)swn_train_epoch(&train, &learner->samples[0].example, stride, learner->used);
    }
    for (i = 0; i < size; i++) {
        const int16_t start = i < SWN_HEAD_OFFSET ? update->parameters->adapter[i] : head[i - SWN_HEAD_OFFSET];
        train.parameters[i] = swn_sat16((int32_t)train.parameters[i] - start);
    }
    swn_add_sat16(learner->residual, train.parameters, learner->residual, size);
}

static size_t compose_top_k(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    swn_top_k_header_t header;
    size_t bits;

    if (learner->labelled == 0 || update->payload_max <= SWN_TOP_K_HEADER) {
        return 0;
    }
    train_locally(learner, update);
    bits = swn_top_k_encode(learner->residual, swn_local_size(update->model), out + SWN_TOP_K_HEADER,
                            (size_t)update->payload_max - SWN_TOP_K_HEADER, &learner->pending);
    if (bits == 0) {
        return 0;
    }
    header.round = update->round;
    header.model_version = update->parameters->model_version;
    header.magnitude = learner->pending.magnitude;
    header.context = update->context;
    header.num_examples = learner->labelled;
    header.rice_k = learner->pending.rice_k;
    header.count = learner->pending.count;
    return swn_frame_top_k_header(&header, out, update->payload_max) + bits;
}

size_t swn_learner_compose(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    size_t size = 0;

    swn_learner_drop(learner);
    if (update->mode == SWN_MODE_PROTOTYPES) {
        size = compose_prototypes(learner, update, out);
    } else if (update->mode == SWN_MODE_TOP_K_SIGN) {
        size = compose_top_k(learner, update, out);
    }
    if (size > 0) {
        learner->pending_round = update->round;
        learner->pending_mode = update->mode;
    }
    return size;
}
