/* The node's state machine on a virtual clock.
 *
 *   test_node IMAGE     IMAGE: a model container
 */
#include "bench.h"

static void test_status(bench_t *bench)
{
    int64_t due_us;
    int64_t now_us;

    start(bench, 1, 5);
    due_us = swn_poll(&bench->node, 0);
    EXPECT(due_us > 0 && due_us <= DAY_US + SECOND_US);
    EXPECT_EQ(bench->world.sent, 0);
    EXPECT_EQ(swn_poll(&bench->node, due_us), due_us + DAY_US);
    EXPECT_EQ(bench->world.sent, 1);
    EXPECT_EQ(bench->world.f_port, SWN_PORT_STATUS);
    EXPECT_EQ(bench->world.size[2], SWN_STATUS_SIZE);
    EXPECT_EQ(bench->world.status[8], SWN_STATUS_WANTS_SCHEDULE);
    EXPECT_EQ(bench->world.status[11], SWN_HUMIDITY_MISSING);
    EXPECT_EQ(bench->world.status[14], 0);
    start(bench, 1, 5);
    now_us = live(bench, 3);
    due_us = swn_poll(&bench->node, now_us); /* days late: left to the node's next phase */
    EXPECT_EQ(bench->world.sent, 0);
    EXPECT(due_us > now_us && due_us <= now_us + DAY_US);
    (void)swn_poll(&bench->node, due_us + HOUR_US);
    EXPECT_EQ(bench->world.sent, 1);
    EXPECT_EQ(bench->world.status[7], bench->node.learner.labelled);
    EXPECT_EQ(bench->world.status[9] | bench->world.status[10] << 8, 1200 + 300 + 0);
    EXPECT_EQ(bench->world.status[12], 24); /* two showers of 1.2 mm */
    EXPECT(bench->world.status[14] >> 6 < 3);
    EXPECT_EQ(bench->node.rain_tenth, 0);
}

static void test_schedule(bench_t *bench)
{
    const uint8_t schedule[9] = {1, 0x10, 0x0E, 0, 0, 60, 0, 30, 0}; /* in an hour, a minute, status each 30 min */
    int64_t due_us;

    start(bench, 1, 6);
    receive(bench, 0, SWN_PORT_STATUS, schedule, sizeof schedule);
    EXPECT_EQ(bench->world.listens, 1);
    EXPECT_EQ(bench->world.from_us, HOUR_US - 50000);
    EXPECT_EQ(bench->world.until_us, HOUR_US + 60 * SECOND_US);
    receive(bench, SECOND_US, SWN_PORT_STATUS, schedule, sizeof schedule); /* the same window again */
    EXPECT_EQ(bench->world.listens, 1);
    due_us = swn_poll(&bench->node, SECOND_US);
    EXPECT(due_us <= 1802 * SECOND_US);
    EXPECT_EQ(swn_poll(&bench->node, due_us), due_us + 1800 * SECOND_US);
    EXPECT_EQ(bench->world.status[8], 0); /* has a schedule, no readings yet */
    (void)swn_poll(&bench->node, due_us + 1800 * SECOND_US);
    EXPECT_EQ(bench->world.status[8], 0);
    (void)swn_poll(&bench->node, due_us + 3600 * SECOND_US);
    EXPECT_EQ(bench->world.status[8], due_us >= 61 * SECOND_US ? SWN_STATUS_WANTS_SCHEDULE : 0); /* it has passed */
}

