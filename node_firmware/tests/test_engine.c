/* The engine against itself on the host: kernels against plain loops, hostile images, learning, TOP_K_SIGN.
 *
 *   test_engine IMAGE            all tests; exit status 0 when they hold
 *   test_engine IMAGE digest     one number over every output of the engine: equal on every processor
 *
 * Golden outputs made by an independent implementation are compared in tests/firmware/test_engine.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/swn_change.h"
#include "../core/swn_kernels.h"
#include "../core/swn_math.h"
#include "../core/swn_model.h"
#include "../core/swn_train.h"

static int failures;

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)

static void check(int holds, const char *what, int line)
{
    if (!holds) {
        printf("test_engine.c:%d: %s\n", line, what);
        failures++;
    }
}

static int32_t draw(uint32_t *prng, int32_t low, int32_t high)
{
    return low + (int32_t)(swn_xorshift32(prng) % (uint32_t)(high - low + 1));
}

static void draw_bytes(uint32_t *prng, int8_t *out, size_t n, int32_t limit)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = (int8_t)draw(prng, -limit - 1, limit);
    }
}

/* ---- arithmetic ---- */

static void test_math(void)
{
    CHECK(swn_asr(-1, 4) == -1 && swn_asr(-16, 4) == -1 && swn_asr(-17, 4) == -2 && swn_asr(31, 4) == 1);
    CHECK(swn_round_shift(-8, 4) == 0 && swn_round_shift(-9, 4) == -1 && swn_round_shift(8, 4) == 1);
    CHECK(swn_sat8(300) == 127 && swn_sat8(-300) == -128 && swn_sat16(40000) == 32767);
    CHECK(swn_signed16(0x8000u) == -32768 && swn_signed16(0x7FFFu) == 32767 && swn_signed16(0xFFFFu) == -1);
    CHECK(swn_signed32(0x80000000u) == INT32_MIN && swn_signed32(0xFFFFFFFFu) == -1 && swn_signed32(5u) == 5);
    CHECK(swn_crc32(0, (const uint8_t *)"123456789", 9) == 0xCBF43926u);
    CHECK(swn_crc32(swn_crc32(0, (const uint8_t *)"1234", 4), (const uint8_t *)"56789", 5) == 0xCBF43926u);
    CHECK(swn_exp_neg_q15(0) == 32768 && swn_exp_neg_q15(INT32_MAX) == 0 && swn_ln_q13(1) == 0);
    int32_t last = 32768;
    for (int32_t d = 0; d < 12 << 13; d += 7) {
        int32_t e = swn_exp_neg_q15(d);
        CHECK(e <= last && e >= 0);
        last = e;
    }
    CHECK(swn_seed32(0) != 0u && swn_seed32(1) != swn_seed32(2));
}

static void test_softmax(uint32_t *prng)
{
    for (int round = 0; round < 2000; round++) {
        int32_t logits[SWN_CLASSES_MAX];
        uint8_t p[SWN_CLASSES_MAX];
        size_t classes = 2u + (size_t)round % (SWN_CLASSES_MAX - 1u);
        int sum = 0;
        for (size_t c = 0; c < classes; c++) {
            logits[c] = draw(prng, -(1 << (round % 28)), 1 << (round % 28));
        }
        swn_softmax(logits, classes, p);
        for (size_t c = 0; c < classes; c++) {
            sum += p[c];
        }
        CHECK(sum == 255);
        CHECK(!(logits[0] > logits[1] + 8192) || p[0] >= p[1]);
    }
    int32_t extreme[3] = { -(1 << 28), 1 << 28, 0 };
    uint8_t p[3];
    swn_softmax(extreme, 3, p);
    CHECK(p[0] == 0 && p[1] == 255 && p[2] == 0);
}

