/* A million hostile downlinks: random, mutated and cut frames between valid ones (run it under ASan and UBSan).
 *
 *   test_hostile IMAGE [FRAMES]     IMAGE: a model container; FRAMES: how many (1000000)
 */
#include "bench.h"

static uint32_t crc_of_zeros(size_t size)
{
    static const uint8_t ZEROS[512];

    return swn_crc32(0, ZEROS, size);
}

/* The same for expert questions, lent readings and labels. */
static size_t draw_newer(uint32_t choice, uint8_t *frame)
{
    switch (choice) {
    case 5: /* a reply */
        frame[0] = 2;
        return 4 + SWN_COARSE_SIZE;
    case 6: /* a question to a holder */
        frame[0] = 3;
        put16(frame + 3, 0);
        frame[5] %= 10;
        frame[6] %= 10;
        frame[7] %= 140;
        frame[8] %= 4;
        return 10 + SWN_COARSE_SIZE;
    case 7: /* a SHARE that lends and borrows */
        frame[0] = 3;
        frame[1] = (uint8_t)(1 + frame[1] % 15);
        frame[2] &= 7;
        frame[3] &= 7;
        return 6;
    default: /* a day without any change, sometimes; and a LABEL */
        if (frame[9] % 4 == 0) {
            frame[0] = 4;
            frame[1] = (uint8_t)(frame[1] % (SWN_CLASSES_MAX + 1));
            frame[2] = (uint8_t)(frame[2] % 3);
            put16(frame + 3, frame[3] % 16u);
            return 5;
        }
        frame[0] = 2;
        frame[1] = (uint8_t)(frame[1] % 40);
        frame[2] = (uint8_t)(frame[2] % 3 == 0 ? 1 : frame[2] % 16);
        if (frame[2] == 1) {
            frame[3] = 0;
            frame[4] = (uint8_t)(frame[4] % 101);
            memset(frame + 5, 0, 3);
            return 8;
        }
        return 3 + frame[5] % 40;
    }
}

/* A valid downlink of some kind, to be mutated: block pieces often complete, rounds often ask for an update. */
static size_t draw_frame(uint32_t *prng, unsigned long n, uint8_t *frame, uint8_t *f_port)
{
    const unsigned version = (unsigned)(n / 64 % 5); /* a burst of pieces belongs to one block */
    static const uint8_t PORTS[10] = {10, 10, 10, 11, 12, 11, 11, 12, 12, 10};
    const uint32_t choice = swn_xorshift32(prng) % 10;
    size_t size;
    size_t i;

    for (i = 0; i < SWN_PAYLOAD_MAX; i++) {
        frame[i] = (uint8_t)(swn_xorshift32(prng) >> 24);
    }
    *f_port = PORTS[choice];
    frame[0] = (uint8_t)(choice < 3 ? choice + 1 : 1);
    switch (choice) {
    case 0:
        frame[5] = (uint8_t)(frame[5] % (SWN_TYPE_SEEDS + 1) | (frame[5] & SWN_MODE_NEW_CONTEXTS));
        frame[11] = frame[12] = frame[16] = 0;
        return 19;
    case 1:
        return 6 + frame[5] % 64;
    case 2: /* pieces of a few small blocks, so that they complete */
        put16(frame + 1, version);
        put16(frame + 3, (version + 4) % 5);
        frame[5] = (uint8_t)(n / 320 % 3);
        put16(frame + 6, frame[5] == 0 ? 101 : frame[5] == 1 ? 259 : 514);
        put32(frame + 8, 0);
        frame[13] = (uint8_t)(4 + 4 * (frame[5] > 0));
        frame[12] = (uint8_t)(frame[12] % frame[13]);
        if (n / 64 % 2) { /* zeros are valid contents of all kinds but FULL */
            memset(frame + 14, 0, SWN_PAYLOAD_MAX - 14);
            put32(frame + 8, frame[5] == 0 ? crc_of_zeros(101) : frame[5] == 1 ? crc_of_zeros(259) : 0);
        }
        size = swn_piece_size(swn_get16(frame + 6), frame[13]);
        return 14 + (frame[12] + 1 < frame[13] ? size : swn_get16(frame + 6) - size * (frame[13] - 1u));
    case 3:
        frame[3] &= 3;
        frame[4] = (uint8_t)(frame[4] % 3 == 0 ? 255 : frame[4] % 8);
        return frame[3] & 2 ? 62 : 6;
    case 4:
        return 9;
    case 5:
    case 6:
    case 7:
    case 8:
        return draw_newer(choice, frame);
    default:
        *f_port = (uint8_t)(swn_xorshift32(prng) % 14);
        return swn_xorshift32(prng) % (SWN_PAYLOAD_MAX + 10);
    }
}