static void test_days(bench_t *bench)
{
    swn_sample_t sample = {1500, 100, 0, 13};
    unsigned hour;

    start(bench, 0, 7);
    live(bench, 1);
    EXPECT_EQ(bench->node.day, 1);
    EXPECT_EQ(bench->node.learner.used, 0); /* 24 h do not fill the window */
    start(bench, 0, 7);
    live(bench, 70);
    EXPECT_EQ(bench->node.day, 70);
    EXPECT_EQ(bench->node.learner.used, SWN_SAMPLES_MAX);
    EXPECT_EQ(bench->node.learner.labelled, SWN_SAMPLES_MAX);
    EXPECT_EQ(swn_label(&bench->node, 3, 0), 0);  /* long gone */
    EXPECT_EQ(swn_label(&bench->node, 69, 0), 0); /* has its label */
    /* Three days of silence still count as days: 12:00 on day 70 to 15:00 on day 73. */
    sample.hour = 15;
    EXPECT_EQ(swn_sense(&bench->node, 70 * DAY_US + 75 * HOUR_US, &sample), 1);
    EXPECT_EQ(bench->node.day, 73);
    EXPECT_EQ(bench->node.hours_in_day, 3);
    EXPECT_EQ(swn_sense(&bench->node, 170 * DAY_US + 3 * HOUR_US, &sample), 1);
    EXPECT_EQ(bench->node.day, 170);
    for (hour = 0; hour < 12; hour++) {
        sample.hour = (uint8_t)(16 + hour);
        (void)swn_sense(&bench->node, 170 * DAY_US + (4 + hour) * HOUR_US, &sample);
    }
    EXPECT_EQ(bench->node.flat_temperature, 12);
}

static void test_prototypes(bench_t *bench)
{
    int64_t now_us;
    int64_t due_us;
    unsigned examples;

    start(bench, 2, 8);
    now_us = live(bench, 12);
    bench->node.status_due_us = SWN_NEVER_US; /* the status is out of the way */
    examples = bench->node.learner.labelled;
    EXPECT_EQ(examples, 11);
    announce(bench, now_us, 3, SWN_MODE_PROTOTYPES, 600, 3600);
    due_us = swn_poll(&bench->node, now_us);
    EXPECT(due_us >= now_us + 5 * SECOND_US && due_us < now_us + 605 * SECOND_US);
    EXPECT_EQ(bench->world.listens, 1);
    bench->world.answer = -1; /* the air is taken */
    EXPECT(swn_poll(&bench->node, due_us) >= due_us + 5 * SECOND_US);
    bench->world.answer = 30;
    now_us = swn_poll(&bench->node, due_us + 10 * SECOND_US);
    EXPECT(now_us >= due_us + 40 * SECOND_US && now_us < due_us + 46 * SECOND_US);
    bench->world.answer = 0;
    EXPECT_EQ(bench->world.sent, 0);
    (void)swn_poll(&bench->node, now_us);
    EXPECT_EQ(bench->world.sent, 1);
    EXPECT_EQ(bench->world.f_port, SWN_PORT_LEARNING);
    EXPECT_EQ(bench->world.size[0], 9 + 2 * 12); /* two classes of 20 dims */
    EXPECT_EQ(bench->world.learning[0], 1);
    EXPECT_EQ(bench->world.learning[1], 3);
    EXPECT_EQ(bench->world.learning[5], 2);
    EXPECT_EQ(bench->world.learning[6], examples);
    EXPECT_EQ(bench->world.learning[7], 20);
    EXPECT_EQ(bench->world.learning[8], 5);
    EXPECT_EQ(bench->world.learning[9] + bench->world.learning[9 + 12], examples);
    /* Not counted by the gateway: the next round sends them again. */
    acknowledge(bench, now_us, 3, 0x7F);
    announce(bench, now_us, 4, SWN_MODE_PROTOTYPES, 0, 3600);
    (void)swn_poll(&bench->node, now_us + 5 * SECOND_US);
    EXPECT_EQ(bench->world.learning[1], 4);
    EXPECT_EQ(bench->world.learning[6], examples);
    /* An ACK of another round is not ours; then they are counted, and nothing is left to say. */
    acknowledge(bench, now_us, 3, 0x80);
    EXPECT_EQ(bench->node.learner.pending_mode, SWN_MODE_PROTOTYPES);
    acknowledge(bench, now_us, 4, 0x80);
    EXPECT_EQ(bench->node.learner.pending_mode, SWN_MODE_NONE);
    announce(bench, now_us, 5, SWN_MODE_PROTOTYPES, 0, 3600);
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    EXPECT_EQ(bench->world.sent, 2);
    EXPECT_EQ(bench->node.dropped, 0);
}

