/* Large blocks on the node: a signed one is taken, with losses; a storm of hostile offers and fragments changes nothing.
 *
 *   test_receive IMAGE [FRAMES]     IMAGE: a model container
 */
#include <stdlib.h>

#include "bench.h"
#include "swn_host_flash.h"

enum { BODY = 400, BLOCK = BODY + SWN_SIGNATURE_SIZE, PIECE = 32, PIECES = (BLOCK + PIECE - 1) / PIECE, FLASH = 4096,
       OFFER = 15 };

/* Ed25519 of "SWNB", 255 and the body below, by an independent implementation, and SHA-512 of the whole. */
static const uint8_t SIGNER[SWN_PUBLIC_KEY_SIZE] = {
    0x03, 0xa1, 0x07, 0xbf, 0xf3, 0xce, 0x10, 0xbe, 0x1d, 0x70, 0xdd, 0x18, 0xe7, 0x4b, 0xc0, 0x99,
    0x67, 0xe4, 0xd6, 0x30, 0x9b, 0xa5, 0x0d, 0x5f, 0x1d, 0xdc, 0x86, 0x64, 0x12, 0x55, 0x31, 0xb8};
static const uint8_t SIGNATURE[SWN_SIGNATURE_SIZE] = {
    0x9f, 0x83, 0xe3, 0xee, 0x6f, 0x89, 0x4e, 0x0e, 0xaa, 0xd8, 0xf8, 0xb6, 0x59, 0x6f, 0xd7, 0x7f,
    0xc7, 0x76, 0xed, 0xa6, 0xf0, 0xf2, 0x32, 0x38, 0x9e, 0xe0, 0x4a, 0xfd, 0x34, 0x89, 0xf8, 0x1c,
    0xaf, 0xfa, 0xaf, 0x10, 0x65, 0x81, 0x91, 0x94, 0x33, 0x8a, 0x8c, 0x1c, 0x6f, 0xd4, 0xf7, 0x7d,
    0x47, 0x43, 0x32, 0x73, 0xb8, 0xd5, 0x12, 0xab, 0x78, 0x99, 0xbe, 0x84, 0xd6, 0x20, 0x69, 0x02};
static const uint8_t DESCRIPTOR[4] = {0xf2, 0xbb, 0xe7, 0xdf};

typedef struct rig {
    bench_t bench;
    swn_receive_t receive;
    swn_host_flash_t flash;
    uint8_t bytes[FLASH];
    uint8_t memory[1024];
    swn_stored_t stored; /* as nvm_write was given it */
    unsigned answers;    /* on FPort 201 */
    uint8_t answer[SWN_TRANSPORT_ANSWER_MAX];
} rig_t;

static rig_t rig;

static int rig_tx(void *ctx, uint8_t f_port, const uint8_t *data, size_t size)
{
    if (f_port != SWN_PORT_TRANSPORT) {
        return world_tx(ctx, f_port, data, size);
    }
    EXPECT(size > 0 && size <= SWN_TRANSPORT_ANSWER_MAX);
    if (rig.bench.world.answer == 0) {
        rig.answers++;
        memcpy(rig.answer, data, size);
    }
    return rig.bench.world.answer;
}

static void rig_nvm(void *ctx, uint8_t key, const void *data, size_t size)
{
    if (key == SWN_NVM_STORED) {
        EXPECT_EQ(size, sizeof rig.stored);
        memcpy(&rig.stored, data, sizeof rig.stored);
    } else {
        world_nvm(ctx, key, data, size);
    }
}

static void begin_with(uint64_t seed, uint8_t *flash, uint32_t flash_size, uint8_t *memory, size_t memory_size)
{
    start(&rig.bench, 1, seed);
    memset(&rig.stored, 0, sizeof rig.stored);
    rig.answers = 0;
    swn_host_flash_init(&rig.flash, flash, flash_size);
    rig.flash.port.map = NULL; /* what is signed here is no container */
    rig.receive.config.flash = &rig.flash.port;
    rig.receive.config.lost_pieces = memory;
    rig.receive.config.lost_pieces_size = memory_size;
    rig.bench.config.receive = &rig.receive;
    rig.bench.config.signer = SIGNER;
    rig.bench.port.tx = rig_tx;
    rig.bench.port.nvm_write = rig_nvm;
    EXPECT_EQ(swn_init(&rig.bench.node, &rig.bench.config, &rig.bench.port, 0), 0);
}

