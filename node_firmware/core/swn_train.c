/* Training on the node; see swn_train.h. Fixed-point formats stand beside each quantity:
 *
 *   e   softmax error, Q15                    d   dLoss/dz, Q15 (z in units of 1.0)
 *   g   dLoss/dh' per unit of int8 h', Q18    low the adapter's rank-4 vector, in units of h
 *
 * A step on a weight with 1.0 = 2^n is rate * gradient * 2^n, rounded at random. */
#include "swn_train.h"

#include <string.h>

#include "swn_kernels.h"
#include "swn_math.h"

#define HEAD_RATE_BITS 10
#define WEIGHT_ONE 64
#define LN_32768_Q13 85171
#define LOSS_MAX_Q13 (64 << 13)

void swn_train_init(swn_train_t *train, const swn_model_t *model, const int16_t adapter[SWN_ADAPTER_SIZE],
                    const int16_t *head, uint64_t seed)
{
    train->model = model;
    train->prng = swn_seed32(seed);
    train->rate_head = 16;
    train->rate_adapter = 4;
    memset(train->class_weight, WEIGHT_ONE, sizeof train->class_weight);
    memcpy(train->parameters, adapter, SWN_ADAPTER_SIZE * sizeof(int16_t));
    memcpy(train->parameters + SWN_HEAD_OFFSET, head, swn_head_size(model) * sizeof(int16_t));
}

static const swn_example_t *example_at(const swn_example_t *first, size_t stride, size_t index)
{
    const uint8_t *bytes = (const uint8_t *)(const void *)first;
    return (const swn_example_t *)(const void *)(bytes + stride * index);
}

void swn_train_balance(swn_train_t *train, const swn_example_t *first, size_t stride, size_t count)
{
    const size_t classes = train->model->classes;
    uint32_t seen[SWN_CLASSES_MAX] = { 0 };
    uint32_t rarest = UINT32_MAX;
    for (size_t i = 0; i < count; i++) {
        uint8_t label = example_at(first, stride, i)->label;
        if (label < classes) {
            seen[label]++;
        }
    }
    for (size_t c = 0; c < classes; c++) {
        rarest = seen[c] != 0u && seen[c] < rarest ? seen[c] : rarest;
    }
    for (size_t c = 0; c < classes; c++) {
        /* The largest w with w^2 * seen <= 64^2 * rarest. */
        uint32_t weight = WEIGHT_ONE;
        while (seen[c] != 0u && weight > 1u && weight * weight * seen[c] > WEIGHT_ONE * WEIGHT_ONE * rarest) {
            weight--;
        }
        train->class_weight[c] = (uint8_t)weight;
    }
}

/* value / 2^bits, rounded up with the probability of the fraction: the mean is exact. */
static int32_t random_round(uint32_t *prng, int32_t value, unsigned bits)
{
    uint32_t noise = swn_xorshift32(prng) >> (32u - bits);
    return swn_asr(value + (int32_t)noise, bits);
}

static void descend(int16_t *weight, int32_t step)
{
    *weight = swn_sat16(*weight - step);
}

/* What one forward pass leaves for the backward pass. */
typedef struct forward {
    int16_t low[SWN_RANK];
    int8_t adapted[SWN_HIDDEN];
    int8_t z[SWN_Z];
    int32_t logits[SWN_CLASSES_MAX];
} forward_t;

static void run_forward(const swn_train_t *train, const int8_t *hidden, forward_t *pass)
{
    swn_matrix_t m = swn_model_projection(train->model);
    swn_adapter_down(train->parameters, hidden, pass->low);
    swn_adapter_up(train->parameters, pass->low, hidden, pass->adapted);
    swn_matvec8(&m, pass->adapted, pass->z, 0);
    swn_head_logits(train->parameters + SWN_HEAD_OFFSET, train->model->classes, pass->z, pass->logits);
}

