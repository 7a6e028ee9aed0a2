/* Another application than weather: any model's shape, samples by swn_observe(), updates that hold what fits. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "swn_math.h"
#include "swn_train.h"

enum { MASK_AT = 8 };

static void observe(bench_t *bench, uint32_t *prng, uint16_t id)
{
    const size_t features = bench->model.features;
    int8_t *x = calloc(features, 1); /* exactly as many: the address sanitizer sees one too many */
    size_t i;

    for (i = 0; i < features; i++) {
        x[i] = (int8_t)((int32_t)(swn_xorshift32(prng) >> 24) - 128);
    }
    swn_observe(&bench->node, id * SECOND_US, id, x);
    EXPECT_EQ(memcmp(bench->node.day_x, x, features), 0);
    free(x);
}

/* One round: announced, composed, sent; the counts and classes of the prototypes frame, which is valid. */
static unsigned update(bench_t *bench, uint16_t round, uint8_t mode, unsigned *classes)
{
    const int64_t now_us = round * HOUR_US;
    const uint8_t *sent = bench->world.learning;
    unsigned mask;

    bench->world.size[0] = 0;
    announce(bench, now_us, round, mode, 0, 100);
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    if (bench->world.size[0] == 0 || mode != SWN_MODE_PROTOTYPES) {
        return 0;
    }
    mask = sent[MASK_AT] & 0x7Fu;
    if (sent[MASK_AT] & 0x80u) {
        mask |= (unsigned)sent[MASK_AT + 1] << 7;
    }
    EXPECT(mask < 1u << bench->model.classes);
    for (*classes = 0; mask != 0; mask &= mask - 1u) {
        ++*classes;
    }
    EXPECT_EQ(bench->world.size[0],
              9u + (sent[MASK_AT] >> 7) + *classes * (2u + sent[7] / 2u));
    EXPECT(bench->world.size[0] <= bench->node.config.payload_max);
    return sent[6];
}

/* 60 samples, class c by its share; every frame names as many classes as it holds, and in the end all were reported. */
static void test_classes_take_turns(bench_t *bench, uint8_t payload_max)
{
    const unsigned classes = bench->model.classes;
    uint32_t prng = 2463534242u;
    unsigned reported = 0;
    unsigned first_classes = 0;
    unsigned rounds = 0;
    uint16_t id;

    start(bench, 0, 3);
    swn_set_payload_max(&bench->node, payload_max);
    bench->node.status_due_us = SWN_NEVER_US;
    for (id = 0; id < 60; id++) {
        observe(bench, &prng, id);
        EXPECT_EQ(swn_label(&bench->node, id, (uint8_t)classes), 0);
        EXPECT_EQ(swn_label(&bench->node, id, (uint8_t)(id % classes)), 1);
        EXPECT_EQ(swn_label(&bench->node, id, (uint8_t)(id % classes)), 0);
    }
    while (reported < 60 && rounds < 12) {
        unsigned named = 0;
        const unsigned count = update(bench, (uint16_t)++rounds, SWN_MODE_PROTOTYPES, &named);

        first_classes = rounds == 1 ? named : first_classes;
        EXPECT(count > 0 && bench->world.learning[7] >= SWN_DIMS_MIN);
        EXPECT(named == classes || reported + count == 60 || named == (payload_max - 9u - (classes > 7)) / 10u);
        reported += count;
        acknowledge(bench, rounds * HOUR_US + 60 * SECOND_US, rounds, 0xFF);
    }
    EXPECT_EQ(reported, 60);
    EXPECT_EQ(rounds, (classes + first_classes - 1u) / first_classes);
    EXPECT_EQ(update(bench, (uint16_t)(rounds + 1), SWN_MODE_PROTOTYPES, &first_classes), 0);
}

