/* Model blocks: a block's pieces put together again, and what a whole block does to the parameters.
 *
 * Theory of operation.  A block travels as `count` pieces; each carries the block's whole header, so that
 * any piece can open it, in any order, with duplicates.  One block is assembled at a time: a piece of
 * another block replaces what is there.  Pieces of the version that the node has, and DELTAs on a base
 * that it does not have, open nothing.  When all pieces are there the CRC-32 of the whole decides, then
 * the signature, then the contents are checked completely before the first parameter changes: a block applies
 * whole or not.
 *
 * With a signer the last 64 bytes of a block are his signature of "SWNB", kind, version, base version and
 * the bytes before it, and only versions ahead of the node's open anything, so that no old block comes again.
 * Whoever has the group's key may spoil a block that is being put together, and no more.  Without a signer (benches
 * and rigs) blocks have no signature, and any other version is taken.
 */
#ifndef SWN_BLOCK_H
#define SWN_BLOCK_H

#include <stdint.h>

#include "swn_ed25519.h"
#include "swn_frame.h"
#include "swn_model.h"

enum { SWN_VERSIONS = 65535 }; /* they count modulo this */
enum { SWN_SHIFT_INT8_MAX = 8, SWN_SHIFT_INT4_MAX = 12, SWN_BLOCK_PIECES_MAX = 255 };

/* What federated rounds change: 1.0 = 4096 in the adapter, 256 in the heads. */
typedef struct swn_parameters {
    uint16_t model_version; /* 0: as shipped in the container */
    uint16_t head_size;     /* of the container: how much of each head is in use */
    int16_t adapter[SWN_ADAPTER_SIZE];
    int16_t heads[SWN_CONTEXT_MAX][SWN_HEAD_SIZE_MAX];
} swn_parameters_t;

/* The block that is being put together. */
typedef struct swn_block {
    uint32_t crc32;
    uint16_t version;
    uint16_t base_version;
    uint16_t length;
    uint8_t kind;
    uint8_t count; /* pieces; 0: no block is open */
    uint8_t have;  /* pieces that came */
    uint8_t seen[(SWN_BLOCK_PIECES_MAX + 7) / 8];
    uint8_t data[SWN_BLOCK_SIZE_MAX];
} swn_block_t;

typedef enum swn_block_result {
    SWN_PIECE_IGNORED = 0, /* duplicate, or of a block that the node has or cannot use */
    SWN_PIECE_STORED,
    SWN_BLOCK_APPLIED,
    SWN_BLOCK_REFUSED /* all pieces came, but the CRC, the signature or the contents are wrong */
} swn_block_result_t;

/* Whose blocks are taken. */
typedef struct swn_signer {
    const uint8_t *public_key; /* 32 B; NULL: blocks are not signed */
    swn_verify_t verify;       /* NULL: swn_ed25519_final() */
    void *ctx;
} swn_signer_t;

/* Checks a signature over "SWNB" and what swn_ed25519_update() is given between these two; 1: it is genuine. */
void swn_signer_begin(const swn_signer_t *signer, swn_ed25519_t *check, const uint8_t signature[SWN_SIGNATURE_SIZE]);
uint8_t swn_signer_final(const swn_signer_t *signer, swn_ed25519_t *check);

/* The parameters as shipped. */
void swn_parameters_init(swn_parameters_t *parameters, const swn_model_t *model);

/* Takes one piece (valid by swn_frame_read) and applies the block when it was the last one. */
swn_block_result_t swn_block_take(swn_block_t *block, const swn_piece_t *piece, swn_parameters_t *parameters,
                                  const swn_signer_t *signer);

/* Applies a whole block's contents; 0 (and nothing changed) when it must be refused. */
uint8_t swn_parameters_apply(swn_parameters_t *parameters, uint16_t version, uint16_t base_version, uint8_t kind,
                             const uint8_t *data, uint16_t length);

#endif