static void begin(uint64_t seed)
{
    begin_with(seed, rig.bytes, FLASH, rig.memory, sizeof rig.memory);
}

static uint8_t block_byte(unsigned at)
{
    return at < BODY ? (uint8_t)(7u * at + 3u) : at < BLOCK ? SIGNATURE[at - BODY] : 0;
}

static void put_offer(uint8_t frame[OFFER], unsigned start_s, unsigned length_s)
{
    static const uint8_t HEAD[6] = {5, 1u << 5, PIECES, 0, PIECE, PIECES * PIECE - BLOCK};

    memcpy(frame, HEAD, sizeof HEAD);
    memcpy(frame + 6, DESCRIPTOR, sizeof DESCRIPTOR);
    put16(frame + 10, start_s);
    put16(frame + 12, length_s);
    frame[14] = 0;
}

static void offer(int64_t now_us, unsigned start_s, unsigned length_s)
{
    uint8_t frame[OFFER];

    put_offer(frame, start_s, length_s);
    receive(&rig.bench, now_us, SWN_PORT_LEARNING, frame, sizeof frame);
}

/* Fragment n: a piece, or the exclusive-or of those in its row. */
static void put_fragment(uint8_t frame[3 + PIECE], unsigned n)
{
    uint8_t row[SWN_PIECES_MAX / 8] = {0};
    unsigned piece;
    unsigned i;

    memset(frame, 0, 3 + PIECE);
    frame[0] = 8;
    frame[1] = (uint8_t)n;
    if (n <= PIECES) {
        row[(n - 1u) / 8u] = (uint8_t)(1u << (n - 1u) % 8u);
    } else {
        swn_parity_row((uint16_t)(n - PIECES), PIECES, 2, row);
    }
    for (piece = 0; piece < PIECES; piece++) {
        for (i = 0; ((unsigned)row[piece / 8u] >> piece % 8u & 1u) && i < PIECE; i++) {
            frame[3 + i] ^= block_byte(piece * PIECE + i);
        }
    }
}

static void send(int64_t now_us, unsigned n)
{
    uint8_t frame[3 + PIECE];

    put_fragment(frame, n);
    swn_rx(&rig.bench.node, now_us, SWN_PORT_TRANSPORT, frame, sizeof frame, 1, 0);
}

static void deliver(int64_t now_us)
{
    unsigned n;

    for (n = 1; n <= 3 * PIECES; n++) {
        if (n % 4 != 0) {
            send(now_us, n);
        }
    }
}

static void test_delivery(void)
{
    begin(1);
    EXPECT_EQ(rig.bench.world.listens, 0);
    offer(0, 10, 600);
    EXPECT_EQ(rig.bench.world.from_us, 10 * SECOND_US - rig.bench.config.guard_us);
    EXPECT_EQ(rig.bench.world.until_us, 610 * SECOND_US);
    offer(3 * SECOND_US, 7, 600); /* the same again */
    EXPECT_EQ(rig.bench.world.listens, 1);
    deliver(20 * SECOND_US);
    EXPECT_EQ(rig.receive.state, SWN_WHOLE_AND_VERIFIED);
    EXPECT_EQ(rig.bench.world.closings, 1);
    EXPECT_EQ(rig.stored.size, BLOCK);
    EXPECT_EQ(memcmp(rig.stored.descriptor, DESCRIPTOR, sizeof DESCRIPTOR), 0);
    EXPECT_EQ(rig.flash.rewritten, 0);
    EXPECT_EQ(rig.answers, 0);
    (void)swn_poll(&rig.bench.node, 36 * SECOND_US);
    (void)swn_poll(&rig.bench.node, 80 * SECOND_US);
    (void)swn_poll(&rig.bench.node, 180 * SECOND_US);
    EXPECT_EQ(rig.answers, SWN_WHOLE_TOLD);
    EXPECT_EQ(rig.answer[0], 1);
    EXPECT_EQ(rig.answer[1], 0);
    EXPECT_EQ(rig.answer[4], 0);
}

