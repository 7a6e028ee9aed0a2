/* The application frames against tests/vectors/app_frames.json (app_frames.h is made from it), and hostile bytes. */
#include <string.h>

#include "app_frames.h"
#include "expect.h"
#include "swn_change.h"
#include "swn_train.h"

#define COUNT(vectors) (sizeof(vectors) / sizeof(vectors)[0])

/* Encoded bytes equal the vector's, and are refused when one byte of room is missing. */
static void expect_bytes(const swn_vector_bytes_t *raw, const uint8_t *got, size_t size)
{
    if (size != raw->size || memcmp(got, raw->bytes, raw->size) != 0) {
        printf("vector %s differs\n", raw->name);
        EXPECT(0);
    }
}

static void test_uplinks(void)
{
    uint8_t out[SWN_PAYLOAD_MAX];
    size_t i;

    for (i = 0; i < COUNT(VECTORS_PROTOTYPES); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_PROTOTYPES[i].raw;
        expect_bytes(raw, out, swn_frame_prototypes(&VECTORS_PROTOTYPES[i].value, out, raw->size));
        EXPECT_EQ(swn_frame_prototypes(&VECTORS_PROTOTYPES[i].value, out, raw->size - 1), 0);
    }
    for (i = 0; i < COUNT(VECTORS_ANSWER); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_ANSWER[i].raw;
        expect_bytes(raw, out, swn_frame_answer(&VECTORS_ANSWER[i].value, out, raw->size));
        EXPECT_EQ(swn_frame_answer(&VECTORS_ANSWER[i].value, out, raw->size - 1), 0);
    }
    for (i = 0; i < COUNT(VECTORS_STATUS); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_STATUS[i].raw;
        expect_bytes(raw, out, swn_frame_status(&VECTORS_STATUS[i].value, out, raw->size));
        EXPECT_EQ(swn_frame_status(&VECTORS_STATUS[i].value, out, raw->size - 1), 0);
    }
}

/* A change that is non-zero exactly at the vector's coordinates must give the vector's frame; vectors whose
 * Rice parameter is not the shortest, or whose scale is not the smallest, exercise the gateway's decoder only. */
static unsigned compare_top_k(const swn_vector_bytes_t *raw, const swn_top_k_vector_t *value, unsigned levels)
{
    swn_top_k_header_t header = value->header;
    int16_t delta[SWN_LOCAL_SIZE_MAX] = {0};
    uint8_t out[256];
    swn_change_t chosen;
    size_t bits;
    unsigned k;

    for (k = 0; k < header.count && header.magnitude <= INT16_MAX / 8; k++) {
        delta[value->indices[k]] = (int16_t)(value->steps[k] * header.magnitude);
    }
    bits = swn_top_k_encode(delta, header.heads_only ? SWN_HEAD_OFFSET : 0, SWN_LOCAL_SIZE_MAX, levels,
                            out + SWN_TOP_K_HEADER, 240, &chosen);
    if (bits == 0 || chosen.rice_k != header.rice_k || chosen.count != header.count ||
        (levels > 1 && chosen.scale_head != header.magnitude)) {
        return 0;
    }
    header.magnitude = chosen.scale_head;
    expect_bytes(raw, out, swn_frame_top_k_header(&header, out, sizeof out) + bits);
    return 1;
}

static void test_top_k(void)
{
    unsigned signs = 0;
    unsigned int4 = 0;
    size_t i;

    for (i = 0; i < COUNT(VECTORS_TOP_K_SIGN); i++) {
        signs += compare_top_k(&VECTORS_TOP_K_SIGN[i].raw, &VECTORS_TOP_K_SIGN[i].value, SWN_LEVELS_SIGN);
    }
    for (i = 0; i < COUNT(VECTORS_TOP_K_INT4); i++) {
        int4 += compare_top_k(&VECTORS_TOP_K_INT4[i].raw, &VECTORS_TOP_K_INT4[i].value, SWN_LEVELS_INT4);
    }
    printf("test_frame: %u of %u top-k vectors compared, %u of %u with levels\n", signs,
           (unsigned)COUNT(VECTORS_TOP_K_SIGN), int4, (unsigned)COUNT(VECTORS_TOP_K_INT4));
    EXPECT(signs >= 3 && int4 >= 1);
}

