/* Integers modulo p = 2^255 - 19, in 32-bit arithmetic; see swn_field.h. */
#include "swn_field.h"

#include <string.h>

#include "swn_math.h"

enum {
    LIMBS = SWN_FIELD_LIMBS,
    LIMB_BITS = 13,
    LIMB = 1 << LIMB_BITS,
    TOP_BITS = 8, /* of the last limb below 2^255 */
    FOLD = 608    /* 2^260 = 32 * 19 modulo p */
};

/* low + factor * high, the carries done; |factor| <= FOLD. */
static void settle(swn_field_t *out, const int16_t *low, const int16_t *high, int32_t factor)
{
    int32_t carry = 0;
    int32_t value;
    unsigned i;

    for (i = 0; i < LIMBS; i++) {
        value = low[i] + factor * high[i] + carry;
        carry = swn_round_shift(value, LIMB_BITS);
        out->limb[i] = (int16_t)(value - carry * LIMB);
    }
    value = out->limb[0] + carry * FOLD;
    carry = swn_round_shift(value, LIMB_BITS);
    out->limb[0] = (int16_t)(value - carry * LIMB);
    out->limb[1] = (int16_t)(out->limb[1] + carry);
}

void swn_field_add(swn_field_t *out, const swn_field_t *a, const swn_field_t *b)
{
    settle(out, a->limb, b->limb, 1);
}

void swn_field_subtract(swn_field_t *out, const swn_field_t *a, const swn_field_t *b)
{
    settle(out, a->limb, b->limb, -1);
}

/* (a, b) = (a + b, a - b) */
void swn_field_cross(swn_field_t *a, swn_field_t *b)
{
    const swn_field_t before = *a;

    swn_field_add(a, &before, b);
    swn_field_subtract(b, &before, b);
}

void swn_field_multiply(swn_field_t *out, const swn_field_t *a, const swn_field_t *b)
{
    int16_t columns[2 * LIMBS];
    int32_t sum = 0;
    unsigned k;

    for (k = 0; k < 2 * LIMBS - 1; k++) {
        const int16_t *left = a->limb + (k < LIMBS ? 0 : k - LIMBS + 1);
        const int16_t *right = b->limb + (k < LIMBS ? k : LIMBS - 1);
        unsigned products = k < LIMBS ? k + 1 : 2 * LIMBS - 1 - k;
        int32_t carry;

        do {
            sum += (int32_t)*left++ * *right--;
        } while (--products > 0);
        carry = swn_round_shift(sum, LIMB_BITS);
        columns[k] = (int16_t)(sum - carry * LIMB);
        sum = carry;
    }
    columns[k] = (int16_t)sum;
    settle(out, columns, columns + LIMBS, FOLD);
}

/* a * a: of two equal products one is computed. */
void swn_field_square(swn_field_t *out, const swn_field_t *a)
{
    int16_t columns[2 * LIMBS];
    int32_t carry = 0;
    unsigned k;

    for (k = 0; k < 2 * LIMBS - 1; k++) {
        const int16_t *left = a->limb + (k < LIMBS ? 0 : k - LIMBS + 1);
        const int16_t *right = a->limb + (k < LIMBS ? k : LIMBS - 1);
        int32_t sum = 0;

        while (left < right) {
            sum += (int32_t)*left++ * *right--;
        }
        sum = 2 * sum + (left == right ? (int32_t)*left * *left : 0) + carry;
        carry = swn_round_shift(sum, LIMB_BITS);
        columns[k] = (int16_t)(sum - carry * LIMB);
    }
    columns[k] = (int16_t)carry;
    settle(out, columns, columns + LIMBS, FOLD);
}

/* a^(2^squarings) * b */
void swn_field_raise(swn_field_t *out, const swn_field_t *a, unsigned squarings, const swn_field_t *b)
{
    swn_field_t power = *a;

    while (squarings-- > 0) {
        swn_field_square(&power, &power);
    }
    swn_field_multiply(out, &power, b);
}

/* a^(2^250 - 1): the ones of the exponent are doubled, and one appended where 250 has a bit. */
void swn_field_power_of_ones(swn_field_t *out, const swn_field_t *a)
{
    swn_field_t power = *a;
    unsigned bit;
    unsigned ones = 1;

    for (bit = 1u << 6; bit != 0; bit >>= 1) {
        swn_field_raise(&power, &power, ones, &power);
        ones *= 2;
        if (250u & bit) {
            swn_field_raise(&power, &power, 1, a);
            ones++;
        }
    }
    *out = power;
}

/* 1 / a = a^(2^255 - 21) */
void swn_field_invert(swn_field_t *out, const swn_field_t *a)
{
    swn_field_t eleventh;
    swn_field_t power;

    swn_field_raise(&eleventh, a, 2, a); /* 5 */
    swn_field_raise(&eleventh, &eleventh, 1, a); /* 11 */
    swn_field_power_of_ones(&power, a);
    swn_field_raise(out, &power, 5, &eleventh);
}

static void carry_through(int32_t *limb)
{
    int32_t carry;
    unsigned i;

    for (i = 0; i < LIMBS - 1; i++) {
        carry = swn_asr(limb[i], LIMB_BITS);
        limb[i] -= carry * LIMB;
        limb[i + 1] += carry;
    }
    carry = swn_asr(limb[LIMBS - 1], TOP_BITS);
    limb[LIMBS - 1] -= carry * (1 << TOP_BITS);
    limb[0] += 19 * carry;
}

/* The one encoding below p, 32 bytes. */
void swn_field_pack(uint8_t out[SWN_FIELD_SIZE], const swn_field_t *a)
{
    int32_t limb[LIMBS];
    uint32_t bits = 0;
    unsigned held = 0;
    unsigned i;

    for (i = 0; i < LIMBS; i++) {
        limb[i] = a->limb[i];
    }
    carry_through(limb);
    carry_through(limb); /* now 0 <= a < 2^255; a + 19 overflows exactly when a >= p, and is then a - p */
    limb[0] += 19;
    carry_through(limb);
    limb[0] -= 19;
    carry_through(limb);
    for (i = 0; i < LIMBS; i++) {
        bits |= (uint32_t)limb[i] << held;
        for (held += LIMB_BITS; held >= 8; held -= 8) {
            *out++ = (uint8_t)(bits & 255u);
            bits >>= 8;
        }
    }
}

/* The low 255 bits of 32 bytes; p and more is taken modulo p. */
void swn_field_unpack(swn_field_t *out, const uint8_t bytes[SWN_FIELD_SIZE])
{
    int16_t limb[LIMBS];
    uint32_t bits = 0;
    unsigned held = 0;
    unsigned i;

    for (i = 0; i < LIMBS; i++) {
        const unsigned wanted = i < LIMBS - 1 ? LIMB_BITS : TOP_BITS;

        for (; held < wanted; held += 8) {
            bits |= (uint32_t)*bytes++ << held;
        }
        limb[i] = (int16_t)(bits & ((1u << wanted) - 1u));
        bits >>= wanted;
        held -= wanted;
    }
    settle(out, limb, limb, 0);
}

uint8_t swn_field_is_odd(const swn_field_t *a)
{
    uint8_t packed[SWN_FIELD_SIZE];

    swn_field_pack(packed, a);
    return packed[0] & 1u;
}

uint8_t swn_field_is_zero(const swn_field_t *a)
{
    static const uint8_t NOTHING[SWN_FIELD_SIZE];
    uint8_t packed[SWN_FIELD_SIZE];

    swn_field_pack(packed, a);
    return memcmp(packed, NOTHING, sizeof packed) == 0;
}