/* What was not verified is forgotten by a reset, what was is not. */
static void test_recall(void)
{
    swn_stored_t stored;

    begin(2);
    offer(0, 0, 600);
    send(0, 1);
    EXPECT_EQ(rig.stored.size, 0);
    deliver(SECOND_US);
    stored = rig.stored;
    begin(2);
    EXPECT_EQ(swn_recall(&rig.bench.node, SWN_NVM_STORED, &stored, sizeof stored - 1), 0);
    EXPECT_EQ(swn_recall(&rig.bench.node, SWN_NVM_STORED, &stored, sizeof stored), 1);
    EXPECT_EQ(rig.receive.state, SWN_WHOLE_AND_VERIFIED);
    offer(0, 0, 600);
    EXPECT_EQ(rig.bench.world.listens, 0); /* it has that one */
    EXPECT_EQ(rig.flash.opened, 0);        /* and nothing was erased */
}

static void test_half_a_board(void)
{
    begin(3);
    rig.receive.config.lost_pieces = NULL;
    EXPECT_EQ(swn_init(&rig.bench.node, &rig.bench.config, &rig.bench.port, 0), -1);
}

/* The same offer again and again: what it had opened before counts, so that nobody can keep the receiver on all day. */
static void test_a_day_of_offers(void)
{
    int64_t listened_us = 0;
    unsigned hour;

    begin(5);
    for (hour = 0; hour < 24; hour++) {
        const int64_t now_us = (int64_t)hour * 3600 * SECOND_US;

        offer(now_us, 0, 3540);
        if (rig.bench.node.listen.session.until_us > now_us) {
            listened_us += rig.bench.node.listen.session.until_us - now_us;
        }
        (void)swn_poll(&rig.bench.node, now_us);
    }
    EXPECT(listened_us <= (int64_t)SWN_SESSION_DAY_S * SECOND_US);
    EXPECT(listened_us > 7 * 3600 * SECOND_US);
    offer((int64_t)25 * 3600 * SECOND_US, 0, 3540);
    EXPECT(rig.bench.node.listen.session.until_us > (int64_t)25 * 3600 * SECOND_US); /* another day */
}

/* Offers, fragments, polls and set-ups of all kinds, of the running session more often than not. */
static void test_storm(unsigned long frames)
{
    static const uint8_t CIDS[8] = {0, 1, 2, 3, 8, 8, 8, 8};
    uint32_t prng = 77;
    int64_t now_us = 0;
    unsigned long n;

    begin(4);
    for (n = 0; n < frames; n++) {
        const uint8_t is_offer = (uint8_t)(swn_xorshift32(&prng) % 8 == 0);
        const size_t size = is_offer ? 15 : swn_xorshift32(&prng) % 40u;
        uint8_t *bytes = malloc(size + 1);
        size_t i;

        for (i = 0; i < size; i++) {
            const uint32_t word = swn_xorshift32(&prng);
            bytes[i] = (uint8_t)(word & (word >> 8) & 0xFFu);
        }
        if (is_offer) {
            bytes[0] = 5;
            bytes[2] = (uint8_t)(bytes[2] % 8u);
            bytes[3] = (uint8_t)(n % 64 == 0);
        } else if (size > 0) {
            bytes[0] = CIDS[swn_xorshift32(&prng) % 8u];
        }
        if (!is_offer && size > 3 && bytes[0] == 8) {
            put16(bytes + 1, (bytes[1] % 16u) | (unsigned)rig.receive.transport.setup[0] >> 4 << 14);
        }
        swn_rx(&rig.bench.node, now_us, is_offer ? SWN_PORT_LEARNING : SWN_PORT_TRANSPORT, bytes, size,
               (uint8_t)(n % 3 != 0), 0);
        free(bytes);
        rig.bench.world.answer = n % 5 == 0 ? -1 : 0;
        if (n % 16 == 0) {
            EXPECT(swn_poll(&rig.bench.node, now_us) > now_us);
            now_us += swn_xorshift32(&prng) % (uint32_t)(600 * SECOND_US);
        }
        EXPECT(rig.receive.state != SWN_WHOLE_AND_VERIFIED && rig.stored.size == 0);
        EXPECT(rig.receive.day_sessions <= SWN_SESSIONS_A_DAY);
    }
    printf("test_receive: %lu hostile frames, %u refused, %u answers, flash rewritten %u\n", frames,
           (unsigned)rig.bench.node.refused, rig.answers, (unsigned)rig.flash.rewritten);
    EXPECT(rig.answers > frames / 100 && rig.bench.node.refused > frames / 50);
    EXPECT_EQ(rig.flash.rewritten, 0);
    now_us += DAY_US;
    rig.bench.world.answer = 0;
    offer(now_us, 0, 600);
    deliver(now_us);
    EXPECT_EQ(rig.receive.state, SWN_WHOLE_AND_VERIFIED);
}