/* The row-pair int4 kernel against a loop over unpacked nibbles, extremes included. */
static void test_dot4(uint32_t *prng)
{
    uint32_t words[64];
    int8_t x[256];
    for (int round = 0; round < 500; round++) {
        size_t cols = (size_t)draw(prng, 1, 16) * 16u;
        int32_t expected[2] = { 0, 0 };
        int32_t sums[2];
        for (size_t i = 0; i < 64; i++) {
            words[i] = round == 0 ? 0u : round == 1 ? 0xFFFFFFFFu : swn_xorshift32(prng);
        }
        draw_bytes(prng, x, sizeof x, 127);
        if (round < 4) {
            memset(x, round % 2 == 0 ? -128 : 127, sizeof x);
        }
        for (size_t c = 0; c < cols; c++) {
            uint32_t word = words[c / 4] >> 4 * (c % 4);
            expected[0] += ((int32_t)(word & 15u) - 8) * x[c];
            expected[1] += ((int32_t)(word >> 16 & 15u) - 8) * x[c];
        }
        swn_dot4_pair(words, x, cols, 8 * swn_sum8(x, cols), sums);
        CHECK(sums[0] == expected[0] && sums[1] == expected[1]);
    }
}

static void test_adapter(uint32_t *prng)
{
    int16_t adapter[SWN_ADAPTER_SIZE];
    int8_t hidden[SWN_HIDDEN], out[SWN_HIDDEN];
    int16_t low[SWN_RANK];
    for (int round = 0; round < 200; round++) {
        int32_t limit = round % 2 == 0 ? 32767 : 300;
        for (size_t i = 0; i < SWN_ADAPTER_SIZE; i++) {
            adapter[i] = (int16_t)draw(prng, -limit - 1, limit);
        }
        draw_bytes(prng, hidden, sizeof hidden, 127);
        swn_adapter_down(adapter, hidden, low);
        swn_adapter_up(adapter, low, hidden, out);
        for (size_t i = 0; i < SWN_HIDDEN; i++) {
            int64_t sum = 0;
            for (size_t r = 0; r < SWN_RANK; r++) {
                sum += (int64_t)adapter[SWN_ADAPTER_B_OFFSET + i * SWN_RANK + r] * low[r];
            }
            int64_t wanted = hidden[i] + (sum >= 0 ? sum / 4096 : -((-sum + 4095) / 4096));
            CHECK(out[i] == (wanted > 127 ? 127 : wanted < -128 ? -128 : wanted));
        }
    }
}

/* ---- the model ---- */

/* Everything the engine gives for pseudo-random inputs, as one CRC. */
uint32_t engine_digest(const swn_model_t *model)
{
    static swn_example_t examples[48];
    static swn_train_t train;
    static swn_change_t chosen;
    uint32_t prng = 1;
    uint32_t crc = 0;
    int16_t start[SWN_LOCAL_SIZE_MAX];
    const size_t n = swn_local_size(model);
    swn_model_adapter(model, start);
    swn_model_head(model, 2, start + SWN_HEAD_OFFSET);
    for (size_t i = 0; i < 48; i++) {
        int8_t x[SWN_FEATURES_MAX], z[SWN_Z];
        uint8_t top[SWN_TOP_K], p[SWN_CLASSES_MAX];
        int32_t logits[SWN_CLASSES_MAX];
        draw_bytes(&prng, x, model->features, 127);
        swn_features_to_hidden(model, x, examples[i].hidden, top);
        examples[i].label = (uint8_t)(top[0] % model->classes);
        swn_hidden_to_z(model, NULL, examples[i].hidden, z);
        swn_head_logits(start + SWN_HEAD_OFFSET, model->classes, z, logits);
        swn_softmax(logits, model->classes, p);
        crc = swn_crc32(crc, (const uint8_t *)examples[i].hidden, SWN_HIDDEN);
        crc = swn_crc32(crc, top, sizeof top);
        crc = swn_crc32(crc, (const uint8_t *)z, sizeof z);
        crc = swn_crc32(crc, p, model->classes);
    }
    swn_train_init(&train, model, start, start + SWN_HEAD_OFFSET, 1234);
    swn_train_balance(&train, examples, sizeof examples[0], 48);
    for (int epoch = 0; epoch < 3; epoch++) {
        int32_t loss = swn_train_epoch(&train, examples, sizeof examples[0], 48);
        crc = swn_crc32(crc, (const uint8_t *)&loss, sizeof loss);
    }
    crc = swn_crc32(crc, (const uint8_t *)train.parameters, n * sizeof train.parameters[0]);
    uint8_t stream[200];
    for (size_t i = 0; i < n; i++) {
        start[i] = swn_sat16(train.parameters[i] - start[i]);
    }
    size_t size = swn_top_k_encode(start, 0, n, SWN_LEVELS_SIGN, stream, 40, &chosen);
    return swn_crc32(crc, stream, size);
}

