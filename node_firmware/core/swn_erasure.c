/* The erasure code of TS004; see swn_erasure.h. */
#include "swn_erasure.h"

#include <string.h>

#include "swn_math.h"

enum { REGISTER_STEP = 1001, REGISTER_TOP = 22, NUMBER_SIZE = 2 };

static unsigned has_bit(const uint8_t *bits, unsigned at)
{
    return (unsigned)bits[at / 8u] >> at % 8u & 1u;
}

static void set_bit(uint8_t *bits, unsigned at)
{
    bits[at / 8u] = (uint8_t)(bits[at / 8u] | 1u << at % 8u);
}

static void mix(uint8_t *to, const uint8_t *from, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        to[i] ^= from[i];
    }
}

void swn_parity_row(uint16_t n, uint16_t count, uint8_t version, uint8_t *row)
{
    /* A power of two divides the register's period too well: the modulus is then one larger. */
    const uint32_t modulus = (uint32_t)count + ((count & (count - 1u)) == 0);
    uint32_t state = 1u + (uint32_t)REGISTER_STEP * n;
    unsigned left = count / 2u;

    memset(row, 0, ((size_t)count + 7u) / 8u);
    while (left > 0) {
        uint32_t piece;

        state = state >> 1 | ((state ^ state >> 5) & 1u) << REGISTER_TOP;
        piece = state % modulus;
        if (piece < count) {
            /* Version 1 counts a piece that is drawn again, version 2 does not. */
            left -= version < 2 || !has_bit(row, piece);
            set_bit(row, piece);
        }
    }
}

void swn_erasure_init(swn_erasure_t *erasure, const swn_flash_t *flash, uint8_t *memory, size_t memory_size,
                      uint16_t count, uint8_t piece_size, uint8_t version)
{
    memset(erasure, 0, sizeof *erasure);
    erasure->flash = flash;
    erasure->memory = memory;
    erasure->memory_size = memory_size;
    erasure->count = count;
    erasure->piece_size = piece_size;
    erasure->version = version;
}

void swn_erasure_complete(swn_erasure_t *erasure)
{
    erasure->stored = erasure->count;
}

uint16_t swn_erasure_missing(const swn_erasure_t *erasure)
{
    if (erasure->rank < erasure->lost) {
        return (uint16_t)(erasure->lost - erasure->rank);
    }
    return (uint16_t)(erasure->count - erasure->stored);
}

/* `memory`: the numbers of the lost pieces, ascending; then for each of them a row of bits and the bytes beside it. A
 * row that is there has the bit of its own unknown. */
static unsigned lost_piece(const swn_erasure_t *erasure, unsigned unknown)
{
    return swn_get16(erasure->memory + (size_t)NUMBER_SIZE * unknown);
}

static size_t row_bytes(unsigned lost)
{
    return (lost + 7u) / 8u;
}

static uint8_t *row_of(const swn_erasure_t *erasure, unsigned unknown)
{
    const size_t entry = row_bytes(erasure->lost) + erasure->piece_size;

    return erasure->memory + (size_t)NUMBER_SIZE * erasure->lost + entry * unknown;
}

/* Fixes the unknowns; 0 when the memory has no room for so many. */
static uint8_t fix_lost(swn_erasure_t *erasure)
{
    const unsigned lost = (unsigned)(erasure->count - erasure->stored);
    const size_t needed = lost * (NUMBER_SIZE + row_bytes(lost) + erasure->piece_size);
    uint8_t *number = erasure->memory;
    unsigned piece;

    if (lost > SWN_LOST_MAX || needed > erasure->memory_size) {
        return 0;
    }
    memset(erasure->memory, 0, needed);
    for (piece = 0; piece < erasure->count; piece++) {
        if (!has_bit(erasure->in_flash, piece)) {
            number[0] = (uint8_t)(piece & 0xFFu);
            number[1] = (uint8_t)(piece >> 8);
            number += NUMBER_SIZE;
        }
    }
    erasure->lost = (uint16_t)lost;
    return 1;
}