/* A frame as a gateway sends it: of the block above most often, of the session that runs if it can be. */
static size_t draw_valid(uint32_t *prng, unsigned long n, uint8_t *frame, uint8_t *f_port)
{
    const uint32_t choice = swn_xorshift32(prng) % 24;
    const uint32_t draw = swn_xorshift32(prng);
    const uint8_t *setup = rig.receive.transport.setup;
    unsigned i;

    *f_port = SWN_PORT_TRANSPORT;
    if (choice == 0) { /* OFFER, of now or of later */
        *f_port = SWN_PORT_LEARNING;
        put_offer(frame, draw % 3 * 40, draw % 4000);
        return OFFER;
    }
    if (choice == 1) { /* LABEL, and SCHEDULE */
        *f_port = SWN_PORT_STATUS;
        frame[0] = (uint8_t)(n % 4 ? 4 : 1);
        frame[1] = (uint8_t)(draw % 12);
        frame[2] = (uint8_t)(draw >> 8 & 1u);
        put16(frame + 3, draw >> 16 & 63u);
        put32(frame + 5, draw);
        return frame[0] == 4 ? 5 : 9;
    }
    if (choice == 2) { /* FragSessionSetupReq: the same block or another; the MIC is nobody's here */
        frame[0] = 2;
        frame[1] = (uint8_t)((draw & 3u) << 4 | (draw >> 2 & 15u));
        put16(frame + 2, draw & 64u ? PIECES : draw >> 7 & 2047u);
        frame[4] = (uint8_t)(draw & 64u ? PIECE : draw >> 18 & 255u);
        frame[5] = (uint8_t)(draw >> 26 & 7u);
        frame[6] = PIECES * PIECE - BLOCK;
        memcpy(frame + 7, DESCRIPTOR, sizeof DESCRIPTOR);
        put16(frame + 11, (unsigned)(n / 32));
        put32(frame + 13, draw);
        return 17;
    }
    if (choice == 3) { /* PackageVersionReq, FragSessionStatusReq, DeleteReq, DataBlockReceivedAns, in a row */
        static const uint8_t ROW[8] = {0, 1, 7, 1, 4, 4, 3, 0};

        memcpy(frame, ROW, sizeof ROW);
        frame[2] = (uint8_t)(draw & 7u);
        frame[7] = (uint8_t)(draw >> 3 & 3u);
        return draw & 0x300u ? 6 : sizeof ROW; /* a session that is deleted every time comes to nothing */
    }
    if (choice == 4) {
        *f_port = (uint8_t)(draw >> 8);
        for (i = 0; i < SWN_PAYLOAD_MAX; i++) {
            frame[i] = (uint8_t)(swn_xorshift32(prng) >> 24);
        }
        return draw % SWN_PAYLOAD_MAX;
    }
    put_fragment(frame, 1 + (unsigned)n % (3 * PIECES));
    frame[2] = (uint8_t)((unsigned)setup[0] >> 4 << 6);
    return 3 + PIECE;
}

/* Another board, or the same one after a reset: its flash and memory are as large as is said, to the byte. */
static void reset_board(uint32_t *prng, uint8_t **flash, uint8_t **memory)
{
    static const uint32_t FLASHES[4] = {FLASH, PIECES * PIECE, BLOCK, 1};
    static const size_t MEMORIES[4] = {1024, 24, 3, 0};
    const uint32_t draw = swn_xorshift32(prng);
    const uint32_t flash_size = FLASHES[draw % 8 < 4 ? 0 : draw % 4];
    const size_t memory_size = MEMORIES[draw >> 4 & 3u];
    const swn_stored_t stored = rig.stored;

    if ((draw >> 6 & 1u) && *flash != NULL) {
        EXPECT_EQ(swn_init(&rig.bench.node, &rig.bench.config, &rig.bench.port, 0), 0);
        EXPECT_EQ(swn_recall(&rig.bench.node, SWN_NVM_STORED, &stored, sizeof stored), 1);
        return;
    }
    free(*flash);
    free(*memory);
    *flash = malloc(flash_size);
    *memory = malloc(memory_size + 1);
    if (*flash == NULL || *memory == NULL) {
        abort();
    }
    begin_with(draw, *flash, flash_size, *memory + 1, memory_size);
}

