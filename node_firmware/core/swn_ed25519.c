/* Ed25519 verification; see swn_ed25519.h. The curve is -x^2 + y^2 = 1 + d x^2 y^2 modulo p = 2^255 - 19. */
#include "swn_ed25519.h"

#include <string.h>

#include "swn_field.h"
#include "swn_math.h"

enum { WORDS = 8, ORDER_BITS = 253 };

/* x = X / Z, y = Y / Z, T = X Y / Z. */
typedef struct point {
    swn_field_t x;
    swn_field_t y;
    swn_field_t z;
    swn_field_t t;
} point_t;

/* A point as the second operand of an addition. */
typedef struct addend {
    swn_field_t sum;        /* Y + X */
    swn_field_t difference; /* Y - X */
    swn_field_t z2;         /* 2 Z */
    swn_field_t dt2;        /* 2 d T */
} addend_t;

static const swn_field_t ZERO = {{0}};
static const swn_field_t ONE = {{1}};
static const swn_field_t CURVE_D = {{-1885, -1332, -3451, -2404, -2209, 3158, 1287, 2472, -4086, 4, -1498, 3828, 1943,
                                     928, 3635, -50, 2928, 1905, 219, 164}};
static const swn_field_t CURVE_2D = {{-3751, -2664, 1290, 3383, 3773, -1877, 2575, -3248, 21, 7, -2996, -536, 3887, 1856,
                                      -922, -99, -2336, 3811, 438, 72}};
static const swn_field_t ROOT_OF_MINUS_ONE = {{176, -3979, 2515, -970, 3151, -3524, -2880, 214, 792, -1670, -2582, -1032,
                                               2452, 1664, 3245, -1055, 4034, 1026, 201, 87}};
/* B, with y = 4/5 and an even x. */
static const addend_t BASE = {
    {{-1147, 3170, -3651, -1752, -3332, 1805, 3632, -1825, -3282, -2435, -3919, 2171, 2438, 1444, -2916, -2227, -3115,
      2514, -3097, 16}},
    {{-3778, -1531, 374, 114, -1583, -166, 1283, 186, -1633, 4074, 642, -3809, 839, 194, -361, 589, -1800, -875, -180,
      138}},
    {{2}},
    {{2664, -1067, 354, -3548, 2749, 591, -3413, 1146, -1560, 311, -2461, -1401, -834, 3519, 360, 3253, -244, -1211,
      1119, 222}}};
/* L, the order of B: 2^252 + 27742317777372353535851937790883648493. */
static const uint32_t ORDER[WORDS] = {0x5CF5D3EDu, 0x5812631Au, 0xA2F79CD6u, 0x14DEF9DEu, 0, 0, 0, 0x10000000u};

/* Points ------------------------------------------------------------------------------------------- */

/* Both operations end with x = E / G, y = H / F (Hisil, Wong, Carter, Dawson 2008, 3.1 and 3.3, a = -1); T is left
 * out where no addition follows. */
static void finish(point_t *out, const swn_field_t *e, const swn_field_t *f, const swn_field_t *g, const swn_field_t *h,
                   unsigned with_t)
{
    swn_field_multiply(&out->x, e, f);
    swn_field_multiply(&out->y, g, h);
    swn_field_multiply(&out->z, f, g);
    if (with_t) {
        swn_field_multiply(&out->t, e, h);
    }
}

static void point_double(point_t *p, unsigned with_t)
{
    swn_field_t e;
    swn_field_t f;
    swn_field_t g;
    swn_field_t h;

    swn_field_add(&e, &p->x, &p->y);
    swn_field_square(&e, &e);
    swn_field_square(&f, &p->x);
    swn_field_square(&g, &p->y);
    swn_field_add(&h, &f, &g);
    swn_field_subtract(&e, &h, &e); /* -2 X Y; all four signs are turned, which cancels out */
    swn_field_subtract(&g, &f, &g); /* X^2 - Y^2 */
    swn_field_square(&f, &p->z);
    swn_field_add(&f, &f, &f);
    swn_field_add(&f, &f, &g); /* 2 Z^2 + X^2 - Y^2 */
    finish(p, &e, &f, &g, &h, with_t);
}

