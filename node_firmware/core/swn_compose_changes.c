/* What training changed, in the codings of swn_change.h; see swn_compose.h. */
#include "swn_compose.h"

#include <string.h>

#include "swn_frame.h"
#include "swn_math.h"

/* residual[first..end) += what local training changes in the node's parameters; leaves the stack before encoding. */
static void train_locally(swn_learner_t *learner, const swn_update_t *update, size_t first, size_t end)
{
    const int16_t *head = update->parameters->heads[update->context];
    const unsigned epochs = update->epochs > 0 ? update->epochs : SWN_TRAIN_EPOCHS;
    const size_t stride = sizeof(swn_day_sample_t);
    swn_train_t train;
    size_t i;

    swn_train_init(&train, update->model, update->parameters->adapter, head, update->seed);
    if (update->heads_only) {
        train.rate_adapter = 0;
    }
    swn_train_balance(&train, &learner->samples[0].example, stride, learner->used);
    for (i = 0; i < epochs; i++) {
        (void)swn_train_epoch(&train, &learner->samples[0].example, stride, learner->used);
    }
    for (i = first; i < end; i++) {
        const int16_t start = i < SWN_HEAD_OFFSET ? update->parameters->adapter[i] : head[i - SWN_HEAD_OFFSET];
        train.parameters[i] = swn_sat16((int32_t)train.parameters[i] - start);
    }
    swn_add_sat16(learner->residual + first, train.parameters + first, learner->residual + first, end - first);
}

static size_t compose_top_k(swn_learner_t *learner, const swn_update_t *update, unsigned levels, uint8_t *out)
{
    swn_change_t *change = &learner->pending;
    const size_t n = swn_local_size(update->model);
    const size_t first = update->heads_only ? SWN_HEAD_OFFSET : 0;
    swn_top_k_header_t header;
    size_t bits;

    if (learner->labelled == 0 || update->payload_max <= SWN_TOP_K_HEADER) {
        return 0;
    }
    train_locally(learner, update, first, n);
    bits = swn_top_k_encode(learner->residual, first, n, levels, out + SWN_TOP_K_HEADER,
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
    header.heads_only = update->heads_only;
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
    train_locally(learner, update, 0, n);
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

/* Which chunks of the local vector a node sends in a round: `count` from `first` on.  Nodes of one group, 32 neighbours
 * by index, are at the same place, and go on by one place each round: where many say the same coordinates, a robust
 * strategy can tell who lies, and after as many rounds as there are places all was said. */
typedef struct swn_place {
    unsigned first;
    unsigned count;
} swn_place_t;

static swn_place_t place_of(const swn_update_t *update)
{
    const unsigned chunks = (swn_local_size(update->model) + SWN_CHUNK - 1u) / SWN_CHUNK;
    const unsigned low = update->heads_only ? SWN_HEAD_OFFSET / SWN_CHUNK : 0;
    const unsigned fit = (unsigned)(update->payload_max - SWN_BLOCKS_HEADER) / (SWN_CHUNK / 2u);
    const unsigned group = update->node_index >> 5;
    swn_place_t place;
    unsigned places;

    place.count = fit < chunks - low ? fit : chunks - low;
    places = (chunks - low + place.count - 1u) / place.count;
    place.first = low + (swn_hash8((uint16_t)group, 0) + update->round) % places * place.count;
    place.first = place.first + place.count > chunks ? chunks - place.count : place.first;
    return place;
}

size_t swn_compose_blocks(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    const size_t n = swn_local_size(update->model);
    swn_change_t *change = &learner->pending;
    swn_blocks_header_t header;
    swn_place_t place;
    size_t first;
    size_t end;
    size_t size;

    if (learner->labelled == 0 || update->payload_max < SWN_BLOCKS_HEADER + SWN_CHUNK / 2) {
        return 0;
    }
    place = place_of(update);
    first = (size_t)place.first * SWN_CHUNK;
    end = first + (size_t)place.count * SWN_CHUNK;
    end = end < n ? end : n;
    train_locally(learner, update, first, end);
    if (!swn_chunks_quantise(learner->residual, first, end, change)) {
        return 0;
    }
    header.round = update->round;
    header.model_version = update->parameters->model_version;
    header.scale_adapter = change->scale_adapter;
    header.scale_head = change->scale_head;
    header.context = update->context;
    header.num_examples = learner->labelled;
    header.first = (uint8_t)place.first;
    size = place.count * SWN_CHUNK / 2u;
    memset(out + SWN_BLOCKS_HEADER, 0, size); /* behind the vector's end nothing */
    swn_put_nibbles(out + SWN_BLOCKS_HEADER, change->steps + first, end - first);
    return swn_frame_blocks_header(&header, out, update->payload_max) + size;
}