/* Learning: hidden vectors whose label is a rule on z, which the shipped heads do not know. */
static void test_learning(const swn_model_t *model, int with_adapter)
{
    static swn_example_t examples[128];
    static swn_train_t train, again;
    int16_t adapter[SWN_ADAPTER_SIZE], head[SWN_HEAD_SIZE_MAX] = { 0 };
    uint32_t prng = 77;
    for (size_t i = 0; i < 128; i++) {
        int8_t x[SWN_FEATURES_MAX], z[SWN_Z];
        uint8_t top[SWN_TOP_K];
        draw_bytes(&prng, x, model->features, 100);
        swn_features_to_hidden(model, x, examples[i].hidden, top);
        swn_hidden_to_z(model, NULL, examples[i].hidden, z);
        int32_t score = z[0] - z[1] + z[2];
        examples[i].label = score < -20 ? 0 : score < 20 || model->classes == 2 ? 1 : 2;
    }
    swn_model_adapter(model, adapter);
    swn_train_init(&train, model, adapter, head, 5);
    train.rate_head = 8;
    train.rate_adapter = with_adapter ? 4 : 0;
    again = train;
    size_t right_before, right_after;
    int32_t before = swn_train_evaluate(&train, examples, sizeof examples[0], 128, &right_before);
    for (int epoch = 0; epoch < 20; epoch++) {
        swn_train_epoch(&train, examples, sizeof examples[0], 128);
        swn_train_epoch(&again, examples, sizeof examples[0], 128);
    }
    int32_t after = swn_train_evaluate(&train, examples, sizeof examples[0], 128, &right_after);
    printf("learning %s adapter: loss %.3f -> %.3f, right %zu -> %zu of 128\n",
           with_adapter ? "with" : "without", before / 8192.0, after / 8192.0, right_before, right_after);
    CHECK(after < before / 2 && right_after > right_before + 20 && right_after >= 110);
    CHECK(memcmp(train.parameters, again.parameters, sizeof train.parameters) == 0);
    CHECK((memcmp(train.parameters, adapter, sizeof adapter) != 0) == with_adapter);
}

/* The largest steps the formats allow: nothing may overflow (the sanitizer watches). */
static void test_training_extremes(const swn_model_t *model, uint32_t *prng)
{
    static swn_train_t train;
    int16_t adapter[SWN_ADAPTER_SIZE], head[SWN_HEAD_SIZE_MAX];
    int8_t hidden[SWN_HIDDEN];
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < SWN_ADAPTER_SIZE; i++) {
            adapter[i] = (int16_t)(swn_xorshift32(prng) & 1u ? 32767 : -32768);
        }
        for (size_t i = 0; i < swn_head_size(model); i++) {
            head[i] = (int16_t)(swn_xorshift32(prng) & 1u ? 32767 : -32768);
        }
        draw_bytes(prng, hidden, sizeof hidden, round % 2 ? 127 : 2);
        swn_train_init(&train, model, adapter, head, (uint64_t)round);
        train.rate_head = 255;
        train.rate_adapter = 255;
        for (uint8_t step = 0; step < 6; step++) {
            int32_t loss = swn_train_step(&train, hidden, (uint8_t)(step % model->classes));
            CHECK(loss >= 0 && loss <= 64 << 13);
        }
    }
}

/* ---- TOP_K_SIGN ---- */

static unsigned take_bit(const uint8_t *stream, size_t *position)
{
    unsigned byte = stream[*position / 8];
    unsigned bit = byte >> (7 - *position % 8) & 1u;
    (*position)++;
    return bit;
}