/* Writes a piece to its place, unless it is there. */
static void store(swn_erasure_t *erasure, unsigned piece, const uint8_t *data)
{
    const swn_flash_t *flash = erasure->flash;
    const uint32_t offset = (uint32_t)piece * erasure->piece_size;

    if (!has_bit(erasure->in_flash, piece) && flash->write(flash->user, offset, data, erasure->piece_size)) {
        set_bit(erasure->in_flash, piece);
        erasure->stored++;
    }
}

/* As many equations as unknowns: the last row has one unknown, each before it only known ones beside its own. */
static void solve(swn_erasure_t *erasure)
{
    const size_t bits = row_bytes(erasure->lost);
    unsigned unknown = erasure->lost;

    while (unknown-- > 0) {
        uint8_t *row = row_of(erasure, unknown);
        unsigned other;

        for (other = unknown + 1; other < erasure->lost; other++) {
            if (has_bit(row, other)) {
                mix(row + bits, row_of(erasure, other) + bits, erasure->piece_size);
            }
        }
        memset(row, 0, bits); /* solved, should a write fail and all this be done again */
        set_bit(row, unknown);
        store(erasure, lost_piece(erasure, unknown), row + bits);
    }
}

/* One more equation: `row` over the unknowns, `value` beside it; both are changed. */
static void add_equation(swn_erasure_t *erasure, uint8_t *row, uint8_t *value)
{
    const size_t bits = row_bytes(erasure->lost);
    unsigned unknown;

    for (unknown = 0; unknown < erasure->lost; unknown++) {
        uint8_t *kept = row_of(erasure, unknown);

        if (!has_bit(row, unknown)) {
            continue;
        }
        if (!has_bit(kept, unknown)) {
            memcpy(kept, row, bits);
            memcpy(kept + bits, value, erasure->piece_size);
            erasure->rank++;
            return;
        }
        mix(row, kept, bits);
        mix(value, kept + bits, erasure->piece_size);
    }
}

/* The equation that parity fragment n makes, into `row` and `value`; 0 when the flash cannot be read. */
static uint8_t parity_equation(const swn_erasure_t *erasure, uint16_t n, uint8_t *row, uint8_t *value)
{
    const swn_flash_t *flash = erasure->flash;
    uint8_t pieces[SWN_PIECES_MAX / 8];
    uint8_t known[SWN_PIECE_MAX];
    unsigned unknown = 0;
    unsigned piece;

    swn_parity_row(n, erasure->count, erasure->version, pieces);
    for (piece = 0; piece < erasure->count; piece++) {
        const unsigned is_lost = unknown < erasure->lost && lost_piece(erasure, unknown) == piece;

        if (has_bit(pieces, piece)) {
            if (is_lost) {
                set_bit(row, unknown);
            } else if (flash->read(flash->user, (uint32_t)piece * erasure->piece_size, known, erasure->piece_size)) {
                mix(value, known, erasure->piece_size);
            } else {
                return 0;
            }
        }
        unknown += is_lost;
    }
    return 1;
}

uint8_t swn_erasure_take(swn_erasure_t *erasure, uint16_t n, const uint8_t *data)
{
    uint8_t row[SWN_LOST_MAX / 8];
    uint8_t value[SWN_PIECE_MAX];
    unsigned unknown;

    if (erasure->stored == erasure->count || n == 0 || n > SWN_PARITY_MAX) {
        return (uint8_t)(erasure->stored == erasure->count);
    }
    memset(row, 0, sizeof row);
    memcpy(value, data, erasure->piece_size);
    if (n > erasure->count) {
        if (erasure->lost == 0 && !fix_lost(erasure)) {
            erasure->memory_error = 1;
            return 0;
        }
        erasure->memory_error = 0;
        if (erasure->rank < erasure->lost &&
            parity_equation(erasure, (uint16_t)(n - erasure->count), row, value)) {
            add_equation(erasure, row, value);
        }
    } else if (erasure->lost == 0) {
        store(erasure, n - 1u, data);
    } else if (erasure->rank < erasure->lost) {
        for (unknown = 0; unknown < erasure->lost; unknown++) {
            if (lost_piece(erasure, unknown) == n - 1u) {
                set_bit(row, unknown);
                add_equation(erasure, row, value);
                break;
            }
        }
    }
    if (erasure->lost > 0 && erasure->rank == erasure->lost) {
        solve(erasure);
    }
    return (uint8_t)(erasure->stored == erasure->count);
}
