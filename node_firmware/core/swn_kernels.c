/* Matrix kernels on int8 vectors; see swn_kernels.h for the layouts and the bounds. */
#include "swn_kernels.h"

#include "swn_math.h"
#include "swn_model.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights are read in place as little-endian words: this engine needs a little-endian machine"
#endif

#define LANES 0x000F000Fu

/* One word, four columns: each product adds w[r] * x to the low half and w[r + 1] * x to the high half.
 * Sixteen columns sum to at most 16 * 15 * 128 = 30720 in a half, so the halves never meet. */
static inline uint32_t dot4_word(uint32_t word, const int8_t *x)
{
    uint32_t x0 = (uint32_t)x[0];
    uint32_t x1 = (uint32_t)x[1];
    uint32_t x2 = (uint32_t)x[2];
    uint32_t x3 = (uint32_t)x[3];
    uint32_t sum = (word & LANES) * x0 + (word >> 4 & LANES) * x1;
    return sum + (word >> 8 & LANES) * x2 + (word >> 12 & LANES) * x3;
}

void swn_dot4_pair(const uint32_t *words, const int8_t *x, size_t cols, int32_t offset, int32_t sums[2])
{
    int32_t first = -offset;
    int32_t second = -offset;
    for (size_t c = 0; c < cols; c += 16) {
        uint32_t sum = dot4_word(words[0], x) + dot4_word(words[1], x + 4);
        sum += dot4_word(words[2], x + 8) + dot4_word(words[3], x + 12);
        /* The low half is signed: what it borrowed from the high half is given back before that is read. */
        int32_t low = swn_signed16((uint16_t)(sum & 0xFFFFu));
        first += low;
        second += swn_signed16((uint16_t)((sum - (uint32_t)low) >> 16));
        words += 4;
        x += 16;
    }
    sums[0] = first;
    sums[1] = second;
}

int32_t swn_sum8(const int8_t *x, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
    }
    return sum;
}

uint16_t swn_matrix_mult(const swn_matrix_t *m, size_t row)
{
    return swn_get16(m->mult + 2u * row);
}

static int32_t requantise(const swn_matrix_t *m, size_t row, int32_t sum)
{
    int32_t bias = swn_signed32(swn_get32(m->bias + 4u * row));
    int32_t bounded = swn_clamp(sum + bias, -SWN_ACC_MAX, SWN_ACC_MAX);
    return swn_round_shift(bounded * (int32_t)swn_matrix_mult(m, row), m->shift);
}

static void store(int8_t *out, int32_t value, unsigned flags, int32_t gain)
{
    int32_t limited = swn_clamp(value, (flags & SWN_OUT_RELU) != 0u ? 0 : -128, 127);
    if (gain != 256) {
        limited = swn_round_shift(limited * gain, 8);
    }
    if ((flags & SWN_OUT_ADD) != 0u) {
        limited += *out;
    }
    *out = swn_sat8(limited);
}

void swn_matvec4(const swn_matrix_t *m, const int8_t *x, int8_t *out, unsigned flags, int32_t gain)
{
    const uint32_t *words = (const uint32_t *)(const void *)m->plane;
    int32_t offset = 8 * swn_sum8(x, m->cols);
    for (size_t row = 0; row < m->rows; row += 2) {
        int32_t sums[2];
        swn_dot4_pair(words, x, m->cols, offset, sums);
        store(out + row, requantise(m, row, sums[0]), flags, gain);
        store(out + row + 1, requantise(m, row + 1u, sums[1]), flags, gain);
        words += m->cols / 4u;
    }
}

static int32_t dot8(const uint8_t *weights, const int8_t *x, size_t cols)
{
    const int8_t *w = (const int8_t *)(const void *)weights;
    int32_t sum = 0;
    for (size_t c = 0; c < cols; c++) {
        sum += w[c] * x[c];
    }
    return sum;
}

