/* Integer exp, ln, seeding and CRC-32: tables and interpolation only. */
#include "swn_math.h"

/* 2^(-i/32) in Q15, i = 0..32. */
static const uint16_t exp2_neg_table[33] = {
    32768, 32066, 31379, 30706, 30048, 29405, 28774, 28158, 27554, 26964, 26386,
    25821, 25268, 24726, 24196, 23678, 23170, 22674, 22188, 21713, 21247, 20792,
    20347, 19911, 19484, 19066, 18658, 18258, 17867, 17484, 17109, 16743, 16384,
};

/* ln(1 + i/32) in Q13, i = 0..32. */
static const uint16_t ln_table[33] = {
    0, 252, 497, 734, 965, 1189, 1408, 1621, 1828, 2030, 2228,
    2420, 2609, 2793, 2973, 3149, 3322, 3490, 3656, 3818, 3977, 4133,
    4286, 4437, 4584, 4729, 4872, 5012, 5150, 5285, 5418, 5549, 5678,
};

/* CRC-32 of the 16 nibbles: 64 bytes of flash instead of 1 KiB, two steps a byte. */
static const uint32_t crc_table[16] = {
    0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu,
    0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
    0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu,
    0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
};

uint32_t swn_seed32(uint64_t seed)
{
    uint32_t h = (uint32_t)seed * 2654435761u ^ (uint32_t)(seed >> 32) * 2246822519u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    h *= 3266489917u;
    h ^= h >> 16;
    return h != 0u ? h : 0x9E3779B9u;
}

int32_t swn_exp_neg_q15(int32_t distance_q13)
{
    if (distance_q13 >= 11 << 13) {
        return 0;
    }
    /* e^-d = 2^-(d * log2 e); 11818 is log2 e in Q13, and 11 * 2^13 * 11818 stays below 2^31. */
    uint32_t t = (uint32_t)distance_q13 * 11818u >> 13;
    uint32_t whole = t >> 13;
    uint32_t index = t >> 8 & 31u;
    int32_t rest = (int32_t)(t & 255u);
    int32_t high = exp2_neg_table[index];
    int32_t low = exp2_neg_table[index + 1u];
    int32_t value = high - ((high - low) * rest + 128) / 256;
    return value >> whole;
}

int32_t swn_ln_q13(uint32_t value)
{
    unsigned exponent = 0;
    while (value >> exponent > 1u) {
        exponent++;
    }
    /* The mantissa below the leading one, as 5 bits of table index and 10 bits to interpolate. */
    uint32_t fraction = exponent <= 15u ? value << (15u - exponent) : value >> (exponent - 15u);
    fraction &= 0x7FFFu;
    uint32_t index = fraction >> 10;
    int32_t rest = (int32_t)(fraction & 1023u);
    int32_t low = ln_table[index];
    int32_t high = ln_table[index + 1u];
    /* 181704 is ln 2 in Q18. */
    return (int32_t)(exponent * 181704u >> 5) + low + (high - low) * rest / 1024;
}

uint32_t swn_crc32(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ crc_table[crc & 15u];
        crc = crc >> 4 ^ crc_table[crc & 15u];
    }
    return ~crc;
}