/* Valid dialogues with bits turned, ends cut off and bytes behind, on boards of all sizes: what counts as verified is the
 * block of the signer, byte by byte. */
static void test_mutated(unsigned long frames)
{
    uint8_t *flash = NULL;
    uint8_t *memory = NULL;
    uint32_t prng = 4711;
    int64_t now_us = 0;
    unsigned long n;
    unsigned verified = 0;
    unsigned forged = 0;
    unsigned sessions = 0;

    for (n = 0; n < frames; n++) {
        uint8_t valid[SWN_PAYLOAD_MAX + 16] = {0};
        uint8_t f_port = 0;
        const uint8_t before = rig.receive.state;
        uint32_t draw;
        uint8_t *bytes;
        size_t size;
        size_t i;

        if (n % 2048 == 0) {
            reset_board(&prng, &flash, &memory);
        }
        size = draw_valid(&prng, n, valid, &f_port);
        draw = swn_xorshift32(&prng);
        for (i = draw % 64 < 4 ? draw % 4 + 1 : 0; i > 0 && size > 0; i--) {
            valid[swn_xorshift32(&prng) % size] ^= (uint8_t)(1u << (swn_xorshift32(&prng) & 7u));
        }
        size = draw >> 8 & 63u ? size : draw >> 14 & 1u ? size - size / 3 : size + (draw >> 15 & 15u);
        bytes = malloc(size + 1); /* exactly as many: one too many is seen */
        if (bytes == NULL) {
            abort();
        }
        memcpy(bytes, valid, size);
        rig.flash.failing = draw >> 20 & 255u ? 0 : 2;
        swn_rx(&rig.bench.node, now_us, f_port, bytes, size, (uint8_t)(f_port == SWN_PORT_LEARNING || draw >> 30), -7);
        free(bytes);
        rig.bench.world.answer = n % 7 == 0 ? (int)(draw >> 24) - 128 : 0;
        if (n % 16 == 0) {
            EXPECT(swn_poll(&rig.bench.node, now_us) > now_us);
            now_us += swn_xorshift32(&prng) % (uint32_t)(2000 * SECOND_US);
        }
        verified += before == SWN_RECEIVING && rig.receive.state == SWN_WHOLE_AND_VERIFIED;
        forged += before == SWN_RECEIVING && rig.receive.state == SWN_FORGED;
        sessions += before != SWN_RECEIVING && rig.receive.state == SWN_RECEIVING;
        for (i = 0; rig.stored.size > 0 && i < BLOCK; i++) {
            EXPECT_EQ(flash[i], block_byte((unsigned)i));
        }
        EXPECT(rig.stored.size == 0 || rig.stored.size == BLOCK);
        EXPECT(rig.receive.day_sessions <= SWN_SESSIONS_A_DAY);
        EXPECT(rig.receive.day_listened_us <= (int64_t)SWN_SESSION_DAY_S * SECOND_US);
        EXPECT_EQ(rig.flash.rewritten, 0);
    }
    printf("test_receive: %lu mutated frames, %u sessions, %u blocks verified, %u forged\n", frames, sessions, verified,
           forged);
    EXPECT(verified > frames / 5000 && forged > frames / 20000 && sessions > verified);
    free(flash);
    free(memory);
}

int main(int argc, char **argv)
{
    if (open_model(&rig.bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_delivery();
    test_recall();
    test_half_a_board();
    test_a_day_of_offers();
    test_storm(argc > 2 ? strtoul(argv[2], NULL, 10) / 4 : 250000ul);
    test_mutated(argc > 2 ? strtoul(argv[2], NULL, 10) / 4 : 250000ul);
    return expect_done("test_receive");
}
