/* What training changed, in the codings of swn_change.h; see swn_compose.h. */
#include "swn_compose.h"

#include <string.h>

#include "swn_frame.h"
#include "swn_math.h"

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

static size_t compose_top_k(swn_learner_t *learner, const swn_update_t *update, unsigned levels, uint8_t *out)
{
    swn_change_t *change = &learner->pending;
    swn_top_k_header_t header;
    size_t bits;

    if (learner->labelled == 0 || update->payload_max <= SWN_TOP_K_HEADER) {
        return 0;
    }
    train_locally(learner, update);
    bits = swn_top_k_encode(learner->residual, swn_local_size(update->model), levels, out + SWN_TOP_K_HEADER,
                            (size_t)update->payload_max - SWN_TOP_K_HEADER, change);
    if (bits == 0) {
        return 0;
    }
    header.round = update->round;
    header.model_version = update->parameters->model_version;
    header.magnitude = change->scale_head;
    header.mode = update->mode;
    header.context = update->context;
    header.num_examples = learner->labelled;
    header.rice_k = change->rice_k;
    header.count = change->count;
    return swn_frame_top_k_header(&header, out, update->payload_max) + bits;
}

size_t swn_compose_top_k_sign(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    return compose_top_k(learner, update, SWN_LEVELS_SIGN, out);
}

size_t swn_compose_top_k_int4(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    return compose_top_k(learner, update, SWN_LEVELS_INT4, out);
}

size_t swn_compose_dense_int8(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    const size_t n = swn_local_size(update->model);
    swn_change_t *change = &learner->pending;
    swn_dense_header_t header;
    size_t first;

    if (learner->labelled == 0) {
        return 0;
    }
    train_locally(learner, update);
    if (!swn_dense_quantise(learner->residual, n, update->heads_only, change)) {
        return 0;
    }
    header.round = update->round;
    header.model_version = update->parameters->model_version;
    header.scale_adapter = change->scale_adapter;
    header.scale_head = change->scale_head;
    header.context = update->context;
    header.num_examples = learner->labelled;
    first = change->scale_adapter == 0 ? SWN_HEAD_OFFSET : 0;
    memcpy(out + SWN_DENSE_HEADER, change->steps + first, n - first);
    return swn_frame_dense_header(&header, out, SWN_UPDATE_SIZE_MAX) + n - first;
}
