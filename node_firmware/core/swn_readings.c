/* The day's frame; see swn_readings.h. */
#include "swn_readings.h"

#include <string.h>

enum { HEAD = 3, TYPE = 2, MASK_FOLLOWS = 8, MASK_SIZE = 3, RAIN_SIZE = 4, SERIES_HEAD = 2, K_MAX = 7 };
enum { FINEST = 1 }; /* finer steps than 2 % and 1 degC cost bytes and tell the rules nothing */

/* Bits, most significant first, in a buffer that is not written behind its end. */
typedef struct swn_bits {
    uint8_t *out;
    size_t room; /* bytes */
    size_t used; /* bits, counted even when they found no room */
} swn_bits_t;

static void put_bit(swn_bits_t *bits, unsigned bit)
{
    const size_t byte = bits->used / 8u;

    if (byte < bits->room) {
        if (bits->used % 8u == 0) {
            bits->out[byte] = 0;
        }
        bits->out[byte] = (uint8_t)(bits->out[byte] | (bit & 1u) << (7u - bits->used % 8u));
    }
    bits->used++;
}

static void put_rice(swn_bits_t *bits, unsigned value, unsigned k)
{
    unsigned i;

    for (i = value >> k; i > 0; i--) {
        put_bit(bits, 1);
    }
    put_bit(bits, 0);
    for (i = k; i > 0; i--) {
        put_bit(bits, value >> (i - 1u));
    }
}

/* To steps of 1 << step; ties go up in even hours and down in odd ones: a lasting half step would be a bias. */
static unsigned rounded(unsigned value, unsigned step, unsigned hour)
{
    return step == 0 ? value : (value + ((1u << step) >> 1) - (hour & 1u)) >> step;
}

static unsigned zigzag(int difference)
{
    return difference >= 0 ? 2u * (unsigned)difference : 2u * (unsigned)-difference - 1u;
}

/* Zigzagged differences between the hours that are there; returns how many. */
static unsigned differences(const uint8_t *values, uint32_t hours, unsigned step, uint8_t *first, uint16_t *out)
{
    unsigned count = 0;
    unsigned before = 0;
    unsigned i;

    for (i = 0; i < SWN_READINGS_HOURS; i++) {
        if (hours >> i & 1u) {
            const unsigned value = rounded(values[i], step, i);
            if (count == 0) {
                *first = (uint8_t)value;
            } else {
                out[count - 1u] = (uint16_t)zigzag((int)value - (int)before);
            }
            before = value;
            count++;
        }
    }
    return count - 1u;
}

static unsigned best_k(const uint16_t *values, unsigned count)
{
    unsigned best = 0;
    unsigned best_bits = 0;
    unsigned k;

    for (k = 0; k <= K_MAX; k++) {
        unsigned bits = count * k;
        unsigned i;

        for (i = 0; i < count; i++) {
            bits += (unsigned)values[i] >> k;
        }
        if (k == 0 || bits < best_bits) {
            best = k;
            best_bits = bits;
        }
    }
    return best;
}

/* One quantity; 0 when it does not fit. */
static size_t put_series(const uint8_t *values, uint32_t hours, unsigned step, uint8_t *out, size_t room)
{
    uint16_t coded[SWN_READINGS_HOURS];
    swn_bits_t bits;
    unsigned count;
    unsigned i;
    unsigned k;

    if (room < SERIES_HEAD) {
        return 0;
    }
    count = differences(values, hours, step, &out[1], coded);
    k = best_k(coded, count);
    out[0] = (uint8_t)(k | step << 3);
    bits.out = out + SERIES_HEAD;
    bits.room = room - SERIES_HEAD;
    bits.used = 0;
    for (i = 0; i < count; i++) {
        put_rice(&bits, coded[i], k);
    }
    return (bits.used + 7u) / 8u > bits.room ? 0 : SERIES_HEAD + (bits.used + 7u) / 8u;
}

static void put24(uint8_t *out, uint32_t value)
{
    out[0] = (uint8_t)(value & 0xFFu);
    out[1] = (uint8_t)(value >> 8 & 0xFFu);
    out[2] = (uint8_t)(value >> 16 & 0xFFu);
}

static uint32_t get24(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16;
}

static int in_range(const uint8_t *values, uint32_t hours, unsigned top)
{
    unsigned i;

    for (i = 0; i < SWN_READINGS_HOURS; i++) {
        if ((hours >> i & 1u) && values[i] > top) {
            return 0;
        }
    }
    return 1;
}

static int sayable(const swn_readings_t *message)
{
    const uint32_t hours = message->hours;

    return hours > 0 && hours <= SWN_READINGS_ALL && message->content > 0 && message->content < MASK_FOLLOWS &&
           (!(message->content & SWN_READINGS_RAIN) ||
            ((message->rainy & ~hours) == 0 && (message->rainy > 0) == (message->rain_tenth > 0))) &&
           (!(message->content & SWN_READINGS_HUMIDITY) ||
            in_range(message->humidity, hours, SWN_READINGS_HUMIDITY_TOP)) &&
           (!(message->content & SWN_READINGS_TEMPERATURE) ||
            in_range(message->temperature, hours, SWN_READINGS_TEMPERATURE_TOP));
}

