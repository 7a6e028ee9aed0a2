/* Integer arithmetic that gives the same bits on every machine: shifts, saturation, exp, log, PRNG, CRC. */
#ifndef SWN_MATH_H
#define SWN_MATH_H

#include <stddef.h>
#include <stdint.h>

/* Arithmetic shift right, floor(value / 2^bits), bits 0..31. C99 leaves a negative value's right shift to
 * the compiler; where it is arithmetic (every target we know) it is used, elsewhere it is spelled out. */
#if ((-1) >> 1) == -1 && !defined(SWN_SHIFT_SPELLED_OUT)
#define SWN_SHIFT_IS_ARITHMETIC 1
#else
#define SWN_SHIFT_IS_ARITHMETIC 0
#endif

static inline int32_t swn_asr(int32_t value, unsigned bits)
{
#if SWN_SHIFT_IS_ARITHMETIC
    return value >> bits;
#else
    return value < 0 ? ~(~value >> bits) : value >> bits;
#endif
}

/* Shift right to the nearest, halves upwards; bits 1..30, |value| <= 2^30. */
static inline int32_t swn_round_shift(int32_t value, unsigned bits)
{
    return swn_asr(value + (int32_t)((uint32_t)1 << (bits - 1u)), bits);
}

static inline int32_t swn_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

static inline int8_t swn_sat8(int32_t value)
{
    return (int8_t)swn_clamp(value, -128, 127);
}

static inline int16_t swn_sat16(int32_t value)
{
    return (int16_t)swn_clamp(value, -32768, 32767);
}

/* xorshift32 (Marsaglia 2003, triple 13/17/5): state must never be 0. */
static inline uint32_t swn_xorshift32(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    *state = x;
    return x;
}

/* A PRNG state from any seed: a multiply-xorshift hash, never 0. */
uint32_t swn_seed32(uint64_t seed);

/* exp(-distance) in Q15 (32768 = 1.0) for a distance in Q13, distance >= 0; 0 beyond 11.0. */
int32_t swn_exp_neg_q15(int32_t distance_q13);

/* ln(value / 32768) + ln(32768) in Q13, that is ln of the integer value, value >= 1. */
int32_t swn_ln_q13(uint32_t value);

/* CRC-32 (IEEE 802.3, reflected, as zlib); start with crc = 0, chain by handing in the last result. */
uint32_t swn_crc32(uint32_t crc, const uint8_t *data, size_t size);

/* Little-endian reads of unaligned bytes. */
static inline uint16_t swn_get16(const uint8_t *p)
{
    return (uint16_t)((uint32_t)p[0] | (uint32_t)p[1] << 8);
}

static inline uint32_t swn_get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The signed value whose two's complement bits these are, without an implementation-defined cast. */
static inline int16_t swn_signed16(uint16_t bits)
{
    return (int16_t)((int32_t)(bits ^ 0x8000u) - 0x8000);
}

static inline int32_t swn_signed32(uint32_t bits)
{
    return bits <= 0x7FFFFFFFu ? (int32_t)bits : -(int32_t)(0xFFFFFFFFu - bits) - 1;
}

#endif
