/* Bytes to values and back; see swn_frame.h. */
#include "swn_frame.h"

#include <string.h>

#include "swn_mask.h"
#include "swn_math.h"
#include "swn_noise.h"

enum {
    ROUND_SIZE = 19,
    SUMS_PLAN_SIZE = 13,
    REPAIR_SIZE = 7,
    OFFER_SIZE = 15,
    ACK_HEADER = 5,
    BLOCK_HEADER = 14,
    QUERY_HEADER = 6,
    SCHEDULE_SIZE = 9,
    SHARE_SIZE = 6,
    LABEL_SIZE = 5,
    RICE_K_MAX = 9,
    HEADS_ONLY = 0x80 /* in the byte of the Rice parameter */
};

static void put16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)(value & 0xFFu);
    out[1] = (uint8_t)(value >> 8);
}

static uint8_t nibbles(int8_t low, int8_t high)
{
    return (uint8_t)(((unsigned)low & 15u) | ((unsigned)high & 15u) << 4);
}

void swn_put_nibbles(uint8_t *out, const int8_t *values, size_t n)
{
    size_t i;

    for (i = 0; i < n; i += 2) {
        out[i / 2] = nibbles(values[i], i + 1 < n ? values[i + 1] : (int8_t)0);
    }
}

static int is_mode(uint8_t mode)
{
    return mode > SWN_MODE_NONE && mode <= SWN_MODE_LAST && mode != SWN_TYPE_FRAGMENT;
}

/* The head of all learning frames: type, round, model version, context, number of examples. */
static void put_learning(uint8_t *out, uint8_t type, uint16_t round, uint16_t version, uint8_t context, uint8_t num)
{
    out[0] = type;
    put16(out + 1, round);
    put16(out + 3, version);
    out[5] = context;
    out[6] = num;
}

size_t swn_frame_prototypes(const swn_prototypes_t *message, uint8_t *out, size_t room)
{
    size_t size = SWN_PROTOTYPES_HEADER;
    unsigned mask = 0;
    unsigned label;

    if (message->dims < 2 || message->dims > SWN_Z || message->dims % 2 != 0 || message->context >= SWN_CONTEXT_MAX ||
        message->num_examples == 0) {
        return 0;
    }
    for (label = 0; label < SWN_CLASSES_MAX; label++) {
        if (message->means[label].count > 0) {
            mask |= 1u << label;
            size += 2u + message->dims / 2u;
        }
    }
    size += mask >> SWN_MASK_CLASSES != 0;
    if (mask == 0 || size > room) {
        return 0;
    }
    put_learning(out, SWN_MODE_PROTOTYPES, message->round, message->model_version, message->context, message->num_examples);
    out[7] = message->dims;
    out[8] = (uint8_t)(mask & 0x7Fu);
    out += SWN_PROTOTYPES_HEADER;
    if (mask >> SWN_MASK_CLASSES != 0) {
        out[-1] |= 0x80u;
        *out++ = (uint8_t)(mask >> SWN_MASK_CLASSES);
    }
    for (label = 0; label < SWN_CLASSES_MAX; label++) {
        const swn_class_mean_t *mean = &message->means[label];
        if (mean->count > 0) {
            *out++ = mean->count;
            *out++ = mean->scale;
            swn_put_nibbles(out, mean->q, message->dims);
            out += message->dims / 2u;
        }
    }
    return size;
}

size_t swn_frame_top_k_header(const swn_top_k_header_t *message, uint8_t *out, size_t room)
{
    if (room < SWN_TOP_K_HEADER || message->context >= SWN_CONTEXT_MAX || message->num_examples == 0 ||
        message->rice_k > RICE_K_MAX || message->count == 0 ||
        (message->mode != SWN_MODE_TOP_K_SIGN && message->mode != SWN_MODE_TOP_K_INT4)) {
        return 0;
    }
    put_learning(out, message->mode, message->round, message->model_version, message->context, message->num_examples);
    put16(out + 7, message->magnitude);
    out[9] = (uint8_t)(message->rice_k | (message->heads_only ? HEADS_ONLY : 0u));
    out[SWN_TOP_K_COUNT_AT] = message->count;
    return SWN_TOP_K_HEADER;
}