static void test_rounds_that_pass_by(bench_t *bench)
{
    int64_t now_us;
    unsigned sent;

    start(bench, 2, 9);
    now_us = live(bench, 5);
    bench->node.status_due_us = SWN_NEVER_US;
    sent = bench->world.sent;
    announce(bench, now_us, 1, SWN_MODE_NONE, 0, 3600);
    announce(bench, now_us, 2, SWN_MODE_PROTOTYPES, 0, 4); /* closes before anyone may speak */
    (void)swn_poll(&bench->node, now_us + HOUR_US);
    EXPECT_EQ(bench->world.sent, sent);
    EXPECT_EQ(bench->node.dropped, 0);
    bench->world.answer = 1;
    announce(bench, now_us, 3, SWN_MODE_PROTOTYPES, 60000, 600); /* the spread ends with the round */
    EXPECT(bench->node.update_due_us < now_us + 600 * SECOND_US);
    (void)swn_poll(&bench->node, now_us + 599 * SECOND_US);
    EXPECT_EQ(bench->node.update_size > 0, 1);
    (void)swn_poll(&bench->node, now_us + 601 * SECOND_US);
    EXPECT_EQ(bench->node.dropped, 1); /* busy until the close */
    EXPECT_EQ(bench->node.learner.pending_mode, SWN_MODE_NONE);
    bench->world.answer = 0;
    announce(bench, now_us, 3, SWN_MODE_PROTOTYPES, 0, 3600); /* the same round again: done with */
    (void)swn_poll(&bench->node, now_us + 700 * SECOND_US);
    EXPECT_EQ(bench->world.sent, sent);
}

static void test_top_k(bench_t *bench)
{
    static int16_t before[SWN_LOCAL_SIZE_MAX];
    swn_change_t sent;
    int64_t now_us;
    unsigned changed = 0;
    unsigned i;

    start(bench, 1, 10);
    now_us = live(bench, 30);
    announce(bench, now_us, 8, SWN_MODE_TOP_K_SIGN, 0, 3600);
    (void)swn_poll(&bench->node, now_us + 5 * SECOND_US);
    (void)swn_poll(&bench->node, now_us + 6 * SECOND_US);
    EXPECT_EQ(bench->world.learning[0], 2);
    EXPECT_EQ(bench->world.learning[10], bench->node.learner.pending.count);
    EXPECT(bench->world.size[0] > 45 && bench->world.size[0] <= 51);
    EXPECT_EQ(bench->node.learner.pending_mode, SWN_MODE_TOP_K_SIGN);
    sent = bench->node.learner.pending;
    EXPECT(sent.count > 40);
    EXPECT_EQ(bench->node.parameters.model_version, 0);
    memcpy(before, bench->node.learner.residual, sizeof before);
    acknowledge(bench, now_us, 9, 0xFF);
    EXPECT_EQ(memcmp(before, bench->node.learner.residual, sizeof before), 0);
    acknowledge(bench, now_us, 8, 0xFF);
    for (i = 0; i < SWN_LOCAL_SIZE_MAX; i++) {
        const int moved = before[i] - bench->node.learner.residual[i];
        changed += moved != 0;
        EXPECT(moved == 0 || abs(moved) == sent.scale_head);
    }
    EXPECT_EQ(changed, sent.count);
    EXPECT_EQ(bench->world.nvm_writes, 1);
}

/* Sends one block in the order of a permutation, some pieces twice; returns the version afterwards. */
static uint16_t send_block(bench_t *bench, unsigned version, unsigned base, unsigned kind, const uint8_t *block,
                           unsigned length, unsigned count, uint32_t crc32)
{
    const unsigned size = (length + count - 1) / count;
    unsigned i;

    for (i = 0; i < count; i++) {
        const unsigned index = (i * 7 + 3) % count;
        const unsigned bytes = index + 1 < count ? size : length - size * (count - 1);
        uint8_t frame[SWN_PAYLOAD_MAX];

        frame[0] = 3;
        put16(frame + 1, version);
        put16(frame + 3, base);
        frame[5] = (uint8_t)kind;
        put16(frame + 6, length);
        put32(frame + 8, crc32);
        frame[12] = (uint8_t)index;
        frame[13] = (uint8_t)count;
        memcpy(frame + 14, block + index * size, bytes);
        receive(bench, 0, SWN_PORT_LEARNING, frame, 14 + bytes);
        if (i % 3 == 0) {
            receive(bench, 0, SWN_PORT_LEARNING, frame, 14 + bytes);
        }
    }
    return bench->node.parameters.model_version;
}

