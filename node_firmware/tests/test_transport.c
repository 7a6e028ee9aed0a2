/* Fragmented data block transport: rows, integrity codes and blocks of the vectors, sessions, hostile bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"
#include "fragmentation.h"
#include "swn_cmac.h"
#include "swn_host_flash.h"
#include "swn_transport.h"

enum { FLASH_SIZE = 4096, FRAME_MAX = 512, HOSTILE = 200000, MUTATED = 4000, AT_DESCRIPTOR = 7 };

typedef struct rig {
    swn_transport_t transport;
    swn_transport_answer_t answer;
    swn_host_flash_t flash;
    uint8_t bytes[FLASH_SIZE];
    uint8_t memory[SWN_ERASURE_MEMORY];
} rig_t;

static size_t unhex(const char *digits, uint8_t *out)
{
    const size_t size = strlen(digits) / 2;
    size_t i;

    for (i = 0; i < size; i++) {
        const char pair[3] = {digits[2 * i], digits[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return size;
}

static void start(rig_t *rig, uint8_t version, const char *root_key, size_t memory_size)
{
    swn_transport_config_t config;
    uint8_t root[SWN_AES_BLOCK];

    memset(&config, 0, sizeof config);
    (void)unhex(root_key, root);
    swn_transport_key(root, config.integrity_key);
    swn_host_flash_init(&rig->flash, rig->bytes, FLASH_SIZE);
    config.flash = &rig->flash.port;
    config.memory = rig->memory;
    config.memory_size = memory_size;
    config.seed = 5;
    config.version = version;
    swn_transport_init(&rig->transport, &config, NULL);
}

static swn_transport_event_t hear(rig_t *rig, const char *frame, uint8_t group)
{
    uint8_t bytes[FRAME_MAX];
    uint8_t *exact; /* so that a sanitizer sees a read behind the last byte */
    const size_t size = unhex(frame, bytes);
    swn_transport_event_t event;

    exact = malloc(size);
    if (exact == NULL) {
        abort();
    }
    memcpy(exact, bytes, size);
    event = swn_transport_rx(&rig->transport, exact, size, group, &rig->answer);
    free(exact);
    return event;
}

/* RFC 4493 section 4, whole and in two parts. */
static void test_cmac(void)
{
    static const struct {
        size_t size;
        const char *code;
    } EXAMPLES[] = {
        {0, "bb1d6929e95937287fa37d129b756746"},
        {16, "070a16b46b4d4144f79bdd9dd04a287c"},
        {40, "dfa66747de9ae63030ca32611497c827"},
        {64, "51f0bebf7e3b9d92fc49741779363cfe"},
    };
    uint8_t key[SWN_AES_BLOCK];
    uint8_t text[64];
    uint8_t code[SWN_AES_BLOCK];
    uint8_t wanted[SWN_AES_BLOCK];
    swn_cmac_t cmac;
    size_t i;
    size_t cut;

    (void)unhex("2b7e151628aed2a6abf7158809cf4f3c", key);
    (void)unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
                "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
                text);
    for (i = 0; i < sizeof EXAMPLES / sizeof EXAMPLES[0]; i++) {
        (void)unhex(EXAMPLES[i].code, wanted);
        for (cut = 0; cut <= EXAMPLES[i].size; cut++) {
            swn_cmac_init(&cmac, key);
            swn_cmac_update(&cmac, text, cut);
            swn_cmac_update(&cmac, text + cut, EXAMPLES[i].size - cut);
            swn_cmac_final(&cmac, code);
            EXPECT_EQ(memcmp(code, wanted, sizeof code), 0);
        }
    }
}

static void test_rows(void)
{
    uint8_t row[SWN_PIECES_MAX / 8];
    uint8_t wanted[SWN_PIECES_MAX / 8];
    size_t i;

    for (i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        const size_t size = unhex(ROWS[i].row, wanted);
        EXPECT_EQ(size, (ROWS[i].count + 7u) / 8u);
        swn_parity_row(ROWS[i].n, ROWS[i].count, ROWS[i].version, row);
        EXPECT_EQ(memcmp(row, wanted, size), 0);
    }
}