static void test_dense_and_fragments(void)
{
    uint8_t out[1024];
    size_t i;

    for (i = 0; i < COUNT(VECTORS_DENSE_INT8); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_DENSE_INT8[i].raw;
        EXPECT_EQ(swn_frame_dense_header(&VECTORS_DENSE_INT8[i].value, out, sizeof out), SWN_DENSE_HEADER);
        EXPECT_EQ(memcmp(out, raw->bytes, SWN_DENSE_HEADER), 0);
        EXPECT(raw->size <= SWN_UPDATE_SIZE_MAX);
    }
    for (i = 0; i < COUNT(VECTORS_FEATURES); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_FEATURES[i].raw;
        EXPECT_EQ(swn_frame_features_header(&VECTORS_FEATURES[i].value, out, sizeof out), SWN_FEATURES_HEADER);
        EXPECT_EQ(memcmp(out, raw->bytes, SWN_FEATURES_HEADER), 0);
    }
    for (i = 0; i < COUNT(VECTORS_BLOCKS); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_BLOCKS[i].raw;
        EXPECT_EQ(swn_frame_blocks_header(&VECTORS_BLOCKS[i].value, out, sizeof out), SWN_BLOCKS_HEADER);
        EXPECT_EQ(memcmp(out, raw->bytes, SWN_BLOCKS_HEADER), 0);
    }
    for (i = 0; i < COUNT(VECTORS_FRAGMENT); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_FRAGMENT[i].raw;
        swn_fragment_t value = VECTORS_FRAGMENT[i].value;
        value.slice = raw->bytes + SWN_FRAGMENT_HEADER;
        expect_bytes(raw, out, swn_frame_fragment(&value, out, raw->size));
        EXPECT_EQ(swn_frame_fragment(&value, out, raw->size - 1), 0);
        value.mode = SWN_TYPE_FRAGMENT;
        EXPECT_EQ(swn_frame_fragment(&value, out, raw->size), 0);
    }
}

static void test_masked_sums_and_seeds(void)
{
    uint8_t out[SWN_UPDATE_SIZE_MAX];
    size_t i;

    for (i = 0; i < COUNT(VECTORS_MASKED_SUMS); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_MASKED_SUMS[i].raw;
        const swn_masked_vector_t *value = &VECTORS_MASKED_SUMS[i].value;
        expect_bytes(raw, out, swn_frame_masked_sums(&value->header, value->values, value->count, out, raw->size));
        EXPECT_EQ(swn_frame_masked_sums(&value->header, value->values, value->count, out, raw->size - 1), 0);
    }
    for (i = 0; i < COUNT(VECTORS_SEEDS); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_SEEDS[i].raw;
        swn_seeds_t value = VECTORS_SEEDS[i].value;
        value.seeds = raw->bytes + SWN_SEEDS_HEADER;
        expect_bytes(raw, out, swn_frame_seeds(&value, out, raw->size));
        EXPECT_EQ(swn_frame_seeds(&value, out, raw->size - 1), 0);
        value.missing = 0;
        EXPECT_EQ(swn_frame_seeds(&value, out, raw->size), 0);
    }
}

static swn_downlink_kind_t read_vector(const swn_vector_bytes_t *raw, swn_downlink_t *out)
{
    /* Exactly the bytes, on the heap: the address sanitizer sees one too many. */
    uint8_t *bytes = malloc(raw->size > 0 ? raw->size : 1);
    swn_downlink_kind_t kind;

    memcpy(bytes, raw->bytes, raw->size);
    kind = swn_frame_read(raw->f_port, bytes, raw->size, out);
    if (kind == SWN_DOWNLINK_BLOCK) {
        EXPECT_EQ(memcmp(out->block.piece, raw->bytes + raw->size - out->block.piece_size, out->block.piece_size), 0);
    }
    if (kind == SWN_DOWNLINK_ACK) {
        EXPECT_EQ(out->ack.bitmap_size, raw->size - 5);
        EXPECT_EQ(memcmp(out->ack.bitmap, raw->bytes + 5, out->ack.bitmap_size), 0);
    }
    if (kind == SWN_DOWNLINK_QUERY && out->query.features != NULL) {
        EXPECT_EQ(raw->size, 6 + out->query.features_size);
        EXPECT_EQ(memcmp(out->query.features, raw->bytes + 6, out->query.features_size), 0);
    }
    free(bytes);
    return kind;
}