/* -ln softmax(logits)[label] in Q13, bounded so that a sum over many examples stays in 32 bits. */
static int32_t cross_entropy(const int32_t *logits, size_t classes, uint8_t label)
{
    int32_t top = logits[0];
    uint32_t sum = 0;
    for (size_t c = 1; c < classes; c++) {
        top = logits[c] > top ? logits[c] : top;
    }
    for (size_t c = 0; c < classes; c++) {
        sum += (uint32_t)swn_exp_neg_q15(top - logits[c]);
    }
    int32_t loss = swn_ln_q13(sum) - LN_32768_Q13 + (top - logits[label]);
    return swn_clamp(loss, 0, LOSS_MAX_Q13);
}

/* Error through the head and the projection to the adapted hidden vector, Q18 per unit. A z or h' at its
 * limit does not answer to small changes, so nothing flows back through it. */
static void backward_to_hidden(const swn_train_t *train, const forward_t *pass, const int32_t *error,
                               int32_t grad_hidden[SWN_HIDDEN])
{
    swn_matrix_t m = swn_model_projection(train->model);
    const int16_t *head = train->parameters + SWN_HEAD_OFFSET;
    int32_t grad_rows[SWN_Z];
    for (size_t j = 0; j < SWN_Z; j++) {
        int32_t d = 0;
        for (size_t c = 0; c < train->model->classes; c++) {
            d += swn_round_shift(error[c] * head[c * SWN_HEAD_ROW + j], 8);
        }
        d = pass->z[j] == 127 || pass->z[j] == -128 ? 0 : swn_clamp(d, -131071, 131071);
        grad_rows[j] = swn_round_shift(d * (int32_t)swn_matrix_mult(&m, j), 10);
    }
    swn_matvec8_transposed(&m, grad_rows, grad_hidden);
    for (size_t i = 0; i < SWN_HIDDEN; i++) {
        /* dz/dh' = plane * mult / 2^shift / 32, d is Q15, 10 bits are gone: Q(10 + shift), made Q18. */
        int32_t g = swn_asr(grad_hidden[i], m.shift - 8u);
        int at_limit = pass->adapted[i] == 127 || pass->adapted[i] == -128;
        grad_hidden[i] = at_limit ? 0 : swn_clamp(g, -32767, 32767);
    }
}

/* Both adapter matrices; A's gradient uses B as it was before its own step. Of the 12 bits of the rate, 6 are
 * taken off before the outer product and 6 after it, with the 6 that lead from Q18 to 1.0 = 4096. */
static void step_adapter(swn_train_t *train, const forward_t *pass, const int8_t *hidden,
                         const int32_t *grad_hidden)
{
    int16_t *a = train->parameters + SWN_ADAPTER_A_OFFSET;
    int16_t *b = train->parameters + SWN_ADAPTER_B_OFFSET;
    int32_t grad_low[SWN_RANK] = { 0 };
    for (size_t i = 0; i < SWN_HIDDEN; i++) {
        int32_t g = random_round(&train->prng, grad_hidden[i] * train->rate_adapter, 6);
        for (size_t r = 0; r < SWN_RANK; r++) {
            int32_t low = swn_clamp(pass->low[r], -8191, 8191);
            grad_low[r] += swn_round_shift(grad_hidden[i] * b[i * SWN_RANK + r], 12);
            descend(&b[i * SWN_RANK + r], random_round(&train->prng, g * low, 12));
        }
    }
    for (size_t r = 0; r < SWN_RANK; r++) {
        int32_t limited = swn_clamp(grad_low[r], -2097151, 2097151);
        int32_t g = random_round(&train->prng, limited * train->rate_adapter, 6);
        for (size_t i = 0; i < SWN_HIDDEN; i++) {
            descend(&a[r * SWN_HIDDEN + i], random_round(&train->prng, g * hidden[i], 12));
        }
    }
}

/* e (Q15) * z (units of 1/32) * rate, to 1.0 = 256: 12 bits and the rate's 10. */
static void step_head(swn_train_t *train, const forward_t *pass, const int32_t *error)
{
    for (size_t c = 0; c < train->model->classes; c++) {
        int16_t *row = train->parameters + SWN_HEAD_OFFSET + c * SWN_HEAD_ROW;
        int32_t scaled = error[c] * train->rate_head;
        for (size_t j = 0; j < SWN_Z; j++) {
            descend(&row[j], random_round(&train->prng, scaled * pass->z[j], 12 + HEAD_RATE_BITS));
        }
        descend(&row[SWN_Z], random_round(&train->prng, scaled * 32, 12 + HEAD_RATE_BITS));
    }
}