/* The last frame of each block makes it whole, none before. */
static void test_blocks(rig_t *rig)
{
    uint8_t block[FLASH_SIZE];
    size_t i;
    size_t j;

    for (i = 0; i < sizeof BLOCKS / sizeof BLOCKS[0]; i++) {
        const block_vector_t *vector = &BLOCKS[i];
        const size_t size = unhex(vector->block, block);

        start(rig, vector->version, vector->root_key, sizeof rig->memory);
        EXPECT_EQ(hear(rig, vector->setup, SWN_UNICAST), SWN_TRANSPORT_OPENED);
        EXPECT_EQ(rig->answer.size, 2);
        EXPECT_EQ(rig->answer.data[1] & 0x3F, 0);
        for (j = 0; vector->frames[j] != NULL; j++) {
            const swn_transport_event_t event = hear(rig, vector->frames[j], 0);
            EXPECT_EQ(event, vector->frames[j + 1] == NULL ? SWN_TRANSPORT_WHOLE : SWN_TRANSPORT_PIECE);
        }
        EXPECT_EQ(swn_transport_size(&rig->transport), size);
        EXPECT_EQ(memcmp(rig->bytes, block, size), 0);
        EXPECT_EQ(rig->flash.rewritten, 0);
        EXPECT_EQ(rig->answer.size, vector->version >= 2 ? 2 : 0); /* ack_reception is of version 2 */
        EXPECT_EQ(hear(rig, vector->frames[0], 0), SWN_TRANSPORT_NOTHING);
    }
}

/* With the descriptor of the request changed, the same fragments are another block's. */
static void test_a_block_under_another_request_is_forged(rig_t *rig)
{
    size_t i;
    size_t j;

    for (i = 0; i < sizeof BLOCKS / sizeof BLOCKS[0]; i++) {
        const block_vector_t *vector = &BLOCKS[i];
        uint8_t setup[FRAME_MAX];
        size_t size;

        if (vector->version < 2) {
            continue;
        }
        start(rig, vector->version, vector->root_key, sizeof rig->memory);
        size = unhex(vector->setup, setup);
        setup[AT_DESCRIPTOR] ^= 1u;
        EXPECT_EQ(swn_transport_rx(&rig->transport, setup, size, SWN_UNICAST, &rig->answer), SWN_TRANSPORT_OPENED);
        for (j = 0; vector->frames[j + 1] != NULL; j++) {
            (void)hear(rig, vector->frames[j], 0);
        }
        EXPECT_EQ(hear(rig, vector->frames[j], 0), SWN_TRANSPORT_FORGED);
        EXPECT_EQ(rig->answer.data[1] & 4, 4);
        EXPECT_EQ(hear(rig, "01070105", SWN_UNICAST), SWN_TRANSPORT_NOTHING);
    }
}

/* Every memory from nothing to plenty: never a wrong block, never a byte outside (the sanitizer's affair). */
static void test_any_memory(rig_t *rig)
{
    uint8_t block[FLASH_SIZE];
    size_t memory;
    size_t j;

    for (memory = 0; memory < 600; memory++) {
        const block_vector_t *vector = &BLOCKS[3];
        const size_t size = unhex(vector->block, block);
        uint8_t *exact = malloc(memory + 1);
        uint8_t whole = 0;

        if (exact == NULL) {
            abort();
        }
        start(rig, vector->version, vector->root_key, memory);
        rig->transport.config.memory = exact + 1;
        (void)hear(rig, vector->setup, SWN_UNICAST);
        for (j = 0; vector->frames[j] != NULL; j++) {
            whole = (uint8_t)(whole | (hear(rig, vector->frames[j], 0) == SWN_TRANSPORT_WHOLE));
        }
        EXPECT_EQ(whole, !rig->transport.erasure.memory_error);
        EXPECT(!whole || memcmp(rig->bytes, block, size) == 0);
        free(exact);
    }
    EXPECT_EQ(rig->transport.erasure.memory_error, 0);
}