/* Decodes a stream and compares it with what the encoder says it sent; the unsent are never larger. */
static void check_stream(const int16_t *delta, size_t n, unsigned levels, const uint8_t *stream, size_t size,
                         const swn_change_t *chosen)
{
    size_t position = 0, next = 0;
    int32_t smallest_sent = 40000;
    int8_t steps[SWN_LOCAL_SIZE_MAX] = { 0 };
    for (unsigned i = 0; i < chosen->count; i++) {
        size_t gap = 0;
        while (take_bit(stream, &position)) {
            gap++;
        }
        for (unsigned bit = 0; bit < chosen->rice_k; bit++) {
            gap = gap << 1 | take_bit(stream, &position);
        }
        next += gap;
        CHECK(next < n);
        int negative = take_bit(stream, &position) == 1u;
        int level = 0;
        for (unsigned bit = 0; levels > 1u && bit < 3u; bit++) {
            level = level << 1 | (int)take_bit(stream, &position);
        }
        CHECK((delta[next] < 0) == negative);
        steps[next] = (int8_t)(negative ? -level - 1 : level + 1);
        CHECK(levels == 1u || 2 * abs(steps[next] * chosen->scale_head - delta[next]) <= chosen->scale_head);
        smallest_sent = abs(delta[next]) < smallest_sent ? abs(delta[next]) : smallest_sent;
        next++;
    }
    CHECK((position + 7) / 8 == size);
    CHECK(memcmp(steps, chosen->steps, sizeof steps) == 0);
    for (size_t i = 0; i < n; i++) {
        CHECK(steps[i] != 0 || abs(delta[i]) <= smallest_sent);
    }
}

static void test_top_k(uint32_t *prng)
{
    static int16_t delta[SWN_LOCAL_SIZE_MAX];
    static swn_change_t chosen;
    uint8_t stream[256];
    for (int round = 0; round < 200; round++) {
        size_t room = (size_t)draw(prng, 0, 211);
        int32_t limit = round % 4 == 0 ? 1 : round % 4 == 1 ? 32767 : 60;
        for (size_t i = 0; i < SWN_LOCAL_SIZE_MAX; i++) {
            int zero = round % 3 == 0 && draw(prng, 0, 9) != 0;
            delta[i] = (int16_t)(zero ? 0 : draw(prng, -limit - 1, limit));
        }
        memset(stream, 0xA5, sizeof stream);
        unsigned levels = round % 5 < 2 ? SWN_LEVELS_INT4 : SWN_LEVELS_SIGN;
        size_t size = swn_top_k_encode(delta, 0, SWN_LOCAL_SIZE_MAX, levels, stream, room, &chosen);
        CHECK(size <= room && stream[room] == 0xA5);
        CHECK((size == 0) == (chosen.count == 0));
        CHECK(chosen.count == 255 || size + 3 >= room || limit == 1 || round % 3 == 0);
        check_stream(delta, SWN_LOCAL_SIZE_MAX, levels, stream, size, &chosen);
    }
    memset(delta, 0, sizeof delta);
    CHECK(swn_top_k_encode(delta, 0, SWN_LOCAL_SIZE_MAX, SWN_LEVELS_SIGN, stream, 100, &chosen) == 0);
    CHECK(swn_top_k_encode(delta, 0, SWN_LOCAL_SIZE_MAX, SWN_LEVELS_INT4, stream, 100, &chosen) == 0);
    CHECK(chosen.count == 0 && !swn_change_any(&chosen));
    delta[3] = -100;
    delta[610] = 50;
    CHECK(swn_top_k_encode(delta, 0, SWN_LOCAL_SIZE_MAX, SWN_LEVELS_SIGN, stream, 100, &chosen) != 0);
    CHECK(chosen.count == 2 && chosen.scale_head == 75);
    swn_change_subtract(delta, SWN_LOCAL_SIZE_MAX, &chosen);
    CHECK(delta[3] == -25 && delta[610] == -25 && delta[4] == 0);
    /* Levels: 8 steps of 4 reach 25 with 6 of them; 1 is below half a step and stays. */
    delta[4] = 1;
    delta[5] = 32;
    CHECK(swn_top_k_encode(delta, 0, SWN_LOCAL_SIZE_MAX, SWN_LEVELS_INT4, stream, 100, &chosen) != 0);
    CHECK(chosen.count == 3 && chosen.scale_head == 4 && chosen.steps[5] == 8 && chosen.steps[610] == -6);
    swn_change_subtract(delta, SWN_LOCAL_SIZE_MAX, &chosen);
    CHECK(delta[3] == -1 && delta[610] == -1 && delta[4] == 1 && delta[5] == 0);
}