int32_t swn_train_step(swn_train_t *train, const int8_t hidden[SWN_HIDDEN], uint8_t label)
{
    forward_t pass;
    const size_t classes = train->model->classes;
    int32_t error[SWN_CLASSES_MAX];
    int32_t grad_hidden[SWN_HIDDEN];
    run_forward(train, hidden, &pass);
    int32_t loss = cross_entropy(pass.logits, classes, label);
    swn_softmax_q15(pass.logits, classes, error);
    error[label] -= 32768;
    for (size_t c = 0; c < classes; c++) {
        error[c] = swn_asr(error[c] * train->class_weight[label], 6);
    }
    if (train->rate_adapter != 0u) {
        backward_to_hidden(train, &pass, error, grad_hidden);
        step_adapter(train, &pass, hidden, grad_hidden);
    }
    step_head(train, &pass, error);
    return loss;
}

static size_t greatest_common_divisor(size_t a, size_t b)
{
    while (b != 0u) {
        size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int32_t swn_train_epoch(swn_train_t *train, const swn_example_t *first, size_t stride, size_t count)
{
    if (count == 0u) {
        return 0;
    }
    /* start + i * leap mod count visits each index once when leap and count share no factor: a shuffle that
     * needs no memory. */
    size_t index = swn_xorshift32(&train->prng) % count;
    size_t leap = 1u + swn_xorshift32(&train->prng) % count;
    while (greatest_common_divisor(leap, count) != 1u) {
        leap++;
    }
    int32_t sum = 0;
    int32_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const swn_example_t *example = example_at(first, stride, index);
        if (example->label < train->model->classes && used < 2048) {
            sum += swn_train_step(train, example->hidden, example->label);
            used++;
        }
        index = (index + leap) % count;
    }
    return used != 0 ? sum / used : 0;
}

int32_t swn_train_evaluate(const swn_train_t *train, const swn_example_t *first, size_t stride, size_t count,
                           size_t *correct)
{
    const size_t classes = train->model->classes;
    int32_t sum = 0;
    int32_t used = 0;
    size_t right = 0;
    for (size_t i = 0; i < count && used < 2048; i++) {
        const swn_example_t *example = example_at(first, stride, i);
        if (example->label >= classes) {
            continue;
        }
        forward_t pass;
        size_t best = 0;
        run_forward(train, example->hidden, &pass);
        for (size_t c = 1; c < classes; c++) {
            best = pass.logits[c] > pass.logits[best] ? c : best;
        }
        right += best == example->label ? 1u : 0u;
        sum += cross_entropy(pass.logits, classes, example->label);
        used++;
    }
    if (correct != NULL) {
        *correct = right;
    }
    return used != 0 ? sum / used : 0;
}

/* ---- TOP_K_SIGN ---- */

void swn_add_sat16(const int16_t *a, const int16_t *b, int16_t *sum, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sum[i] = swn_sat16(a[i] + b[i]);
    }
}

static uint32_t absolute(int16_t value)
{
    return (uint32_t)(value < 0 ? -(int32_t)value : (int32_t)value);
}

/* The k largest are those above `level`, and the first `ties` at it. */
typedef struct cut {
    uint32_t level;
    size_t ties;
} cut_t;

static size_t count_above(const int16_t *delta, size_t n, uint32_t level)
{
    size_t above = 0;
    for (size_t i = 0; i < n; i++) {
        above += absolute(delta[i]) > level ? 1u : 0u;
    }
    return above;
}

/* Bisection on the value: the smallest level above which there are at most k. */
static cut_t cut_at(const int16_t *delta, size_t n, size_t k)
{
    uint32_t low = 0;
    uint32_t high = 32768;
    while (low < high) {
        uint32_t middle = (low + high) / 2u;
        if (count_above(delta, n, middle) <= k) {
            high = middle;
        } else {
            low = middle + 1u;
        }
    }
    cut_t cut = { low, low == 0u ? 0u : k - count_above(delta, n, low) };
    return cut;
}