size_t swn_frame_dense_header(const swn_dense_header_t *message, uint8_t *out, size_t room)
{
    if (room < SWN_DENSE_HEADER || message->context >= SWN_CONTEXT_MAX || message->num_examples == 0 ||
        (message->scale_adapter == 0 && message->scale_head == 0)) {
        return 0;
    }
    put_learning(out, SWN_MODE_DENSE_INT8, message->round, message->model_version, message->context,
                 message->num_examples);
    put16(out + 7, message->scale_adapter);
    put16(out + 9, message->scale_head);
    return SWN_DENSE_HEADER;
}

size_t swn_frame_features_header(const swn_features_header_t *message, uint8_t *out, size_t room)
{
    if (room < SWN_FEATURES_HEADER || message->context >= SWN_CONTEXT_MAX || message->num_examples == 0) {
        return 0;
    }
    put_learning(out, SWN_MODE_FEATURES, message->round, message->model_version, message->context,
                 message->num_examples);
    out[7] = message->scale;
    return SWN_FEATURES_HEADER;
}

size_t swn_frame_blocks_header(const swn_blocks_header_t *message, uint8_t *out, size_t room)
{
    if (room < SWN_BLOCKS_HEADER || message->context >= SWN_CONTEXT_MAX || message->num_examples == 0 ||
        (message->scale_adapter == 0 && message->scale_head == 0)) {
        return 0;
    }
    put_learning(out, SWN_MODE_BLOCKS, message->round, message->model_version, message->context, message->num_examples);
    put16(out + 7, message->scale_adapter);
    put16(out + 9, message->scale_head);
    out[11] = message->first;
    return SWN_BLOCKS_HEADER;
}

size_t swn_frame_masked_sums(const swn_masked_header_t *message, const uint16_t *values, size_t count, uint8_t *out,
                             size_t room)
{
    const size_t size = SWN_MASKED_HEADER + (count * message->bits + 7u) / 8u;
    uint32_t waiting = 0;
    unsigned held = 0;
    size_t i;

    if (size > room || message->context >= SWN_CONTEXT_MAX || message->bits < SWN_SUMS_BITS_MIN ||
        message->bits > SWN_SUMS_BITS_MAX || message->position >= message->size) {
        return 0;
    }
    out[0] = SWN_MODE_MASKED_SUMS;
    put16(out + 1, message->round);
    put16(out + 3, message->model_version);
    out[5] = message->context;
    put16(out + 6, message->group);
    out[8] = message->position;
    out[9] = message->size;
    out[10] = message->classes;
    out[11] = message->bits;
    out += SWN_MASKED_HEADER;
    for (i = 0; i < count; i++) {
        waiting |= ((uint32_t)values[i] & ((1u << message->bits) - 1u)) << held;
        for (held += message->bits; held >= 8; held -= 8) {
            *out++ = (uint8_t)(waiting & 0xFFu);
            waiting >>= 8;
        }
    }
    if (held > 0) {
        *out = (uint8_t)(waiting & 0xFFu);
    }
    return size;
}

size_t swn_frame_seeds(const swn_seeds_t *message, uint8_t *out, size_t room)
{
    size_t size = 0;
    unsigned peer;

    for (peer = 0; peer < SWN_GROUP_MAX; peer++) {
        size += ((unsigned)message->missing >> peer & 1u) * (size_t)SWN_SEED_SIZE;
    }
    if (size == 0 || SWN_SEEDS_HEADER + size > room || message->position >= SWN_GROUP_MAX) {
        return 0;
    }
    out[0] = SWN_TYPE_SEEDS;
    put16(out + 1, message->round);
    put16(out + 3, message->group);
    out[5] = message->position;
    put16(out + 6, message->missing);
    memcpy(out + SWN_SEEDS_HEADER, message->seeds, size);
    return SWN_SEEDS_HEADER + size;
}