static void test_signs(bench_t *bench)
{
    const unsigned size = swn_local_size(&bench->model);
    uint32_t prng = 99;
    unsigned classes;
    unsigned i;
    uint16_t id;

    start(bench, 1, 4);
    bench->node.status_due_us = SWN_NEVER_US;
    for (id = 0; id < 64; id++) {
        observe(bench, &prng, id);
        (void)swn_label(&bench->node, id, (uint8_t)(id % bench->model.classes));
    }
    (void)update(bench, 1, SWN_MODE_TOP_K_SIGN, &classes);
    EXPECT(bench->world.size[0] > 40);
    for (i = 0; i < SWN_LOCAL_SIZE_MAX; i++) {
        EXPECT(i < size || bench->node.learner.residual[i] == 0);
    }
    acknowledge(bench, HOUR_US + 60 * SECOND_US, 1, 0xFF);
}

/* Joins what the node sends from `now_us` on, until it has nothing more to send; the number of frames. */
static unsigned gather(bench_t *bench, int64_t *now_us, uint8_t *whole, size_t *size, unsigned round, unsigned mode)
{
    unsigned frames = 0;

    *size = 0;
    while (bench->node.update_due_us != SWN_NEVER_US) {
        const uint8_t *sent = bench->world.learning;
        const unsigned before = bench->world.sent;
        const int64_t next_us = swn_poll(&bench->node, *now_us);

        if (bench->world.sent != before) {
            EXPECT_EQ(bench->world.sent, before + 1);
            EXPECT(bench->world.size[0] <= bench->node.config.payload_max);
            EXPECT_EQ(sent[0], SWN_TYPE_FRAGMENT);
            EXPECT_EQ(swn_get16(sent + 1), round);
            EXPECT_EQ(sent[3], mode);
            EXPECT_EQ(sent[4], frames);
            memcpy(whole + *size, sent + SWN_FRAGMENT_HEADER, bench->world.size[0] - SWN_FRAGMENT_HEADER);
            *size += bench->world.size[0] - SWN_FRAGMENT_HEADER;
            frames++;
        }
        *now_us = next_us > *now_us + 100 * SECOND_US ? *now_us + 100 * SECOND_US : next_us;
    }
    return frames;
}

/* DENSE_INT8 in frames of 51 bytes: whole, in order, and with the ACK exactly what travelled leaves the residual. */
static void test_dense_in_fragments(bench_t *bench)
{
    static int16_t before[SWN_LOCAL_SIZE_MAX];
    static uint8_t whole[SWN_UPDATE_SIZE_MAX];
    const unsigned n = swn_local_size(&bench->model);
    uint32_t prng = 31;
    int64_t now_us = HOUR_US;
    unsigned frames;
    size_t size;
    uint16_t id;
    unsigned i;

    start(bench, 1, 8);
    bench->node.status_due_us = SWN_NEVER_US;
    for (id = 0; id < 40; id++) {
        observe(bench, &prng, id);
        (void)swn_label(&bench->node, id, (uint8_t)(id % bench->model.classes));
    }
    announce(bench, now_us, 5, SWN_MODE_DENSE_INT8, 0, 3000);
    frames = gather(bench, &now_us, whole, &size, 5, SWN_MODE_DENSE_INT8);
    EXPECT_EQ(size, SWN_DENSE_HEADER + n);
    EXPECT_EQ(frames, (size + 44) / 45);
    EXPECT_EQ(bench->world.learning[5], frames);
    memcpy(before, bench->node.learner.residual, sizeof before);
    acknowledge(bench, now_us, 6, 0xFF);
    EXPECT_EQ(memcmp(before, bench->node.learner.residual, sizeof before), 0);
    acknowledge(bench, now_us, 5, 0xFF);
    for (i = 0; i < n; i++) {
        const int32_t scale = swn_get16(whole + (i < SWN_HEAD_OFFSET ? 7 : 9));
        const int32_t step = (int32_t)(whole[SWN_DENSE_HEADER + i] ^ 0x80u) - 0x80;
        EXPECT_EQ(bench->node.learner.residual[i], before[i] - step * scale);
        EXPECT(abs(bench->node.learner.residual[i]) <= (scale + 1) / 2);
    }
    EXPECT_EQ(bench->world.nvm_writes, 1);
    EXPECT_EQ(bench->node.dropped, 0);
}

