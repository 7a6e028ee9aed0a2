/* The erasure code of TS004 on a node: pieces and parity become a block in flash.
 *
 * Theory of operation.  A piece of the block that comes is written to flash at its place and costs one bit of RAM. The
 * first parity fragment fixes what is lost: every piece that is not in flash by then is an unknown. Each fragment from
 * then on (parity, or a lost piece that is sent again) is one equation over the unknowns: pieces that are in flash are
 * taken out of it, then earlier equations (Gaussian elimination). What is left is kept in RAM, as a row of bits and the
 * bytes beside it, at the row of its first unknown. With as many equations as unknowns, the lost pieces are solved from
 * the last to the first and written: each byte of flash is written once.
 *
 * RAM holds the lost pieces only, in `memory` of the caller: each costs its bytes, a row of bits and two bytes. When
 * more are lost than it has room for, parity is useless, `memory_error` says so, and the pieces themselves must be sent
 * again until few enough are lost.
 */
#ifndef SWN_ERASURE_H
#define SWN_ERASURE_H

#include <stddef.h>
#include <stdint.h>

enum {
    SWN_PIECES_MAX = 1024,     /* of a block */
    SWN_PIECE_MAX = 239,       /* bytes of a piece: 242 less the header of its frame */
    SWN_LOST_MAX = 256,        /* unknowns, whatever the memory */
    SWN_ERASURE_MEMORY = 8192, /* a block of 20 kB at 20 % loss needs 4 to 6 kB, according to the data rate */
    SWN_PARITY_MAX = 16383     /* the last number that a fragment can have */
};

typedef enum swn_open {
    SWN_OPEN_YES = 0,
    SWN_OPEN_NO_ROOM,  /* for so many bytes */
    SWN_OPEN_UNWANTED  /* a block with this descriptor */
} swn_open_t;

/* Where a block is put together. The calls give 1 when it is done, 0 when not. Offsets count from the first byte. */
typedef struct swn_flash {
    void *user;
    /* Prepares for a block of so many bytes, its last piece filled up: all of them are erased. When it says no, what is
     * there stays. */
    swn_open_t (*open)(void *user, const uint8_t descriptor[4], uint32_t size);
    uint8_t (*write)(void *user, uint32_t offset, const uint8_t *data, size_t size);
    uint8_t (*read)(void *user, uint32_t offset, uint8_t *data, size_t size);
    /* The first byte, aligned to 4, where the flash can be read as memory, else NULL; may be NULL itself. */
    const uint8_t *(*map)(void *user);
} swn_flash_t;

typedef struct swn_erasure {
    const swn_flash_t *flash;
    uint8_t *memory;
    size_t memory_size;
    uint16_t count;  /* pieces of the block */
    uint16_t stored; /* of them in flash */
    uint16_t lost;   /* unknowns; 0 while no parity came */
    uint16_t rank;   /* equations */
    uint8_t piece_size;
    uint8_t version;
    uint8_t memory_error;
    uint8_t in_flash[SWN_PIECES_MAX / 8];
} swn_erasure_t;

/* The pieces (bit i % 8 of byte i / 8: piece i) in parity fragment n = 1.. of a block of `count` pieces, as version 1
 * or 2 of the standard draws them. `row` has (count + 7) / 8 bytes. */
void swn_parity_row(uint16_t n, uint16_t count, uint8_t version, uint8_t *row);

/* Begins a block of 1..SWN_PIECES_MAX pieces of 1..SWN_PIECE_MAX bytes in a flash that is open for it. */
void swn_erasure_init(swn_erasure_t *erasure, const swn_flash_t *flash, uint8_t *memory, size_t memory_size,
                      uint16_t count, uint8_t piece_size, uint8_t version);

/* All pieces are in flash from the outset. */
void swn_erasure_complete(swn_erasure_t *erasure);

/* Takes fragment n = 1..SWN_PARITY_MAX, of piece_size bytes; 1 when the block is whole. */
uint8_t swn_erasure_take(swn_erasure_t *erasure, uint16_t n, const uint8_t *data);

/* Independent fragments that are still needed; 0: the block is whole. */
uint16_t swn_erasure_missing(const swn_erasure_t *erasure);

#endif