size_t swn_frame_fragment(const swn_fragment_t *message, uint8_t *out, size_t room)
{
    if (message->slice_size == 0 || room < SWN_FRAGMENT_HEADER + message->slice_size || message->count < 2 ||
        message->count > SWN_FRAGMENTS_MAX || message->index >= message->count || !is_mode(message->mode)) {
        return 0;
    }
    out[0] = SWN_TYPE_FRAGMENT;
    put16(out + 1, message->round);
    out[3] = message->mode;
    out[4] = message->index;
    out[5] = message->count;
    memcpy(out + SWN_FRAGMENT_HEADER, message->slice, message->slice_size);
    return SWN_FRAGMENT_HEADER + message->slice_size;
}

size_t swn_frame_answer(const swn_answer_t *message, uint8_t *out, size_t room)
{
    const unsigned classes = message->classes;
    unsigned sum = 0;
    unsigned i;

    for (i = 0; i < classes && i < SWN_CLASSES_MAX; i++) {
        sum += message->probabilities[i];
    }
    if (classes < 2 || classes > SWN_CLASSES_MAX || room < SWN_ANSWER_HEADER + classes ||
        message->context >= SWN_CONTEXT_MAX || sum != 255) {
        return 0;
    }
    out[0] = 1;
    put16(out + 1, message->query_id);
    out[3] = message->context;
    memcpy(out + 4, message->probabilities, classes);
    put16(out + 4 + classes, message->head_version);
    out[6 + classes] = message->age;
    out[7 + classes] = message->flags;
    return SWN_ANSWER_HEADER + classes;
}

size_t swn_frame_status(const swn_report_t *message, uint8_t *out, size_t room)
{
    const size_t size = message->serves == 0 ? SWN_STATUS_SIZE : SWN_STATUS_SIZE + 1;

    if (room < size || (message->humidity_half > 200 && message->humidity_half != 255)) {
        return 0;
    }
    out[0] = 1;
    out[1] = SWN_PROTOCOL;
    put16(out + 2, message->model_version);
    put16(out + 4, message->model_id);
    out[6] = message->battery;
    out[7] = message->labelled;
    out[8] = message->flags;
    put16(out + 9, (uint16_t)message->temperature_centi);
    out[11] = message->humidity_half;
    put16(out + 12, message->rain_tenth);
    out[14] = message->risk;
    out[15] = message->multicast_received;
    if (message->serves != 0) {
        out[SWN_STATUS_SIZE] = message->serves;
    }
    return size;
}

static int read_sums_plan(const uint8_t *data, swn_sums_plan_t *out)
{
    out->samples_max = data[0];
    out->bits = data[1];
    out->shift_linear = data[2];
    out->shift_square = data[3];
    out->clip = swn_get16(data + 4);
    out->sigma_count = swn_get16(data + 6);
    out->sigma_linear = swn_get16(data + 8);
    out->sigma_square = swn_get16(data + 10);
    out->releases_max = data[12];
    return out->samples_max > 0 && out->bits >= SWN_SUMS_BITS_MIN && out->bits <= SWN_SUMS_BITS_MAX &&
           out->shift_linear <= SWN_SHIFT_MAX && out->shift_square <= SWN_SHIFT_MAX &&
           out->sigma_count <= SWN_SIGMA_MAX && out->sigma_linear <= SWN_SIGMA_MAX && out->sigma_square <= SWN_SIGMA_MAX;
}

static swn_downlink_kind_t read_round(const uint8_t *data, size_t size, swn_round_t *out)
{
    const int masked = size == ROUND_SIZE + SUMS_PLAN_SIZE;

    if (size != ROUND_SIZE && !masked) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->round = swn_get16(data + 1);
    out->model_version = swn_get16(data + 3);
    out->mode = (uint8_t)(data[5] & ~SWN_MODE_NEW_CONTEXTS);
    if ((out->mode != SWN_MODE_NONE && !is_mode(out->mode)) || masked != (out->mode == SWN_MODE_MASKED_SUMS)) {
        return SWN_DOWNLINK_MALFORMED;
    }
    memset(&out->sums, 0, sizeof out->sums);
    if (masked && !read_sums_plan(data + ROUND_SIZE, &out->sums)) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->new_contexts = (uint8_t)((data[5] & SWN_MODE_NEW_CONTEXTS) != 0);
    out->cohort = data[6];
    out->spread_s = swn_get16(data + 7);
    out->close_in_s = swn_get32(data + 9);
    out->next_window_s = swn_get32(data + 13);
    out->window_s = swn_get16(data + 17);
    return SWN_DOWNLINK_ROUND;
}

