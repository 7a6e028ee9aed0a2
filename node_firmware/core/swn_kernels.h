/* Matrix kernels on int8 vectors: int4 planes by SWAR, int8 planes plain, the low-rank adapter.
 *
 * A plane is quantised per row: out[r] = (clamp(sum_c w[r][c] * x[c] + bias[r]) * mult[r]) >> shift, rounded
 * to nearest. With mult <= SWN_MULT_MAX, the clamp at +-SWN_ACC_MAX and shift 1..30 nothing can overflow. */
#ifndef SWN_KERNELS_H
#define SWN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define SWN_ROWS_MAX 64
#define SWN_COLS_MAX 256
#define SWN_MULT_MAX 2047
#define SWN_ACC_MAX 524287
#define SWN_BIAS_MAX 16777215

#define SWN_OUT_RELU 1u     /* negative results become 0 */
#define SWN_OUT_ADD 2u      /* added to what out holds, saturating */

/* A weight plane in place. int4: offset-binary (w + 8) row pairs; each little-endian 32-bit word holds four
 * columns of two rows, column c + j of row r at bits 4j and of row r + 1 at bits 16 + 4j; the words of one
 * row pair follow one another. int8: row-major two's complement. */
typedef struct swn_matrix {
    const uint8_t *plane;   /* 16-byte aligned within the image */
    const uint8_t *bias;    /* int32[rows] */
    const uint8_t *mult;    /* uint16[rows] */
    uint16_t rows;          /* even */
    uint16_t cols;          /* multiple of 16 */
    uint8_t shift;
} swn_matrix_t;

/* Two rows of an int4 plane: raw sums without bias. words: cols / 4 of them; offset: 8 * sum(x). */
void swn_dot4_pair(const uint32_t *words, const int8_t *x, size_t cols, int32_t offset, int32_t sums[2]);

/* Sum of the elements of x. */
int32_t swn_sum8(const int8_t *x, size_t n);

/* int4 matrix times vector. gain: 256 = 1.0, multiplies each result after RELU and before ADD (0..256). */
void swn_matvec4(const swn_matrix_t *m, const int8_t *x, int8_t *out, unsigned flags, int32_t gain);

/* int8 matrix times vector. */
void swn_matvec8(const swn_matrix_t *m, const int8_t *x, int8_t *out, unsigned flags);

/* The same with 32-bit results, without saturation: logits of a gate. */
void swn_matvec8_wide(const swn_matrix_t *m, const int8_t *x, int32_t *out);

/* low[r] = sat16((sum_i A[r][i] * h[i]) >> 12), A[4][64] at the start of adapter. */
void swn_adapter_down(const int16_t *adapter, const int8_t *hidden, int16_t low[4]);

/* out[i] = sat8(h[i] + ((sum_r B[i][r] * low[r]) >> 12)), B[64][4] behind A. out may be hidden. */
void swn_adapter_up(const int16_t *adapter, const int16_t low[4], const int8_t *hidden, int8_t *out);

/* grad_x[c] = sum_r plane[r][c] * grad[r] for an int8 plane with up to 32 rows, |grad| <= 2^18. */
void swn_matvec8_transposed(const swn_matrix_t *m, const int32_t *grad, int32_t *grad_x);

/* mult of a row, for the backward pass. */
uint16_t swn_matrix_mult(const swn_matrix_t *m, size_t row);

#endif