/* A busy port delays fragments; the round's end, or a slower data rate, takes the rest: the residual keeps it all. */
static void test_fragments_that_do_not_get_through(bench_t *bench)
{
    static uint8_t whole[SWN_UPDATE_SIZE_MAX];
    static int16_t before[SWN_LOCAL_SIZE_MAX];
    int64_t now_us = 2 * HOUR_US;
    unsigned sent;
    size_t size;

    bench->world.answer = 60;
    announce(bench, now_us, 6, SWN_MODE_DENSE_INT8, 0, 3000);
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    EXPECT(swn_poll(&bench->node, now_us + 7 * SECOND_US) >= now_us + 66 * SECOND_US);
    bench->world.answer = 0;
    now_us += 100 * SECOND_US;
    EXPECT(gather(bench, &now_us, whole, &size, 6, SWN_MODE_DENSE_INT8) > 5);
    announce(bench, now_us, 7, SWN_MODE_DENSE_INT8, 0, 3000); /* not acknowledged: everything again */
    sent = bench->world.sent;
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    EXPECT_EQ(bench->world.sent, sent + 1);
    EXPECT_EQ(bench->node.learner.pending_mode, SWN_MODE_DENSE_INT8);
    memcpy(before, bench->node.learner.residual, sizeof before);
    (void)swn_poll(&bench->node, now_us + 3001 * SECOND_US);
    EXPECT_EQ(bench->world.sent, sent + 1);
    EXPECT_EQ(bench->node.dropped, 1);
    EXPECT_EQ(bench->node.learner.pending_mode, SWN_MODE_NONE);
    acknowledge(bench, now_us + 3002 * SECOND_US, 7, 0xFF);
    EXPECT_EQ(memcmp(before, bench->node.learner.residual, sizeof before), 0);
    now_us += 2 * HOUR_US;
    announce(bench, now_us, 8, SWN_MODE_DENSE_INT8, 0, 3000);
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    swn_set_payload_max(&bench->node, 30);
    (void)swn_poll(&bench->node, now_us + 60 * SECOND_US);
    EXPECT_EQ(bench->node.dropped, 2);
    swn_set_payload_max(&bench->node, 16); /* 10 bytes in each of 64 fragments are too few for it */
    announce(bench, now_us, 9, SWN_MODE_DENSE_INT8, 0, 3000);
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    EXPECT_EQ(bench->node.dropped, 2u + (swn_local_size(&bench->model) + SWN_DENSE_HEADER > 640));
}

/* Own readings are the last observation; features of another size are refused; the answer has every class. */
static void test_questions(bench_t *bench)
{
    uint8_t query[SWN_PAYLOAD_MAX] = {1, 9, 0, SWN_QUERY_OWN_READINGS, SWN_CONTEXT_OWN, 0};
    const unsigned classes = bench->model.classes;
    uint8_t p[SWN_CLASSES_MAX];
    uint32_t prng = 7;

    start(bench, 0, 5);
    bench->node.status_due_us = SWN_NEVER_US;
    observe(bench, &prng, 0);
    swn_infer_own(&bench->node, p);
    swn_rx(&bench->node, HOUR_US, SWN_PORT_ASKING, query, 6, 0, 0);
    (void)swn_poll(&bench->node, HOUR_US);
    EXPECT_EQ(bench->world.size[1], 8 + classes);
    EXPECT_EQ(memcmp(bench->world.asking + 4, p, classes), 0);
    EXPECT_EQ(bench->world.asking[6 + classes], 6);
    EXPECT_EQ(bench->world.asking[7 + classes], SWN_ANSWER_OWN_READINGS);
    query[1] = 10;
    query[3] = SWN_QUERY_FEATURES;
    swn_rx(&bench->node, HOUR_US, SWN_PORT_ASKING, query, bench->model.features == 1 ? 8 : 7, 0, 0);
    EXPECT_EQ(bench->node.refused, 1);
    if (bench->model.features + 6u <= SWN_PAYLOAD_MAX) {
        memcpy(query + 6, bench->node.day_x, bench->model.features);
        swn_rx(&bench->node, HOUR_US, SWN_PORT_ASKING, query, bench->model.features + 6u, 0, 0);
        (void)swn_poll(&bench->node, HOUR_US);
        EXPECT_EQ(bench->world.asking[1], 10);
        EXPECT_EQ(memcmp(bench->world.asking + 4, p, classes), 0);
    }
}