static void test_rounds_and_acks(void)
{
    swn_downlink_t got;
    size_t i;

    for (i = 0; i < COUNT(VECTORS_ROUND_ANNOUNCE); i++) {
        const swn_round_t *wanted = &VECTORS_ROUND_ANNOUNCE[i].value;
        EXPECT_EQ(read_vector(&VECTORS_ROUND_ANNOUNCE[i].raw, &got), SWN_DOWNLINK_ROUND);
        EXPECT_EQ(got.round.round, wanted->round);
        EXPECT_EQ(got.round.model_version, wanted->model_version);
        EXPECT_EQ(got.round.mode, wanted->mode);
        EXPECT_EQ(got.round.new_contexts, wanted->new_contexts);
        EXPECT_EQ(got.round.cohort, wanted->cohort);
        EXPECT_EQ(got.round.spread_s, wanted->spread_s);
        EXPECT_EQ(got.round.close_in_s, wanted->close_in_s);
        EXPECT_EQ(got.round.next_window_s, wanted->next_window_s);
        EXPECT_EQ(got.round.window_s, wanted->window_s);
        EXPECT_EQ(got.round.sums.samples_max, wanted->sums.samples_max);
        EXPECT_EQ(got.round.sums.bits, wanted->sums.bits);
        EXPECT_EQ(got.round.sums.shift_linear, wanted->sums.shift_linear);
        EXPECT_EQ(got.round.sums.shift_square, wanted->sums.shift_square);
        EXPECT_EQ(got.round.sums.clip, wanted->sums.clip);
        EXPECT_EQ(got.round.sums.sigma_count, wanted->sums.sigma_count);
        EXPECT_EQ(got.round.sums.sigma_linear, wanted->sums.sigma_linear);
        EXPECT_EQ(got.round.sums.sigma_square, wanted->sums.sigma_square);
        EXPECT_EQ(got.round.sums.releases_max, wanted->sums.releases_max);
    }
    for (i = 0; i < COUNT(VECTORS_REPAIR); i++) {
        EXPECT_EQ(read_vector(&VECTORS_REPAIR[i].raw, &got), SWN_DOWNLINK_REPAIR);
        EXPECT_EQ(got.repair.round, VECTORS_REPAIR[i].value.round);
        EXPECT_EQ(got.repair.group, VECTORS_REPAIR[i].value.group);
        EXPECT_EQ(got.repair.received, VECTORS_REPAIR[i].value.received);
    }
    for (i = 0; i < COUNT(VECTORS_OFFER); i++) {
        const swn_offer_t *wanted = &VECTORS_OFFER[i].value;
        EXPECT_EQ(read_vector(&VECTORS_OFFER[i].raw, &got), SWN_DOWNLINK_OFFER);
        EXPECT_EQ(got.offer.index, wanted->index);
        EXPECT_EQ(got.offer.ack_delay, wanted->ack_delay);
        EXPECT_EQ(got.offer.version, wanted->version);
        EXPECT_EQ(got.offer.count, wanted->count);
        EXPECT_EQ(got.offer.piece_size, wanted->piece_size);
        EXPECT_EQ(got.offer.padding, wanted->padding);
        EXPECT_EQ(got.offer.start_in_s, wanted->start_in_s);
        EXPECT_EQ(got.offer.length_s, wanted->length_s);
        EXPECT_EQ(memcmp(got.offer.descriptor, wanted->descriptor, sizeof got.offer.descriptor), 0);
    }
    for (i = 0; i < COUNT(VECTORS_ROUND_ACK); i++) {
        EXPECT_EQ(read_vector(&VECTORS_ROUND_ACK[i].raw, &got), SWN_DOWNLINK_ACK);
        EXPECT_EQ(got.ack.round, VECTORS_ROUND_ACK[i].value.round);
        EXPECT_EQ(got.ack.first_index, VECTORS_ROUND_ACK[i].value.first_index);
    }
}