size_t swn_readings_pack(const swn_readings_t *message, uint8_t humidity_step, uint8_t temperature_step, uint8_t *out,
                         size_t room)
{
    const uint8_t content = message->content;
    const int masked = message->hours != SWN_READINGS_ALL;
    size_t size = HEAD + (masked ? MASK_SIZE : 0u) + (content & SWN_READINGS_RAIN ? RAIN_SIZE : 0u);
    size_t series;

    if (size > room || !sayable(message)) {
        return 0;
    }
    out[0] = TYPE;
    out[1] = message->age;
    out[2] = (uint8_t)(content | (masked ? MASK_FOLLOWS : 0));
    if (masked) {
        put24(out + HEAD, message->hours);
    }
    if (content & SWN_READINGS_RAIN) {
        put24(out + size - RAIN_SIZE, message->rainy);
        out[size - 1u] = message->rain_tenth;
    }
    if (content & SWN_READINGS_HUMIDITY) {
        series = put_series(message->humidity, message->hours, humidity_step, out + size, room - size);
        if (series == 0) {
            return 0;
        }
        size += series;
    }
    if (content & SWN_READINGS_TEMPERATURE) {
        series = put_series(message->temperature, message->hours, temperature_step, out + size, room - size);
        if (series == 0) {
            return 0;
        }
        size += series;
    }
    return size;
}

size_t swn_readings_write(const swn_readings_t *message, uint8_t *out, size_t room)
{
    swn_readings_t without = *message;
    size_t size = 0;
    uint8_t step;

    for (step = FINEST; step <= SWN_READINGS_STEP_MAX && size == 0; step++) {
        size = swn_readings_pack(message, step, (uint8_t)(step == FINEST ? FINEST : step - 1u), out, room);
    }
    without.content = (uint8_t)(message->content & ~SWN_READINGS_TEMPERATURE);
    for (step = FINEST; step <= SWN_READINGS_STEP_MAX && size == 0; step++) {
        size = swn_readings_pack(&without, step, 0, out, room);
    }
    return size;
}

static unsigned bit_at(const uint8_t *data, size_t at)
{
    return (unsigned)data[at / 8u] >> (7u - at % 8u) & 1u;
}

/* The number that begins at bit *at of `size` bytes; -1 when the bits end, or when it is far out of any range. */
static int get_rice(const uint8_t *data, size_t size, size_t *at, unsigned k)
{
    unsigned value = 0;
    unsigned i;

    for (;; (*at)++) {
        if (*at >= 8u * size || value > 4u * SWN_READINGS_TEMPERATURE_TOP) {
            return -1;
        }
        if (!bit_at(data, *at)) {
            break;
        }
        value++;
    }
    (*at)++;
    for (i = 0; i < k; i++, (*at)++) {
        if (*at >= 8u * size) {
            return -1;
        }
        value = value << 1 | bit_at(data, *at);
    }
    return (int)value;
}

/* One quantity of the hours that are there; its size, or 0 when it is none. */
static size_t read_series(const uint8_t *data, size_t size, uint32_t hours, unsigned top, uint8_t *values)
{
    unsigned k;
    unsigned step;
    size_t at = 0;
    int value;
    int started = 0;
    unsigned i;

    if (size < SERIES_HEAD) {
        return 0;
    }
    k = data[0] & 7u;
    step = (unsigned)data[0] >> 3;
    value = data[1];
    for (i = 0; i < SWN_READINGS_HOURS; i++) {
        if (!(hours >> i & 1u)) {
            continue;
        }
        if (started) {
            const int coded = get_rice(data + SERIES_HEAD, size - SERIES_HEAD, &at, k);
            if (coded < 0) {
                return 0;
            }
            value += coded % 2 ? -(coded + 1) / 2 : coded / 2;
        }
        started = 1;
        if (step > SWN_READINGS_STEP_MAX || value < 0 || (unsigned)value > rounded(top, step, 0)) {
            return 0;
        }
        values[i] = (uint8_t)((unsigned)value << step > top ? top : (unsigned)value << step);
    }
    for (; at % 8u != 0; at++) {
        if (bit_at(data + SERIES_HEAD, at)) {
            return 0;
        }
    }
    return SERIES_HEAD + at / 8u;
}

uint8_t swn_readings_read(const uint8_t *data, size_t size, swn_readings_t *out)
{
    size_t at = HEAD;
    size_t series;

    memset(out, 0, sizeof *out);
    if (size < HEAD || data[0] != TYPE || data[2] > 15) {
        return 0;
    }
    out->age = data[1];
    out->content = (uint8_t)(data[2] & ~MASK_FOLLOWS);
    out->hours = SWN_READINGS_ALL;
    if (size < at + (data[2] & MASK_FOLLOWS ? MASK_SIZE : 0u) + (data[2] & SWN_READINGS_RAIN ? RAIN_SIZE : 0u)) {
        return 0;
    }
    if (data[2] & MASK_FOLLOWS) {
        out->hours = get24(data + at);
        at += MASK_SIZE;
        if (out->hours == SWN_READINGS_ALL) {
            return 0;
        }
    }
    if (out->content & SWN_READINGS_RAIN) {
        out->rainy = get24(data + at);
        out->rain_tenth = data[at + 3u];
        at += RAIN_SIZE;
    }
    if (out->content & SWN_READINGS_HUMIDITY) {
        series = read_series(data + at, size - at, out->hours, SWN_READINGS_HUMIDITY_TOP, out->humidity);
        if (series == 0) {
            return 0;
        }
        at += series;
    }
    if (out->content & SWN_READINGS_TEMPERATURE) {
        series = read_series(data + at, size - at, out->hours, SWN_READINGS_TEMPERATURE_TOP, out->temperature);
        if (series == 0) {
            return 0;
        }
        at += series;
    }
    return (uint8_t)(at == size && sayable(out));
}