/* A day of weather makes a sample only where the model judges weather. */
static void test_weather_for_another_model(bench_t *bench)
{
    const int is_weather = bench->model.classes == SWN_WEATHER_CLASSES && bench->model.features == SWN_WEATHER_FEATURES;
    swn_sample_t sample = {1500, 120, 0, 0};
    unsigned hour;

    start(bench, 1, 6);
    for (hour = 0; hour < 96; hour++) {
        sample.hour = (uint8_t)(hour % 24);
        (void)swn_sense(&bench->node, (int64_t)hour * HOUR_US, &sample);
    }
    EXPECT(bench->node.days_closed >= 3);
    EXPECT_EQ(bench->node.learner.used > 0, is_weather);
    (void)swn_poll(&bench->node, 97 * HOUR_US); /* a status, whatever the model */
}

/* Whole blocks of the model's own sizes, and of any other: applied or refused, never half. */
static void test_blocks(bench_t *bench)
{
    static uint8_t block[SWN_BLOCK_SIZE_MAX];
    static swn_parameters_t before;
    const unsigned head = swn_head_size(&bench->model);
    swn_parameters_t *now = &bench->node.parameters;
    uint32_t prng = 5;
    unsigned context;
    unsigned length;

    start(bench, 0, 7);
    for (context = 0; context < SWN_CONTEXT_MAX; context++) {
        block[context * (2 + head)] = (uint8_t)context;
        block[context * (2 + head) + 1] = 3;
        block[context * (2 + head) + 1 + head] = (uint8_t)(context + 1);
    }
    EXPECT_EQ(swn_parameters_apply(now, 1, SWN_NO_BASE, SWN_BLOCK_HEADS, block, (uint16_t)(8 * (2 + head))), 1);
    EXPECT_EQ(now->heads[7][head - 1], 64);
    EXPECT_EQ(now->heads[7][0], 0);
    memset(block, 0, sizeof block);
    block[0] = 0xFF;
    block[2 + SWN_ADAPTER_SIZE + 8 * (1 + head) - 1] = 0x80;
    EXPECT(2 + SWN_ADAPTER_SIZE + 8 * (1 + head) <= SWN_BLOCK_SIZE_MAX);
    EXPECT_EQ(swn_parameters_apply(now, 2, SWN_NO_BASE, SWN_BLOCK_FULL, block,
                                   (uint16_t)(2 + SWN_ADAPTER_SIZE + 8 * (1 + head))), 1);
    EXPECT_EQ(now->heads[7][head - 1], -128);
    memset(block, 0x77, sizeof block);
    block[0] = 0x81;
    block[1] = block[2] = 1;
    EXPECT_EQ(swn_parameters_apply(now, 3, 2, SWN_BLOCK_DELTA, block,
                                   (uint16_t)(3 + (SWN_ADAPTER_SIZE + 2 * head + 1) / 2)), 1);
    EXPECT_EQ(now->heads[7][head - 1], -128 + 14);
    for (length = 1; length <= SWN_BLOCK_SIZE_MAX; length++) {
        const uint8_t kind = (uint8_t)(swn_xorshift32(&prng) % 3u);

        before = *now;
        if (!swn_parameters_apply(now, 9, now->model_version, kind, block, (uint16_t)length)) {
            EXPECT_EQ(memcmp(&before, now, sizeof before), 0);
        }
    }
}

int main(int argc, char **argv)
{
    static bench_t bench;

    if (open_model(&bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_classes_take_turns(&bench, 51);
    test_classes_take_turns(&bench, 222);
    test_classes_take_turns(&bench, 30);
    test_signs(&bench);
    test_dense_in_fragments(&bench);
    test_fragments_that_do_not_get_through(&bench);
    test_questions(&bench);
    test_weather_for_another_model(&bench);
    test_blocks(&bench);
    printf("test_observe: %u classes, %u features\n", (unsigned)bench.model.classes, (unsigned)bench.model.features);
    return expect_done("test_observe");
}