static uint16_t send_whole(bench_t *bench, unsigned version, unsigned base, unsigned kind, const uint8_t *block,
                           unsigned length)
{
    return send_block(bench, version, base, kind, block, length, (length + 36) / 37, swn_crc32(0, block, length));
}

static void test_blocks(bench_t *bench)
{
    static uint8_t block[SWN_BLOCK_SIZE_MAX];
    const swn_parameters_t *now = &bench->node.parameters;
    int16_t shipped;

    start(bench, 3, 11);
    shipped = now->heads[2][5];
    memset(block, 0, sizeof block);
    block[0] = 3; /* HEADS of context 3, shift 2, w = i - 50 */
    block[1] = 2;
    for (unsigned i = 0; i < 99; i++) {
        block[2 + i] = (uint8_t)(i + 256 - 50);
    }
    EXPECT_EQ(send_block(bench, 1, SWN_NO_BASE, SWN_BLOCK_HEADS, block, 101, 3, 1), 0); /* wrong CRC */
    EXPECT_EQ(bench->node.refused, 1);
    EXPECT_EQ(send_whole(bench, 1, SWN_NO_BASE, SWN_BLOCK_HEADS, block, 101), 1);
    EXPECT_EQ(now->heads[3][0], -200);
    EXPECT_EQ(now->heads[3][98], 192);
    EXPECT_EQ(now->heads[2][5], shipped);
    block[1] = 9; /* a shift too far */
    EXPECT_EQ(send_whole(bench, 2, SWN_NO_BASE, SWN_BLOCK_HEADS, block, 101), 1);
    EXPECT_EQ(bench->node.refused, 2);
    memset(block, 0x88, sizeof block); /* FULL: every q = -120 << 8 */
    block[0] = 0x0C;
    block[1] = 8;
    block[514] = 8;
    block[614] = 0;
    EXPECT_EQ(send_whole(bench, 2, SWN_NO_BASE, SWN_BLOCK_FULL, block, 714), 2);
    EXPECT_EQ(now->adapter[511], -120 * 256);
    EXPECT_EQ(now->heads[2][98], -120 * 256);
    EXPECT_EQ(now->heads[3][0], -120);
    memset(block, 0x78, sizeof block); /* DELTA: -8, 7, -8, 7 ... */
    block[0] = 0x08;
    block[1] = 9;
    block[2] = 0;
    EXPECT_EQ(send_whole(bench, 4, 3, SWN_BLOCK_DELTA, block, 309), 2); /* not our base */
    EXPECT_EQ(send_whole(bench, 3, 2, SWN_BLOCK_DELTA, block, 309), 3);
    EXPECT_EQ(now->adapter[0], -32768);
    EXPECT_EQ(now->adapter[1], -120 * 256 + 7 * 512);
    EXPECT_EQ(now->heads[3][0], -128);
    EXPECT_EQ(now->heads[3][1], -113);
    EXPECT_EQ(now->heads[2][98], -120 * 256);
    EXPECT_EQ(send_whole(bench, 3, 2, SWN_BLOCK_DELTA, block, 309), 3); /* once only */
    EXPECT_EQ(now->heads[3][1], -113);
    EXPECT_EQ(bench->world.nvm_writes, 3);
}