/* Each part's steps reach its largest coordinate, none is off by more than half a step, and what is left is small. */
static void test_dense(uint32_t *prng)
{
    static int16_t delta[SWN_LOCAL_SIZE_MAX];
    static swn_change_t change;
    const size_t n = SWN_HEAD_OFFSET + 5 * SWN_HEAD_ROW;
    for (int round = 0; round < 60; round++) {
        int32_t limit = round % 3 == 0 ? 32767 : round % 3 == 1 ? 127 : 700;
        for (size_t i = 0; i < SWN_LOCAL_SIZE_MAX; i++) {
            delta[i] = (int16_t)(i < n ? draw(prng, -limit - 1, limit) : 0);
        }
        delta[n - 1] = (int16_t)(-limit - 1);
        CHECK(swn_dense_quantise(delta, n, (uint8_t)(round & 1), &change) == 1);
        CHECK((change.scale_adapter == 0) == (round & 1) && change.scale_head == (uint32_t)(limit + 127) / 127u);
        for (size_t i = 0; i < n; i++) {
            int32_t scale = i < SWN_HEAD_OFFSET ? change.scale_adapter : change.scale_head;
            CHECK(scale == 0 || 2 * abs(delta[i] - change.steps[i] * scale) <= scale + 1);
        }
        swn_change_subtract(delta, SWN_LOCAL_SIZE_MAX, &change);
        CHECK(abs(delta[n - 1]) <= change.scale_head / 2 + 1);
    }
    memset(delta, 0, sizeof delta);
    CHECK(swn_dense_quantise(delta, n, 0, &change) == 0);
    delta[3] = 1;
    CHECK(swn_dense_quantise(delta, n, 1, &change) == 0);
    CHECK(swn_dense_quantise(delta, n, 0, &change) == 1 && change.steps[3] == 1 && change.scale_head == 0);
}

/* ---- hostile images ---- */

static void put32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(value >> 8 * i);
    }
}

/* Makes the CRCs right again, so that the checks behind them are reached. */
static void repair(uint8_t *image, size_t size)
{
    uint32_t at = swn_get32(image + 40);
    uint32_t n = swn_get16(image + 30);
    uint32_t data = swn_get32(image + 44);
    for (uint32_t i = 0; i < n && at + 20u * (i + 1u) <= size; i++) {
        uint8_t *f = image + at + 20u * i;
        uint32_t offset = swn_get32(f + 4), length = swn_get32(f + 8);
        if (offset <= size && length <= size - offset) {
            put32(f + 12, swn_crc32(0, image + offset, length));
        }
    }
    if (data >= 64 && data <= size) {
        put32(image + 60, swn_crc32(swn_crc32(0, image, 60), image + 64, data - 64));
    }
}

/* Runs whatever was accepted: the address sanitizer sees any step outside. */
static void run_all(const swn_model_t *model, uint32_t *prng)
{
    int8_t x[SWN_FEATURES_MAX], hidden[SWN_HIDDEN], z[SWN_Z], mean[SWN_CLASSES_MAX][SWN_Z];
    int16_t adapter[SWN_ADAPTER_SIZE], head[SWN_HEAD_SIZE_MAX];
    static swn_train_t train;
    uint8_t top[SWN_TOP_K];
    uint32_t count[SWN_CLASSES_MAX];
    draw_bytes(prng, x, sizeof x, 127);
    swn_features_to_hidden(model, x, hidden, top);
    swn_model_adapter(model, adapter);
    swn_model_head(model, 1, head);
    swn_model_prior(model, 1, mean, count);
    swn_hidden_to_z(model, adapter, hidden, z);
    swn_train_init(&train, model, adapter, head, 3);
    swn_train_step(&train, hidden, 1);
}

