/* Integers modulo p = 2^255 - 19, the coordinates of swn_ed25519.h.
 *
 * A value is the sum of limb[i] * 2^(13 i) with |limb| <= 4120: a column of a product is below 20 * 4120^2 < 2^29, so
 * 32 bits suffice everywhere, and a processor without a long multiplication needs none. Results may be operands.
 */
#ifndef SWN_FIELD_H
#define SWN_FIELD_H

#include <stdint.h>

enum { SWN_FIELD_LIMBS = 20, SWN_FIELD_SIZE = 32 };

typedef struct swn_field {
    int16_t limb[SWN_FIELD_LIMBS];
} swn_field_t;

void swn_field_add(swn_field_t *out, const swn_field_t *a, const swn_field_t *b);
void swn_field_subtract(swn_field_t *out, const swn_field_t *a, const swn_field_t *b);

/* (a, b) = (a + b, a - b) */
void swn_field_cross(swn_field_t *a, swn_field_t *b);

void swn_field_multiply(swn_field_t *out, const swn_field_t *a, const swn_field_t *b);
void swn_field_square(swn_field_t *out, const swn_field_t *a);

/* a^(2^squarings) * b; a^(2^250 - 1), of which p - 2 and (p - 5) / 8 begin; and 1 / a (0 of 0). */
void swn_field_raise(swn_field_t *out, const swn_field_t *a, unsigned squarings, const swn_field_t *b);
void swn_field_power_of_ones(swn_field_t *out, const swn_field_t *a);
void swn_field_invert(swn_field_t *out, const swn_field_t *a);

/* The one encoding below p, little endian. */
void swn_field_pack(uint8_t out[SWN_FIELD_SIZE], const swn_field_t *a);

/* The low 255 bits of 32 bytes; p and more is taken modulo p. */
void swn_field_unpack(swn_field_t *out, const uint8_t bytes[SWN_FIELD_SIZE]);

uint8_t swn_field_is_zero(const swn_field_t *a);
uint8_t swn_field_is_odd(const swn_field_t *a);

#endif