/* The case "heads" of tests/vectors/signed_blocks.json: HEADS of context 0 as version 7. */
static void test_signed_blocks(bench_t *bench)
{
    static const uint8_t SIGNER[SWN_PUBLIC_KEY_SIZE] = {
        0x03, 0xa1, 0x07, 0xbf, 0xf3, 0xce, 0x10, 0xbe, 0x1d, 0x70, 0xdd, 0x18, 0xe7, 0x4b, 0xc0, 0x99, 0x67,
        0xe4, 0xd6, 0x30, 0x9b, 0xa5, 0x0d, 0x5f, 0x1d, 0xdc, 0x86, 0x64, 0x12, 0x55, 0x31, 0xb8,
    };
    static const uint8_t SIGNATURE[SWN_SIGNATURE_SIZE] = {
        0xcb, 0xae, 0x40, 0x27, 0x83, 0x54, 0xc6, 0xfe, 0xb9, 0x88, 0x83, 0xa0, 0x65, 0xb4, 0x73, 0x63, 0x7f,
        0xd6, 0xd9, 0x3d, 0x06, 0xdb, 0x4c, 0xc4, 0x37, 0x83, 0xd2, 0xf2, 0x28, 0x43, 0x4c, 0xc7, 0x3f, 0x16,
        0x1a, 0xf4, 0x92, 0xbf, 0x24, 0xfe, 0x88, 0x38, 0xa7, 0x34, 0xe8, 0xe5, 0x46, 0x61, 0xdc, 0xa9, 0x06,
        0xd2, 0x70, 0x84, 0x88, 0xd4, 0x59, 0xa4, 0x8b, 0xed, 0x89, 0xd2, 0xf3, 0x07,
    };
    uint8_t block[101 + SWN_SIGNATURE_SIZE];
    unsigned size;
    unsigned i;

    start(bench, 0, 1);
    bench->config.signer = SIGNER;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), 0);
    block[0] = 0;
    block[1] = 1;
    for (i = 0; i < 99; i++) {
        block[2 + i] = (uint8_t)i;
    }
    memcpy(block + 101, SIGNATURE, sizeof SIGNATURE);
    for (size = 1; size < sizeof block; size += size < 60 ? 20 : 1) { /* cut anywhere, without any signature too */
        EXPECT_EQ(send_whole(bench, 7, SWN_NO_BASE, SWN_BLOCK_HEADS, block, size), 0);
    }
    EXPECT_EQ(send_whole(bench, 8, SWN_NO_BASE, SWN_BLOCK_HEADS, block, sizeof block), 0);
    EXPECT_EQ(send_whole(bench, 7, 0, SWN_BLOCK_HEADS, block, sizeof block), 0);
    EXPECT_EQ(send_whole(bench, 7, SWN_NO_BASE, SWN_BLOCK_FULL, block, sizeof block), 0);
    block[50] ^= 1;
    EXPECT_EQ(send_whole(bench, 7, SWN_NO_BASE, SWN_BLOCK_HEADS, block, sizeof block), 0);
    block[50] ^= 1;
    EXPECT_EQ(bench->world.nvm_writes, 0);
    EXPECT_EQ(send_whole(bench, 7, SWN_NO_BASE, SWN_BLOCK_HEADS, block, sizeof block), 7);
    EXPECT_EQ(bench->world.nvm_writes, 1);
    EXPECT_EQ(bench->node.parameters.heads[0][98], 98 * 2);
    EXPECT_EQ(send_whole(bench, 7, SWN_NO_BASE, SWN_BLOCK_HEADS, block, sizeof block), 7);
    EXPECT_EQ(bench->world.nvm_writes, 1);
}