static void test_blocks_queries_and_schedules(void)
{
    swn_downlink_t got;
    size_t i;

    for (i = 0; i < COUNT(VECTORS_BLOCK_PIECE); i++) {
        const swn_piece_t *wanted = &VECTORS_BLOCK_PIECE[i].value;
        EXPECT_EQ(read_vector(&VECTORS_BLOCK_PIECE[i].raw, &got), SWN_DOWNLINK_BLOCK);
        EXPECT_EQ(got.block.version, wanted->version);
        EXPECT_EQ(got.block.base_version, wanted->base_version);
        EXPECT_EQ(got.block.kind, wanted->kind);
        EXPECT_EQ(got.block.length, wanted->length);
        EXPECT_EQ(got.block.crc32, wanted->crc32);
        EXPECT_EQ(got.block.index, wanted->index);
        EXPECT_EQ(got.block.count, wanted->count);
        EXPECT_EQ(got.block.piece_size, wanted->piece_size);
    }
    for (i = 0; i < COUNT(VECTORS_QUERY); i++) {
        const swn_query_t *wanted = &VECTORS_QUERY[i].value;
        EXPECT_EQ(read_vector(&VECTORS_QUERY[i].raw, &got), SWN_DOWNLINK_QUERY);
        EXPECT_EQ(got.query.query_id, wanted->query_id);
        EXPECT_EQ(got.query.flags, wanted->flags);
        EXPECT_EQ(got.query.context, wanted->context);
        EXPECT_EQ(got.query.reply_in_s, wanted->reply_in_s);
        EXPECT_EQ(got.query.features != NULL, VECTORS_QUERY[i].raw.size > 6);
    }
    for (i = 0; i < COUNT(VECTORS_SCHEDULE); i++) {
        const swn_schedule_t *wanted = &VECTORS_SCHEDULE[i].value;
        EXPECT_EQ(read_vector(&VECTORS_SCHEDULE[i].raw, &got), SWN_DOWNLINK_SCHEDULE);
        EXPECT_EQ(got.schedule.next_window_s, wanted->next_window_s);
        EXPECT_EQ(got.schedule.window_s, wanted->window_s);
        EXPECT_EQ(got.schedule.status_period_min, wanted->status_period_min);
        EXPECT_EQ(got.schedule.round, wanted->round);
    }
    for (i = 0; i < COUNT(VECTORS_LABEL); i++) {
        const swn_told_t *wanted = &VECTORS_LABEL[i].value;
        EXPECT_EQ(read_vector(&VECTORS_LABEL[i].raw, &got), SWN_DOWNLINK_LABEL);
        EXPECT_EQ(got.told.label, wanted->label);
        EXPECT_EQ(got.told.by_id, wanted->by_id);
        EXPECT_EQ(got.told.value, wanted->value);
    }
}

/* Days of readings travel both ways: the same bytes are written and read. */
static void test_readings_and_shares(void)
{
    swn_downlink_t got;
    size_t i;

    for (i = 0; i < COUNT(VECTORS_READINGS); i++) {
        const swn_vector_bytes_t *raw = &VECTORS_READINGS[i].raw;
        const swn_readings_vector_t *wanted = &VECTORS_READINGS[i].value;
        uint8_t out[SWN_PAYLOAD_MAX];

        EXPECT_EQ(read_vector(raw, &got), SWN_DOWNLINK_READINGS);
        EXPECT_EQ(memcmp(&got.readings, &wanted->readings, sizeof got.readings), 0);
        expect_bytes(raw, out,
                     swn_readings_pack(&wanted->readings, wanted->humidity_step, wanted->temperature_step, out, raw->size));
        EXPECT_EQ(swn_readings_pack(&wanted->readings, wanted->humidity_step, wanted->temperature_step, out, raw->size - 1),
                  0);
    }
    for (i = 0; i < COUNT(VECTORS_SHARE); i++) {
        const swn_share_t *wanted = &VECTORS_SHARE[i].value;

        EXPECT_EQ(read_vector(&VECTORS_SHARE[i].raw, &got), SWN_DOWNLINK_SHARE);
        EXPECT_EQ(got.share.id, wanted->id);
        EXPECT_EQ(got.share.send, wanted->send);
        EXPECT_EQ(got.share.use, wanted->use);
        EXPECT_EQ(got.share.offset_half, wanted->offset_half);
        EXPECT_EQ(got.share.days, wanted->days);
    }
}