static swn_downlink_kind_t read_ack(const uint8_t *data, size_t size, swn_ack_t *out)
{
    if (size <= ACK_HEADER) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->round = swn_get16(data + 1);
    out->first_index = swn_get16(data + 3);
    out->bitmap = data + ACK_HEADER;
    out->bitmap_size = size - ACK_HEADER;
    return SWN_DOWNLINK_ACK;
}

static swn_downlink_kind_t read_repair(const uint8_t *data, size_t size, swn_repair_t *out)
{
    if (size != REPAIR_SIZE) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->round = swn_get16(data + 1);
    out->group = swn_get16(data + 3);
    out->received = swn_get16(data + 5);
    return SWN_DOWNLINK_REPAIR;
}

/* What exceeds the receiver is its own affair; what can be nobody's session is refused. */
static swn_downlink_kind_t read_offer(const uint8_t *data, size_t size, swn_offer_t *out)
{
    if (size != OFFER_SIZE) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->index = data[1] & 3u;
    out->ack_delay = data[1] >> 2 & 7u;
    out->version = (uint8_t)(1u + (data[1] >> 5 & 1u));
    out->count = swn_get16(data + 2);
    out->piece_size = data[4];
    out->padding = data[5];
    memcpy(out->descriptor, data + 6, sizeof out->descriptor);
    out->start_in_s = swn_get16(data + 10);
    out->length_s = swn_get16(data + 12);
    return out->count > 0 && out->padding < out->piece_size && out->length_s > 0 ? SWN_DOWNLINK_OFFER
                                                                                 : SWN_DOWNLINK_MALFORMED;
}

uint16_t swn_piece_size(uint16_t length, uint8_t count)
{
    return (uint16_t)(((uint32_t)length + count - 1u) / count);
}

static swn_downlink_kind_t read_block(const uint8_t *data, size_t size, swn_piece_t *out)
{
    uint32_t piece;
    uint32_t before_last;

    if (size <= BLOCK_HEADER) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->version = swn_get16(data + 1);
    out->base_version = swn_get16(data + 3);
    out->kind = data[5];
    out->length = swn_get16(data + 6);
    out->crc32 = swn_get32(data + 8);
    out->index = data[12];
    out->count = data[13];
    out->piece = data + BLOCK_HEADER;
    if (out->kind > SWN_BLOCK_FULL || out->length == 0 || out->length > SWN_BLOCK_SIZE_MAX ||
        out->index >= out->count) {
        return SWN_DOWNLINK_MALFORMED;
    }
    piece = swn_piece_size(out->length, out->count);
    before_last = piece * (uint32_t)(out->count - 1);
    if (before_last >= out->length) {
        return SWN_DOWNLINK_MALFORMED; /* the last piece would be empty */
    }
    out->piece_size = (uint16_t)(out->index + 1 < out->count ? piece : out->length - before_last);
    return size - BLOCK_HEADER == out->piece_size ? SWN_DOWNLINK_BLOCK : SWN_DOWNLINK_MALFORMED;
}

static swn_downlink_kind_t read_query(const uint8_t *data, size_t size, swn_query_t *out)
{
    if (size < QUERY_HEADER) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->query_id = swn_get16(data + 1);
    out->flags = data[3];
    out->context = data[4];
    out->reply_in_s = data[5];
    out->features_size = size - QUERY_HEADER;
    out->features = out->features_size > 0 ? data + QUERY_HEADER : NULL;
    if ((out->features_size > 0) != ((out->flags & SWN_QUERY_FEATURES) != 0) ||
        (out->context >= SWN_CONTEXT_MAX && out->context != SWN_CONTEXT_OWN)) {
        return SWN_DOWNLINK_MALFORMED;
    }
    return SWN_DOWNLINK_QUERY;
}