void swn_matvec8(const swn_matrix_t *m, const int8_t *x, int8_t *out, unsigned flags)
{
    for (size_t row = 0; row < m->rows; row++) {
        int32_t sum = dot8(m->plane + row * m->cols, x, m->cols);
        store(out + row, requantise(m, row, sum), flags, 256);
    }
}

void swn_matvec8_wide(const swn_matrix_t *m, const int8_t *x, int32_t *out)
{
    for (size_t row = 0; row < m->rows; row++) {
        out[row] = requantise(m, row, dot8(m->plane + row * m->cols, x, m->cols));
    }
}

void swn_adapter_down(const int16_t *adapter, const int8_t *hidden, int16_t low[4])
{
    for (size_t r = 0; r < SWN_RANK; r++) {
        const int16_t *a = adapter + SWN_ADAPTER_A_OFFSET + r * SWN_HIDDEN;
        int32_t sum = 0;
        for (size_t i = 0; i < SWN_HIDDEN; i++) {
            sum += a[i] * hidden[i];
        }
        low[r] = swn_sat16(swn_asr(sum, 12));
    }
}

void swn_adapter_up(const int16_t *adapter, const int16_t low[4], const int8_t *hidden, int8_t *out)
{
    const int16_t *b = adapter + SWN_ADAPTER_B_OFFSET;
    for (size_t i = 0; i < SWN_HIDDEN; i++) {
        /* Four products of 2^30 do not fit into 32 bits: whole and fraction are summed apart, which gives
         * exactly the floor of the full sum. */
        int32_t whole = 0;
        int32_t fraction = 0;
        for (size_t r = 0; r < SWN_RANK; r++) {
            int32_t product = b[i * SWN_RANK + r] * low[r];
            whole += swn_asr(product, 12);
            fraction += (int32_t)((uint32_t)product & 4095u);
        }
        out[i] = swn_sat8(hidden[i] + whole + (fraction >> 12));
    }
}

void swn_matvec8_transposed(const swn_matrix_t *m, const int32_t *grad, int32_t *grad_x)
{
    for (size_t c = 0; c < m->cols; c++) {
        grad_x[c] = 0;
    }
    for (size_t row = 0; row < m->rows; row++) {
        const int8_t *w = (const int8_t *)(const void *)(m->plane + row * m->cols);
        int32_t g = grad[row];
        for (size_t c = 0; c < m->cols; c++) {
            grad_x[c] += w[c] * g;
        }
    }
}

void swn_head_logits(const int16_t *head, size_t classes, const int8_t z[SWN_Z], int32_t *logits)
{
    for (size_t c = 0; c < classes; c++) {
        const int16_t *row = head + c * SWN_HEAD_ROW;
        int32_t sum = row[SWN_Z] * 32;
        for (size_t i = 0; i < SWN_Z; i++) {
            sum += row[i] * z[i];
        }
        logits[c] = sum;
    }
}

void swn_softmax_q15(const int32_t *logits, size_t classes, int32_t *p)
{
    int32_t top = logits[0];
    uint32_t sum = 0;
    for (size_t c = 1; c < classes; c++) {
        top = logits[c] > top ? logits[c] : top;
    }
    for (size_t c = 0; c < classes; c++) {
        p[c] = swn_exp_neg_q15(top - logits[c]);
        sum += (uint32_t)p[c];
    }
    for (size_t c = 0; c < classes; c++) {
        p[c] = (int32_t)((((uint32_t)p[c] << 15) + sum / 2u) / sum);
    }
}

void swn_softmax(const int32_t *logits, size_t classes, uint8_t *p)
{
    int32_t fine[SWN_CLASSES_MAX];
    size_t top = 0;
    int32_t rest = 255;
    swn_softmax_q15(logits, classes, fine);
    for (size_t c = 1; c < classes; c++) {
        top = fine[c] > fine[top] ? c : top;
    }
    for (size_t c = 0; c < classes; c++) {
        p[c] = (uint8_t)((fine[c] * 255 + 16384) >> 15);
        rest -= p[c];
    }
    /* Rounding leaves at most half a unit for each class: the largest one takes it. */
    p[top] = (uint8_t)(p[top] + rest);
}