/* Complete: equal, opposite and neutral points are nothing special. */
static void point_add(point_t *p, const addend_t *q, unsigned with_t)
{
    swn_field_t e;
    swn_field_t f;
    swn_field_t g;
    swn_field_t h;

    swn_field_add(&h, &p->y, &p->x);
    swn_field_subtract(&e, &p->y, &p->x);
    swn_field_multiply(&h, &h, &q->sum);
    swn_field_multiply(&e, &e, &q->difference);
    swn_field_multiply(&g, &p->z, &q->z2);
    swn_field_multiply(&f, &p->t, &q->dt2);
    swn_field_cross(&h, &e);
    swn_field_cross(&g, &f);
    finish(p, &e, &f, &g, &h, with_t);
}

static void as_addend(addend_t *out, const point_t *p)
{
    swn_field_add(&out->sum, &p->y, &p->x);
    swn_field_subtract(&out->difference, &p->y, &p->x);
    swn_field_add(&out->z2, &p->z, &p->z);
    swn_field_multiply(&out->dt2, &p->t, &CURVE_2D);
}

/* The point of an encoding with its x negated; 0 when there is none (RFC 8032, 5.1.3). */
static uint8_t read_negated(point_t *out, const uint8_t *encoded)
{
    swn_field_t u;
    swn_field_t v;
    swn_field_t x;
    swn_field_t check;

    swn_field_unpack(&out->y, encoded);
    swn_field_square(&u, &out->y);
    swn_field_multiply(&v, &u, &CURVE_D);
    swn_field_subtract(&u, &u, &ONE);
    swn_field_add(&v, &v, &ONE);
    /* The root of u / v, or of -u / v: u v^3 (u v^7)^(2^252 - 3). */
    swn_field_square(&check, &v);
    swn_field_multiply(&check, &check, &v);
    swn_field_multiply(&x, &check, &u); /* u v^3 */
    swn_field_square(&check, &check);
    swn_field_multiply(&check, &check, &v);
    swn_field_multiply(&check, &check, &u); /* u v^7 */
    swn_field_power_of_ones(&out->t, &check);
    swn_field_raise(&check, &out->t, 2, &check);
    swn_field_multiply(&x, &x, &check);
    swn_field_square(&check, &x);
    swn_field_multiply(&check, &check, &v);
    swn_field_cross(&check, &u);
    if (!swn_field_is_zero(&u)) {
        if (!swn_field_is_zero(&check)) {
            return 0;
        }
        swn_field_multiply(&x, &x, &ROOT_OF_MINUS_ONE);
    }
    if (swn_field_is_odd(&x) == encoded[SWN_PUBLIC_KEY_SIZE - 1] >> 7) {
        swn_field_subtract(&x, &ZERO, &x);
    }
    out->x = x;
    out->z = ONE;
    swn_field_multiply(&out->t, &out->x, &out->y);
    return 1;
}

/* Eight times the point is nothing: four times it has x = 0. */
static uint8_t is_small_order(const point_t *p)
{
    point_t multiple = *p;

    point_double(&multiple, 0);
    point_double(&multiple, 0);
    return swn_field_is_zero(&multiple.x);
}

static void point_pack(uint8_t *out, const point_t *p)
{
    swn_field_t inverse;
    swn_field_t coordinate;

    swn_field_invert(&inverse, &p->z);
    swn_field_multiply(&coordinate, &p->y, &inverse);
    swn_field_pack(out, &coordinate);
    swn_field_multiply(&coordinate, &p->x, &inverse);
    out[SWN_PUBLIC_KEY_SIZE - 1] = (uint8_t)(out[SWN_PUBLIC_KEY_SIZE - 1] | (unsigned)swn_field_is_odd(&coordinate) << 7);
}

