/* What a frame carries of a node's change, and what stays behind.
 *
 * Theory of operation: training adds its change to a residual. A frame carries a coarse version of it, steps
 * times a scale; with the ACK just that is subtracted, and the rest waits for the next frame (error feedback),
 * whatever the coding:
 *   top k      the largest coordinates as a bitstream: the gap to the one before (Rice), the sign, and either
 *              nothing more (all have one magnitude) or three bits of a level 1..8;
 *   dense      every coordinate as int8, with one scale for the adapter and one for the head. */
#ifndef SWN_CHANGE_H
#define SWN_CHANGE_H

#include <stddef.h>
#include <stdint.h>

#include "swn_model.h"

enum { SWN_TOP_K_COUNT_MAX = 255, SWN_RICE_K_MAX = 9 };
enum { SWN_LEVELS_SIGN = 1, SWN_LEVELS_INT4 = 8 };

/* What a frame carries; kept until the ACK. scale 0: nothing of that part. */
typedef struct swn_change {
    uint16_t scale_adapter; /* LSB of the int16 parameters in one step */
    uint16_t scale_head;
    uint8_t rice_k;         /* top k only */
    uint8_t count;          /* top k only: coordinates */
    int8_t steps[SWN_LOCAL_SIZE_MAX];
} swn_change_t;

/* Chooses the largest |delta| (ties: lower index first), as many as fit into `room` bytes of bitstream with
 * the best Rice parameter, at most 255, and writes the stream (MSB first, last byte padded with zeros).
 * Only delta[first..n) is looked at, and the first gap counts from `first`.
 * levels: SWN_LEVELS_SIGN, the scale is the mean of the chosen |delta|; SWN_LEVELS_INT4, the scale is the
 * smallest that reaches the largest |delta| with 8 steps, and what is less than half a step is not chosen.
 * n <= SWN_LOCAL_SIZE_MAX. Returns the bytes written; 0 when there is nothing to choose or room is 0. */
size_t swn_top_k_encode(const int16_t *delta, size_t first, size_t n, unsigned levels, uint8_t *out, size_t room,
                        swn_change_t *change);

/* All of delta as int8 steps, each part with the smallest scale that reaches its largest; parts without change,
 * and the adapter when heads_only, get scale 0. Returns 0 when nothing is left to say. */
uint8_t swn_dense_quantise(const int16_t *delta, size_t n, uint8_t heads_only, swn_change_t *change);

/* As swn_dense_quantise, of delta[first..end) alone and with steps -7..7, for four bits each. */
uint8_t swn_chunks_quantise(const int16_t *delta, size_t first, size_t end, swn_change_t *change);

/* sum[i] = sat16(a[i] + b[i]): delta plus residual. sum may be a or b. */
void swn_add_sat16(const int16_t *a, const int16_t *b, int16_t *sum, size_t n);

/* Whether it says anything. */
static inline uint8_t swn_change_any(const swn_change_t *change)
{
    return (uint8_t)((change->scale_adapter | change->scale_head) != 0);
}

/* Error feedback, when the frame was acknowledged: residual -= steps * scale. */
void swn_change_subtract(int16_t *residual, size_t n, const swn_change_t *sent);

#endif