/* However wild the day: something of it fits into the largest frame, and the humidity always does. */
static void test_readings_always_fit(void)
{
    uint32_t prng = 7;
    unsigned day;

    for (day = 0; day < 2000; day++) {
        uint8_t out[SWN_READINGS_SIZE_MAX];
        swn_readings_t wild;
        swn_readings_t back;
        size_t size;
        unsigned hour;

        memset(&wild, 0, sizeof wild);
        wild.content = SWN_READINGS_HUMIDITY | SWN_READINGS_RAIN | SWN_READINGS_TEMPERATURE;
        wild.hours = day % 2 ? SWN_READINGS_ALL : 0xFFFFFE;
        wild.rainy = swn_xorshift32(&prng) & wild.hours;
        wild.rain_tenth = (uint8_t)(wild.rainy ? 5 : 0);
        for (hour = 0; hour < SWN_READINGS_HOURS; hour++) {
            const int high = day % 3 ? (int)(hour % 2) : (int)(swn_xorshift32(&prng) >> 31);
            wild.humidity[hour] = (uint8_t)(high ? SWN_READINGS_HUMIDITY_TOP : 0);
            wild.temperature[hour] = (uint8_t)(high ? 0 : SWN_READINGS_TEMPERATURE_TOP);
        }
        size = swn_readings_write(&wild, out, sizeof out);
        EXPECT(size > 0 && swn_readings_read(out, size, &back));
        EXPECT(back.content & SWN_READINGS_HUMIDITY);
        EXPECT_EQ(back.hours, wild.hours);
        for (hour = 0; hour < SWN_READINGS_HOURS; hour++) {
            EXPECT((wild.hours >> hour & 1u) == 0 || abs(back.humidity[hour] - wild.humidity[hour]) <= 4 + 1);
        }
    }
}

static void test_refused(void)
{
    swn_downlink_t got;
    size_t i;

    for (i = 0; i < COUNT(VECTORS_REFUSED); i++) {
        if (read_vector(&VECTORS_REFUSED[i], &got) != SWN_DOWNLINK_MALFORMED) {
            printf("vector %s is accepted\n", VECTORS_REFUSED[i].name);
            EXPECT(0);
        }
    }
}

/* Uplinks that the protocol cannot say are not written. */
static void test_writers_refuse(void)
{
    uint8_t out[SWN_PAYLOAD_MAX];
    swn_prototypes_t prototypes = VECTORS_PROTOTYPES[0].value;
    swn_answer_t answer = VECTORS_ANSWER[0].value;
    swn_report_t report = VECTORS_STATUS[0].value;
    swn_top_k_header_t header = VECTORS_TOP_K_SIGN[0].value.header;

    prototypes.dims = 21;
    EXPECT_EQ(swn_frame_prototypes(&prototypes, out, sizeof out), 0);
    prototypes.dims = 34;
    EXPECT_EQ(swn_frame_prototypes(&prototypes, out, sizeof out), 0);
    prototypes.dims = 20;
    memset(prototypes.means, 0, sizeof prototypes.means);
    EXPECT_EQ(swn_frame_prototypes(&prototypes, out, sizeof out), 0);
    answer.probabilities[0]++;
    EXPECT_EQ(swn_frame_answer(&answer, out, sizeof out), 0);
    report.humidity_half = 201;
    EXPECT_EQ(swn_frame_status(&report, out, sizeof out), 0);
    header.rice_k = 10;
    EXPECT_EQ(swn_frame_top_k_header(&header, out, sizeof out), 0);
}

/* Reference values of the lot, computed with swarm.wire.app.hash8. */
static void test_lots(void)
{
    unsigned taken = 0;
    unsigned i;

    EXPECT_EQ(swn_hash8(0, 0), 45);
    EXPECT_EQ(swn_hash8(1, 0), 165);
    EXPECT_EQ(swn_hash8(0, 1), 23);
    EXPECT_EQ(swn_hash8(999, 12), 246);
    EXPECT_EQ(swn_hash8(65535, 65535), 113);
    for (i = 0; i < 10000; i++) {
        taken += swn_hash8((uint16_t)i, 3) <= 63;
    }
    EXPECT(taken > 2300 && taken < 2700); /* a quarter */
}

int main(void)
{
    test_uplinks();
    test_top_k();
    test_dense_and_fragments();
    test_masked_sums_and_seeds();
    test_rounds_and_acks();
    test_blocks_queries_and_schedules();
    test_readings_and_shares();
    test_readings_always_fit();
    test_refused();
    test_writers_refuse();
    test_lots();
    return expect_done("test_frame");
}