/* Whether coordinate i is chosen; asked in ascending order, spends the ties. */
static int is_chosen(const int16_t *delta, size_t i, cut_t *cut)
{
    uint32_t size = absolute(delta[i]);
    if (size == cut->level && cut->ties > 0u) {
        cut->ties--;
        return 1;
    }
    return size > cut->level;
}

/* Bits of the stream for the best Rice parameter. */
static size_t stream_bits(const int16_t *delta, size_t n, cut_t cut, uint8_t *rice_k)
{
    size_t bits[10] = { 0 };
    size_t previous = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_chosen(delta, i, &cut)) {
            for (size_t k = 0; k < 10; k++) {
                bits[k] += ((i - previous) >> k) + k + 2u;
            }
            previous = i + 1u;
        }
    }
    *rice_k = 0;
    for (uint8_t k = 1; k < 10; k++) {
        *rice_k = bits[k] < bits[*rice_k] ? k : *rice_k;
    }
    return bits[*rice_k];
}

static void put_bit(uint8_t *out, size_t *position, unsigned bit)
{
    if (bit != 0u) {
        out[*position / 8u] = (uint8_t)(out[*position / 8u] | 0x80u >> *position % 8u);
    }
    (*position)++;
}

static void write_stream(const int16_t *delta, size_t n, cut_t cut, uint8_t *out, swn_top_k_t *chosen)
{
    size_t position = 0;
    size_t previous = 0;
    uint32_t sum = 0;
    chosen->count = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_chosen(delta, i, &cut)) {
            continue;
        }
        size_t gap = i - previous;
        for (size_t q = gap >> chosen->rice_k; q > 0u; q--) {
            put_bit(out, &position, 1);
        }
        put_bit(out, &position, 0);
        for (unsigned bit = chosen->rice_k; bit > 0u; bit--) {
            put_bit(out, &position, (unsigned)(gap >> (bit - 1u)) & 1u);
        }
        put_bit(out, &position, delta[i] < 0 ? 1u : 0u);
        chosen->sent[i / 8u] = (uint8_t)(chosen->sent[i / 8u] | 1u << i % 8u);
        if (delta[i] < 0) {
            chosen->negative[i / 8u] = (uint8_t)(chosen->negative[i / 8u] | 1u << i % 8u);
        }
        sum += absolute(delta[i]);
        chosen->count++;
        previous = i + 1u;
    }
    chosen->magnitude = (uint16_t)((sum + chosen->count / 2u) / chosen->count);
}

size_t swn_top_k_encode(const int16_t *delta, size_t n, uint8_t *out, size_t room, swn_top_k_t *chosen)
{
    memset(chosen, 0, sizeof *chosen);
    size_t low = 0;
    size_t high = count_above(delta, n, 0);
    high = high < SWN_TOP_K_COUNT_MAX ? high : SWN_TOP_K_COUNT_MAX;
    /* Each further coordinate makes the stream longer, so the most that fit are found by bisection. */
    while (low < high) {
        size_t middle = (low + high + 1u) / 2u;
        if (stream_bits(delta, n, cut_at(delta, n, middle), &chosen->rice_k) <= room * 8u) {
            low = middle;
        } else {
            high = middle - 1u;
        }
    }
    if (low == 0u) {
        chosen->rice_k = 0;
        return 0;
    }
    cut_t cut = cut_at(delta, n, low);
    size_t size = (stream_bits(delta, n, cut, &chosen->rice_k) + 7u) / 8u;
    memset(out, 0, size);
    write_stream(delta, n, cut, out, chosen);
    return size;
}

static int bit_of(const uint8_t *bits, size_t i)
{
    unsigned byte = bits[i / 8u];
    return (int)(byte >> (i % 8u) & 1u);
}

void swn_top_k_acknowledge(int16_t *residual, size_t n, const swn_top_k_t *chosen)
{
    for (size_t i = 0; i < n; i++) {
        if (bit_of(chosen->sent, i)) {
            int32_t step = chosen->magnitude;
            residual[i] = swn_sat16(residual[i] - (bit_of(chosen->negative, i) ? -step : step));
        }
    }
}