/* Whatever arrives, the node neither reads nor writes beyond its memory, and its clock goes on. */
static void test_hostile(bench_t *bench, unsigned long frames)
{
    uint32_t prng = 2463534242u;
    int64_t now_us;
    int64_t next_us;
    unsigned long n;
    unsigned asked = 0;
    unsigned together = 0;

    start(bench, 2, 13);
    bench->model.withheld = 0x3C;
    bench->node.config.ask_below = 255;
    now_us = live(bench, 8);
    for (n = 0; n < frames; n++) {
        uint8_t valid[SWN_PAYLOAD_MAX + 16];
        uint8_t f_port;
        size_t size = draw_frame(&prng, n, valid, &f_port);
        unsigned mutations = swn_xorshift32(&prng) % 8;
        const int is_reply = f_port == SWN_PORT_ASKING && valid[0] == 2;
        uint8_t *bytes;

        if (is_reply && n % 2 == 0) {
            put16(valid + 1, bench->node.ask.id);
            valid[3] = bench->node.ask.missing;
        }
        for (mutations = mutations > 4 ? mutations - 4 : 0; mutations > 0 && size > 0; mutations--) {
            valid[swn_xorshift32(&prng) % size] = (uint8_t)(swn_xorshift32(&prng) >> 16);
        }
        size = swn_xorshift32(&prng) % 16 == 0 ? swn_xorshift32(&prng) % (size + 1) : size;
        bytes = malloc(size > 0 ? size : 1); /* exactly as many: one too many is seen */
        memcpy(bytes, valid, size);
        swn_rx(&bench->node, now_us, f_port, bytes, size, (uint8_t)(n % 2), (int8_t)(n % 100));
        free(bytes);
        if (n % 32 == 0) {
            int8_t x[SWN_FEATURES_MAX];
            swn_judgement_t judgement;
            size_t i;

            for (i = 0; i < sizeof x; i++) {
                x[i] = (int8_t)(swn_xorshift32(&prng) >> 26);
            }
            swn_judgement(&bench->node, &judgement);
            together += judgement.state == SWN_JUDGED_TOGETHER;
            swn_judge(&bench->node, now_us, (uint8_t)(n / 32 % 9), x, 60, &judgement);
            asked += judgement.state == SWN_JUDGED_ASKING;
        }
        if (n % 8 == 0) {
            bench->world.answer = swn_xorshift32(&prng) % 4 == 0 ? (int)(swn_xorshift32(&prng) % 100) - 20 : 0;
            next_us = swn_poll(&bench->node, now_us);
            EXPECT(next_us > now_us);
            now_us += swn_xorshift32(&prng) % (uint32_t)(4 * SECOND_US);
        }
        if (n % 4096 == 0) {
            /* Local training is the slow part: a hostile gateway may ask for it, a test need not wait. */
            bench->node.update_due_us = SWN_NEVER_US;
            bench->node.update_size = 0;
        }
    }
    printf("test_hostile: %lu hostile frames, %u refused, %u sent, %u dropped, %u blocks\n", frames,
           (unsigned)bench->node.refused, (unsigned)bench->node.sent, (unsigned)bench->node.dropped,
           bench->world.nvm_writes);
    printf("test_hostile: %u questions for experts, %u seen answered\n", asked, together);
    EXPECT(asked > frames / 2000 && together > asked / 4);
    EXPECT(bench->node.sent > frames / 1000);
    EXPECT(bench->node.refused > frames / 20);
    EXPECT(bench->world.nvm_writes > frames / 10000);
}

/* Contents that passed the CRC may still be anything. */
static void test_hostile_contents(bench_t *bench)
{
    uint32_t prng = 88172645u;
    unsigned applied[3] = {0, 0, 0};
    unsigned n;

    start(bench, 1, 14);
    for (n = 0; n < 60000; n++) {
        static const uint16_t LENGTHS[6] = {101, 202, 259, 309, 514, 714};
        const uint8_t kind = (uint8_t)(n % 4);
        const uint32_t draw = swn_xorshift32(&prng);
        const uint16_t length = draw % 3 ? LENGTHS[draw / 3 % 6] : (uint16_t)(1 + draw % SWN_BLOCK_SIZE_MAX);
        uint8_t *block = malloc(length);
        unsigned i;

        for (i = 0; i < length; i++) {
            block[i] = (uint8_t)(swn_xorshift32(&prng) >> 24);
        }
        block[0] &= 15;
        for (i = 1; i < 3 && i < length; i++) {
            block[i] %= 14;
        }
        if (swn_parameters_apply(&bench->node.parameters, 1, 1, kind, block, length)) {
            EXPECT(kind < 3);
            applied[kind % 3]++;
        }
        free(block);
    }
    EXPECT(applied[0] > 100 && applied[1] > 100 && applied[2] > 20);
}

int main(int argc, char **argv)
{
    static bench_t bench;

    if (open_model(&bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_hostile_contents(&bench);
    test_hostile(&bench, argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000ul);
    return expect_done("test_hostile");
}