/* Scalars ------------------------------------------------------------------------------------------ */

static uint8_t is_below_order(const uint32_t *scalar)
{
    unsigned i;

    for (i = WORDS; i-- > 0;) {
        if (scalar[i] != ORDER[i]) {
            return scalar[i] < ORDER[i];
        }
    }
    return 0;
}

static unsigned bit_of(const uint32_t *scalar, unsigned bit)
{
    return scalar[bit / 32u] >> bit % 32u & 1u;
}

/* The digest modulo L, bit by bit from the top. */
static void reduce(uint32_t *scalar, const uint8_t *digest)
{
    unsigned bit;
    unsigned i;

    memset(scalar, 0, WORDS * sizeof scalar[0]);
    for (bit = 8 * SWN_SHA512_SIZE; bit-- > 0;) {
        uint32_t carry = (uint32_t)digest[bit / 8u] >> bit % 8u & 1u;

        for (i = 0; i < WORDS; i++) {
            const uint32_t word = scalar[i];
            scalar[i] = word << 1 | carry;
            carry = word >> 31;
        }
        if (!is_below_order(scalar)) {
            uint32_t borrow = 0;

            for (i = 0; i < WORDS; i++) {
                const uint32_t word = scalar[i];
                scalar[i] = word - ORDER[i] - borrow;
                borrow = word < ORDER[i] || (word == ORDER[i] && borrow);
            }
        }
    }
}

/* [s] B + [k] P, the bits of both together. */
static void combine(point_t *out, const uint32_t *s, const uint32_t *k, const point_t *p)
{
    addend_t other;
    addend_t both;
    unsigned bit;

    as_addend(&other, p);
    *out = *p;
    point_add(out, &BASE, 1);
    as_addend(&both, out);
    memset(out, 0, sizeof *out);
    out->y = ONE;
    out->z = ONE;
    for (bit = ORDER_BITS; bit-- > 0;) {
        const unsigned in_s = bit_of(s, bit);
        const unsigned in_k = bit_of(k, bit);

        point_double(out, in_s | in_k);
        if (in_s | in_k) {
            point_add(out, in_s & in_k ? &both : in_s ? &BASE : &other, 0);
        }
    }
}

/* The check ---------------------------------------------------------------------------------------- */

void swn_ed25519_init(swn_ed25519_t *check, const uint8_t signature[SWN_SIGNATURE_SIZE],
                      const uint8_t public_key[SWN_PUBLIC_KEY_SIZE])
{
    memcpy(check->signature, signature, SWN_SIGNATURE_SIZE);
    memcpy(check->public_key, public_key, SWN_PUBLIC_KEY_SIZE);
    swn_sha512_init(&check->hash);
    swn_sha512_update(&check->hash, signature, SWN_SIGNATURE_SIZE / 2);
    swn_sha512_update(&check->hash, public_key, SWN_PUBLIC_KEY_SIZE);
}

void swn_ed25519_update(swn_ed25519_t *check, const uint8_t *data, size_t size)
{
    swn_sha512_update(&check->hash, data, size);
}

uint8_t swn_ed25519_final(swn_ed25519_t *check)
{
    uint8_t bytes[SWN_SHA512_SIZE];
    uint32_t s[WORDS];
    uint32_t k[WORDS];
    point_t key;
    point_t point;
    unsigned i;

    for (i = 0; i < WORDS; i++) {
        s[i] = swn_get32(check->signature + SWN_SIGNATURE_SIZE / 2 + 4u * i);
    }
    if (!is_below_order(s) || !read_negated(&key, check->public_key) || is_small_order(&key)) {
        return 0;
    }
    swn_sha512_final(&check->hash, bytes);
    reduce(k, bytes);
    combine(&point, s, k, &key);
    point_pack(bytes, &point);
    return memcmp(bytes, check->signature, SWN_SIGNATURE_SIZE / 2) == 0;
}
