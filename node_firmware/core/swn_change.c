/* The choice and coding of what travels; see swn_change.h. */
#include "swn_change.h"

#include <string.h>

#include "swn_math.h"

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

/* Bits of one coordinate's sign and level. */
static unsigned value_bits(unsigned levels)
{
    return levels == SWN_LEVELS_SIGN ? 1u : 4u;
}

/* Bits of the stream for the best Rice parameter. */
static size_t stream_bits(const int16_t *delta, size_t n, unsigned levels, cut_t cut, uint8_t *rice_k)
{
    size_t bits[SWN_RICE_K_MAX + 1] = { 0 };
    size_t previous = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_chosen(delta, i, &cut)) {
            for (size_t k = 0; k <= SWN_RICE_K_MAX; k++) {
                bits[k] += ((i - previous) >> k) + k + 1u + value_bits(levels);
            }
            previous = i + 1u;
        }
    }
    *rice_k = 0;
    for (uint8_t k = 1; k <= SWN_RICE_K_MAX; k++) {
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

static void put_bits(uint8_t *out, size_t *position, uint32_t value, unsigned count)
{
    while (count-- > 0u) {
        put_bit(out, position, (unsigned)(value >> count) & 1u);
    }
}

/* The level 1..levels of a coordinate; with one level there is no choice. */
static uint32_t level_of(int16_t delta, unsigned levels, uint32_t scale)
{
    uint32_t level = levels == SWN_LEVELS_SIGN ? 1u : (absolute(delta) + scale / 2u) / scale;
    return level < 1u ? 1u : level > levels ? levels : level;
}

/* `steps` are those of delta[0] and on. */
static void write_stream(const int16_t *delta, size_t n, unsigned levels, cut_t cut, uint8_t *out,
                         swn_change_t *change, int8_t *steps)
{
    size_t position = 0;
    size_t previous = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_chosen(delta, i, &cut)) {
            continue;
        }
        uint32_t level = level_of(delta[i], levels, change->scale_head);
        size_t gap = i - previous;
        for (size_t q = gap >> change->rice_k; q > 0u; q--) {
            put_bit(out, &position, 1);
        }
        put_bit(out, &position, 0);
        put_bits(out, &position, (uint32_t)gap, change->rice_k);
        put_bit(out, &position, delta[i] < 0 ? 1u : 0u);
        put_bits(out, &position, level - 1u, value_bits(levels) - 1u);
        steps[i] = (int8_t)(delta[i] < 0 ? -(int32_t)level : (int32_t)level);
        change->count++;
        previous = i + 1u;
    }
}

static uint32_t largest(const int16_t *delta, size_t n)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        top = absolute(delta[i]) > top ? absolute(delta[i]) : top;
    }
    return top;
}

/* Rounded to the nearest. */
static uint32_t mean_of_chosen(const int16_t *delta, size_t n, size_t count, cut_t cut)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += is_chosen(delta, i, &cut) ? absolute(delta[i]) : 0u;
    }
    return (sum + (uint32_t)count / 2u) / (uint32_t)count;
}

size_t swn_top_k_encode(const int16_t *delta, size_t first, size_t n, unsigned levels, uint8_t *out, size_t room,
                        swn_change_t *change)
{
    memset(change, 0, sizeof *change);
    delta += first;
    n -= first;
    uint32_t scale = (largest(delta, n) + levels - 1u) / levels;
    size_t low = 0;
    /* With levels, what is below half a step would travel as a whole one. */
    size_t high = count_above(delta, n, levels == SWN_LEVELS_SIGN || scale == 0u ? 0u : (scale - 1u) / 2u);
    high = high < SWN_TOP_K_COUNT_MAX ? high : SWN_TOP_K_COUNT_MAX;
    /* Each further coordinate makes the stream longer, so the most that fit are found by bisection. */
    while (low < high) {
        size_t middle = (low + high + 1u) / 2u;
        if (stream_bits(delta, n, levels, cut_at(delta, n, middle), &change->rice_k) <= room * 8u) {
            low = middle;
        } else {
            high = middle - 1u;
        }
    }
    if (low == 0u) {
        change->rice_k = 0;
        return 0;
    }
    cut_t cut = cut_at(delta, n, low);
    size_t size = (stream_bits(delta, n, levels, cut, &change->rice_k) + 7u) / 8u;
    memset(out, 0, size);
    scale = levels == SWN_LEVELS_SIGN ? mean_of_chosen(delta, n, low, cut) : scale;
    change->scale_adapter = change->scale_head = (uint16_t)scale;
    write_stream(delta, n, levels, cut, out, change, change->steps + first);
    return size;
}

/* The smallest scale that reaches the largest of a part with `top` steps; 0 where nothing changed. */
static uint16_t quantise_part(const int16_t *delta, size_t n, uint32_t top, int8_t *steps)
{
    int32_t scale = (int32_t)((largest(delta, n) + top - 1u) / top);
    for (size_t i = 0; i < n && scale > 0; i++) {
        int32_t half = delta[i] < 0 ? -scale / 2 : scale / 2;
        steps[i] = (int8_t)((delta[i] + half) / scale);
    }
    return (uint16_t)scale;
}

uint8_t swn_dense_quantise(const int16_t *delta, size_t n, uint8_t heads_only, swn_change_t *change)
{
    memset(change, 0, sizeof *change);
    if (!heads_only) {
        change->scale_adapter = quantise_part(delta, SWN_ADAPTER_SIZE, 127, change->steps);
    }
    change->scale_head =
        quantise_part(delta + SWN_HEAD_OFFSET, n - SWN_HEAD_OFFSET, 127, change->steps + SWN_HEAD_OFFSET);
    return swn_change_any(change);
}

uint8_t swn_chunks_quantise(const int16_t *delta, size_t first, size_t end, swn_change_t *change)
{
    memset(change, 0, sizeof *change);
    if (first < SWN_HEAD_OFFSET) {
        size_t stop = end < SWN_HEAD_OFFSET ? end : SWN_HEAD_OFFSET;
        change->scale_adapter = quantise_part(delta + first, stop - first, 7, change->steps + first);
        first = stop;
    }
    change->scale_head = quantise_part(delta + first, end - first, 7, change->steps + first);
    return swn_change_any(change);
}

void swn_change_subtract(int16_t *residual, size_t n, const swn_change_t *sent)
{
    for (size_t i = 0; i < n; i++) {
        int32_t scale = i < SWN_HEAD_OFFSET ? sent->scale_adapter : sent->scale_head;
        residual[i] = swn_sat16(residual[i] - sent->steps[i] * scale);
    }
}