static void test_hostile_bytes(rig_t *rig)
{
    static const uint8_t CIDS[8] = {0, 1, 2, 3, 4, 8, 8, 9};
    uint32_t prng = 9;
    unsigned i;

    start(rig, 2, BLOCKS[0].root_key, 300);
    for (i = 0; i < HOSTILE; i++) {
        const size_t size = swn_xorshift32(&prng) % 40u + (i % 16 == 0);
        uint8_t *bytes = malloc(size + 1);
        size_t j;

        if (bytes == NULL) {
            abort();
        }
        if (i % 1000 == 0) {
            start(rig, (uint8_t)(1 + i / 1000 % 2), BLOCKS[0].root_key, swn_xorshift32(&prng) % 400u);
        }
        for (j = 0; j < size; j++) {
            const uint32_t word = swn_xorshift32(&prng);
            bytes[j] = (uint8_t)(word & (word >> 8) & 0xFFu);
        }
        if (size > 0) {
            bytes[0] = CIDS[swn_xorshift32(&prng) % 8u];
        }
        if (size > 4 && i % 2) {
            bytes[2] = (uint8_t)(bytes[2] % 16u); /* small blocks, low numbers */
            bytes[3] = (uint8_t)(bytes[0] == 2 ? 0 : bytes[3]);
        }
        (void)swn_transport_rx(&rig->transport, bytes, size, (uint8_t)(i % 3 ? SWN_UNICAST : i % 5), &rig->answer);
        EXPECT(rig->answer.size <= SWN_TRANSPORT_ANSWER_MAX);
        free(bytes);
    }
}

/* The vectors' dialogues with bits turned and ends cut off: with a MIC, whole is the block and nothing else. */
static void test_mutated_dialogues(rig_t *rig)
{
    uint8_t block[FLASH_SIZE];
    uint32_t prng = 31;
    unsigned whole = 0;
    unsigned forged = 0;
    unsigned round;

    for (round = 0; round < MUTATED; round++) {
        const block_vector_t *vector = &BLOCKS[round % (sizeof BLOCKS / sizeof BLOCKS[0])];
        const size_t size = unhex(vector->block, block);
        size_t j;

        start(rig, vector->version, vector->root_key, swn_xorshift32(&prng) % 4 ? sizeof rig->memory : round % 64);
        for (j = 0; j == 0 || vector->frames[j - 1] != NULL; j++) { /* the set-up, then the frames */
            uint8_t bytes[FRAME_MAX];
            size_t length = unhex(j == 0 ? vector->setup : vector->frames[j - 1], bytes);
            const uint32_t draw = swn_xorshift32(&prng);
            swn_transport_event_t event;
            uint8_t *exact;

            if (draw % 64 == 0) {
                bytes[swn_xorshift32(&prng) % length] ^= (uint8_t)(1u << (draw >> 8 & 7u));
            }
            length = draw >> 11 & 127u ? length : (draw >> 18) % length;
            exact = malloc(length + 1);
            if (exact == NULL) {
                abort();
            }
            memcpy(exact, bytes, length);
            event = swn_transport_rx(&rig->transport, exact, length, j == 0 ? SWN_UNICAST : 0, &rig->answer);
            free(exact);
            forged += event == SWN_TRANSPORT_FORGED;
            if (event == SWN_TRANSPORT_WHOLE && vector->version >= 2) {
                whole++;
                EXPECT_EQ(swn_transport_size(&rig->transport), size);
                EXPECT_EQ(memcmp(rig->bytes, block, size), 0);
            }
        }
        EXPECT_EQ(rig->flash.rewritten, 0);
    }
    printf("test_transport: %d mutated dialogues, %u whole, %u forged\n", MUTATED, whole, forged);
    EXPECT(whole > MUTATED / 10 && forged > MUTATED / 50);
}

int main(void)
{
    static rig_t rig;

    test_cmac();
    test_rows();
    test_blocks(&rig);
    test_a_block_under_another_request_is_forged(&rig);
    test_any_memory(&rig);
    test_hostile_bytes(&rig);
    test_mutated_dialogues(&rig);
    return expect_done("transport");
}