static void test_hostile(const uint8_t *good, size_t size, uint32_t *prng)
{
    uint32_t statuses[16] = { 0 };
    size_t tables = swn_get32(good + 44);
    for (int round = 0; round < 6000; round++) {
        /* An allocation of exactly the bytes, so that reading one too many is seen. */
        size_t kept = round % 8 == 0 ? swn_xorshift32(prng) % (size + 1u) : size;
        uint8_t *image = malloc(kept != 0u ? kept : 1u);
        swn_model_t model;
        memcpy(image, good, kept);
        for (int n = draw(prng, 1, 4); n > 0 && kept > 64u; n--) {
            size_t at = swn_xorshift32(prng) % (round % 4 == 0 || kept < tables ? kept : tables);
            uint32_t kind = swn_xorshift32(prng) % 4u;
            uint8_t noise = (uint8_t)swn_xorshift32(prng);
            unsigned old = image[at];
            unsigned flipped = old ^ 1u << noise % 8u;
            image[at] = (uint8_t)(kind == 0u ? noise : kind == 1u ? old + 1u : kind == 2u ? 255u : flipped);
        }
        if (kept > 64u && round % 16 != 1) {
            repair(image, kept);
        }
        swn_status_t status = swn_model_open(&model, image, kept);
        CHECK((unsigned)status < 16u);
        statuses[(unsigned)status & 15u]++;
        if (status == SWN_OK) {
            run_all(&model, prng);
        }
        free(image);
    }
    printf("hostile images by status:");
    for (unsigned s = 0; s < 12u; s++) {
        printf(" %u", statuses[s]);
    }
    printf("\n");
    CHECK(statuses[SWN_E_CRC] > 0u && statuses[SWN_E_OPERAND] > 0u && statuses[SWN_E_TENSOR] > 0u);
    CHECK(statuses[SWN_E_FRAGMENT] > 0u && statuses[SWN_E_TRUNCATED] > 0u && statuses[SWN_E_PROGRAM] > 0u);
}

/* Each refusal has its own code. */
static void test_refusals(const uint8_t *good, size_t size)
{
    uint8_t *image = malloc(size + 4u);
    swn_model_t model;
    memcpy(image + 1, good, size);
    CHECK(swn_model_open(&model, image + 1, size) == SWN_E_MISALIGNED);
    memcpy(image, good, size);
    CHECK(swn_model_open(&model, image, size) == SWN_OK);
    CHECK(swn_model_open(&model, image, size - 1u) == SWN_E_TRUNCATED);
    CHECK(swn_model_open(&model, image, 63) == SWN_E_TRUNCATED);
    image[0] ^= 1u;
    CHECK(swn_model_open(&model, image, size) == SWN_E_MAGIC);
    image[0] ^= 1u;
    image[4] = 2;
    CHECK(swn_model_open(&model, image, size) == SWN_E_VERSION);
    image[4] = 1;
    image[54] = 1;
    CHECK(swn_model_open(&model, image, size) == SWN_E_ISA);
    image[54] = 0;
    image[size - 1u] ^= 1u;
    CHECK(swn_model_open(&model, image, size) == SWN_E_CRC);
    image[size - 1u] ^= 1u;
    image[64 + 16] = 40;
    repair(image, size);
    CHECK(swn_model_open(&model, image, size) == SWN_E_ISA);
    free(image);
}

static uint8_t *load(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *image = malloc(1 << 20);
    if (file == NULL || image == NULL) {
        free(image);
        return NULL;
    }
    *size = fread(image, 1, 1 << 20, file);
    fclose(file);
    return image;
}

int main(int argc, char **argv)
{
    size_t size = 0;
    uint8_t *image = argc > 1 ? load(argv[1], &size) : NULL;
    if (image == NULL) {
        fprintf(stderr, "usage: test_engine IMAGE.swm [digest]\n");
        return 2;
    }
    swn_model_t model;
    swn_status_t status = swn_model_open(&model, image, size);
    if (status != SWN_OK) {
        printf("%s: refused with %d\n", argv[1], (int)status);
        free(image);
        return 1;
    }
    if (argc > 2 && strcmp(argv[2], "digest") == 0) {
        printf("%08x\n", (unsigned)engine_digest(&model));
        free(image);
        return 0;
    }
    uint32_t prng = 20261122u;
    test_math();
    test_softmax(&prng);
    test_dot4(&prng);
    test_adapter(&prng);
    test_learning(&model, 0);
    test_learning(&model, 1);
    test_training_extremes(&model, &prng);
    test_top_k(&prng);
    test_dense(&prng);
    test_refusals(image, size);
    test_hostile(image, size, &prng);
    printf("%s, digest %08x\n", failures == 0 ? "engine ok" : "engine FAILED", (unsigned)engine_digest(&model));
    free(image);
    return failures != 0;
}