static void test_queries(bench_t *bench)
{
    uint8_t query[6 + SWN_WEATHER_FEATURES] = {1, 9, 0, SWN_QUERY_FEATURES, SWN_CONTEXT_OWN, 10};
    int64_t now_us;
    int8_t x[SWN_WEATHER_FEATURES];
    uint8_t p[SWN_WEATHER_CLASSES];
    unsigned i;

    start(bench, 0, 12);
    now_us = live(bench, 3);
    bench->node.status_due_us = SWN_NEVER_US;
    (void)swn_own_features(&bench->node, 0, x);
    EXPECT_EQ(memcmp(x, bench->node.day_x, sizeof x), 0); /* at noon both are the day's */
    memcpy(query + 6, x, sizeof x);
    receive(bench, now_us, SWN_PORT_ASKING, query, sizeof query);
    receive(bench, now_us, SWN_PORT_ASKING, query, sizeof query); /* once is enough */
    EXPECT(swn_poll(&bench->node, now_us) <= now_us + 10 * SECOND_US);
    (void)swn_poll(&bench->node, now_us + 10 * SECOND_US);
    EXPECT_EQ(bench->world.sent, 1);
    EXPECT_EQ(bench->world.f_port, SWN_PORT_ASKING);
    EXPECT_EQ(bench->world.asking[3], 0);
    EXPECT_EQ(bench->world.asking[9], 255);
    EXPECT_EQ(bench->world.asking[10], 0);
    swn_infer_own(&bench->node, p);
    EXPECT_EQ(memcmp(bench->world.asking + 4, p, 3), 0);
    /* Own readings, an hour old, by the head of another crop. */
    query[1] = 10;
    query[3] = SWN_QUERY_OWN_READINGS;
    query[4] = 2;
    query[5] = 0;
    now_us += HOUR_US;
    receive(bench, now_us, SWN_PORT_ASKING, query, 6);
    (void)swn_poll(&bench->node, now_us);
    EXPECT_EQ(bench->world.asking[3], 2);
    EXPECT_EQ(bench->world.asking[9], 6);
    EXPECT_EQ(bench->world.asking[10], SWN_ANSWER_OWN_READINGS);
    /* Four wait, the fifth is refused; what nobody waits for any more is dropped. */
    bench->world.answer = -1;
    for (i = 0; i < 5; i++) {
        query[1] = (uint8_t)(20 + i);
        receive(bench, now_us, SWN_PORT_ASKING, query, 6);
    }
    EXPECT_EQ(bench->node.dropped, 1);
    (void)swn_poll(&bench->node, now_us + 599 * SECOND_US);
    EXPECT_EQ(bench->node.dropped, 1);
    (void)swn_poll(&bench->node, now_us + 601 * SECOND_US);
    EXPECT_EQ(bench->node.dropped, 5);
}

static void test_config(bench_t *bench)
{
    swn_parameters_t kept;

    start(bench, 0, 1);
    bench->config.context = 8;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), -1);
    bench->config.context = 7;
    bench->config.payload_max = 15;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), -1);
    bench->config.payload_max = 223;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), -1);
    bench->config.payload_max = 222;
    bench->config.status_period_s = 59;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), -1);
    bench->config.status_period_s = 60;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), 0);
    kept = bench->node.parameters;
    kept.model_version = 77;
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_PARAMETERS, &kept, sizeof kept - 2), 0);
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_PARAMETERS, &kept, sizeof kept), 1);
    EXPECT_EQ(bench->node.parameters.model_version, 77);
    EXPECT(sizeof(swn_node_t) < 21 * 1024); /* of that 8 KB for heads, a block and an update of ten classes */
}

/* The same calls give the same bytes, another seed gives others. */
static void test_determinism(bench_t *bench)
{
    static bench_t other;
    uint32_t difference;

    other.model = bench->model;
    start(bench, 1, 21);
    start(&other, 1, 21);
    announce(bench, live(bench, 20), 2, SWN_MODE_TOP_K_SIGN, 100, 3600);
    announce(&other, live(&other, 20), 2, SWN_MODE_TOP_K_SIGN, 100, 3600);
    (void)swn_poll(&bench->node, 21 * DAY_US);
    (void)swn_poll(&other.node, 21 * DAY_US);
    EXPECT_EQ(memcmp(&bench->node.history, &other.node.history, sizeof bench->node.history), 0);
    EXPECT_EQ(memcmp(bench->node.learner.residual, other.node.learner.residual, sizeof other.node.learner.residual), 0);
    EXPECT_EQ(memcmp(bench->world.learning, other.world.learning, sizeof other.world.learning), 0);
    EXPECT_EQ(bench->node.prng, other.node.prng);
    start(&other, 1, 22);
    difference = bench->node.prng ^ other.node.prng;
    EXPECT(difference != 0);
}

int main(int argc, char **argv)
{
    static bench_t bench;

    if (open_model(&bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_config(&bench);
    test_status(&bench);
    test_schedule(&bench);
    test_days(&bench);
    test_prototypes(&bench);
    test_rounds_that_pass_by(&bench);
    test_top_k(&bench);
    test_blocks(&bench);
    test_signed_blocks(&bench);
    test_queries(&bench);
    test_determinism(&bench);
    return expect_done("test_node");
}
