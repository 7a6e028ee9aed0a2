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