static swn_downlink_kind_t read_schedule(const uint8_t *data, size_t size, swn_schedule_t *out)
{
    if (size != SCHEDULE_SIZE && size != SCHEDULE_SIZE + 2) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->next_window_s = swn_get32(data + 1);
    out->window_s = swn_get16(data + 5);
    out->status_period_min = swn_get16(data + 7);
    out->round = (uint16_t)(size > SCHEDULE_SIZE ? swn_get16(data + SCHEDULE_SIZE) : 0);
    return SWN_DOWNLINK_SCHEDULE;
}

static swn_downlink_kind_t read_asking(const uint8_t *data, size_t size, swn_downlink_t *out)
{
    switch (data[0]) {
    case 1:
        return read_query(data, size, &out->query);
    case 2:
        return swn_read_reply(data, size, &out->reply) ? SWN_DOWNLINK_REPLY : SWN_DOWNLINK_MALFORMED;
    case 3:
        return swn_read_expert_query(data, size, &out->expert_query) ? SWN_DOWNLINK_EXPERT_QUERY
                                                                     : SWN_DOWNLINK_MALFORMED;
    default:
        return SWN_DOWNLINK_MALFORMED;
    }
}

static swn_downlink_kind_t read_share(const uint8_t *data, size_t size, swn_share_t *out)
{
    if (size != SHARE_SIZE || data[1] == 0 || data[1] > 15 || data[2] > 7 || data[3] > 7) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->id = data[1];
    out->send = data[2];
    out->use = data[3];
    out->offset_half = (int8_t)(data[4] < 128 ? data[4] : data[4] - 256);
    out->days = data[5];
    return SWN_DOWNLINK_SHARE;
}

static swn_downlink_kind_t read_label(const uint8_t *data, size_t size, swn_told_t *out)
{
    if (size != LABEL_SIZE || data[1] >= SWN_CLASSES_MAX || data[2] > 1) {
        return SWN_DOWNLINK_MALFORMED;
    }
    out->label = data[1];
    out->by_id = data[2];
    out->value = swn_get16(data + 3);
    return SWN_DOWNLINK_LABEL;
}

static swn_downlink_kind_t read_status_port(const uint8_t *data, size_t size, swn_downlink_t *out)
{
    switch (data[0]) {
    case 1:
        return read_schedule(data, size, &out->schedule);
    case 2:
        return swn_readings_read(data, size, &out->readings) ? SWN_DOWNLINK_READINGS : SWN_DOWNLINK_MALFORMED;
    case 3:
        return read_share(data, size, &out->share);
    case 4:
        return read_label(data, size, &out->told);
    default:
        return SWN_DOWNLINK_MALFORMED;
    }
}

swn_downlink_kind_t swn_frame_read(uint8_t f_port, const uint8_t *data, size_t size, swn_downlink_t *out)
{
    if (size == 0 || size > SWN_PAYLOAD_MAX) {
        return SWN_DOWNLINK_MALFORMED;
    }
    if (f_port == SWN_PORT_LEARNING) {
        switch (data[0]) {
        case 1:
            return read_round(data, size, &out->round);
        case 2:
            return read_ack(data, size, &out->ack);
        case 3:
            return read_block(data, size, &out->block);
        case 4:
            return read_repair(data, size, &out->repair);
        case 5:
            return read_offer(data, size, &out->offer);
        default:
            return SWN_DOWNLINK_MALFORMED;
        }
    }
    if (f_port == SWN_PORT_ASKING) {
        return read_asking(data, size, out);
    }
    if (f_port == SWN_PORT_STATUS) {
        return read_status_port(data, size, out);
    }
    return SWN_DOWNLINK_MALFORMED;
}

uint8_t swn_ack_has(const swn_ack_t *ack, uint16_t node_index)
{
    const uint32_t bit = (uint32_t)node_index - ack->first_index;

    if (node_index < ack->first_index || bit / 8u >= ack->bitmap_size) {
        return 0;
    }
    return (uint8_t)(ack->bitmap[bit / 8u] >> (bit % 8u) & 1u);
}

uint8_t swn_hash8(uint16_t node_index, uint16_t round)
{
    uint32_t mixed = (uint32_t)node_index * 2654435761u + (uint32_t)round * 40503u + 0x9E3779B9u;

    mixed ^= mixed >> 15;
    mixed *= 2246822519u;
    mixed ^= mixed >> 13;
    return (uint8_t)(mixed >> 24);
}
