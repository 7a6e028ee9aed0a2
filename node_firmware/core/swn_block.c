/* Reassembly and application of model blocks; see swn_block.h. */
#include "swn_block.h"

#include <string.h>

#include "swn_math.h"

enum { FULL_START = 2 + SWN_ADAPTER_SIZE };

void swn_parameters_init(swn_parameters_t *parameters, const swn_model_t *model)
{
    uint8_t context;

    memset(parameters, 0, sizeof *parameters);
    parameters->head_size = swn_head_size(model);
    swn_model_adapter(model, parameters->adapter);
    for (context = 0; context < SWN_CONTEXT_MAX; context++) {
        (void)swn_model_head(model, context, parameters->heads[context]);
    }
}

static int32_t signed_byte(uint8_t byte)
{
    return (int32_t)(byte ^ 0x80u) - 0x80;
}

/* Values of an int8 plane: q << shift, spelled as a product because q may be negative. */
static void read_plane(int16_t *out, const uint8_t *data, unsigned count, uint8_t shift)
{
    unsigned i;

    for (i = 0; i < count; i++) {
        out[i] = (int16_t)(signed_byte(data[i]) * (1 << shift));
    }
}

/* Adds `count` int4 steps that begin at nibble `first`, low nibble first. */
static void add_steps(int16_t *values, const uint8_t *data, unsigned first, unsigned count, uint8_t shift)
{
    unsigned i;

    for (i = 0; i < count; i++) {
        const unsigned at = first + i;
        const int32_t nibble = at % 2u ? data[at / 2u] >> 4 : data[at / 2u] & 15;
        const int32_t step = (nibble ^ 8) - 8;
        values[i] = swn_sat16(values[i] + step * (1 << shift));
    }
}

static unsigned bits_in(uint8_t mask)
{
    unsigned count = 0;

    for (; mask != 0; mask = (uint8_t)(mask & (mask - 1u))) {
        count++;
    }
    return count;
}

static uint8_t apply_heads(swn_parameters_t *parameters, const uint8_t *data, uint16_t length)
{
    const unsigned entry = 2u + parameters->head_size;
    unsigned at;

    if (length == 0 || length % entry != 0) {
        return 0;
    }
    for (at = 0; at < length; at += entry) {
        if (data[at + 1] > SWN_SHIFT_INT8_MAX) {
            return 0;
        }
    }
    for (at = 0; at < length; at += entry) {
        if (data[at] < SWN_CONTEXT_MAX) {
            read_plane(parameters->heads[data[at]], data + at + 2, parameters->head_size, data[at + 1]);
        }
    }
    return 1;
}

static uint8_t apply_full(swn_parameters_t *parameters, const uint8_t *data, uint16_t length)
{
    const unsigned entry = 1u + parameters->head_size;
    unsigned context;
    unsigned at;

    if (length < FULL_START || length != FULL_START + bits_in(data[0]) * entry || data[1] > SWN_SHIFT_INT8_MAX) {
        return 0;
    }
    for (at = FULL_START; at < length; at += entry) {
        if (data[at] > SWN_SHIFT_INT8_MAX) {
            return 0;
        }
    }
    read_plane(parameters->adapter, data + 2, SWN_ADAPTER_SIZE, data[1]);
    at = FULL_START;
    for (context = 0; context < SWN_CONTEXT_MAX; context++) {
        if (data[0] >> context & 1u) {
            read_plane(parameters->heads[context], data + at + 1, parameters->head_size, data[at]);
            at += entry;
        }
    }
    return 1;
}

static uint8_t apply_delta(swn_parameters_t *parameters, const uint8_t *data, uint16_t length)
{
    const unsigned head_size = parameters->head_size;
    unsigned first = SWN_ADAPTER_SIZE;
    unsigned context;

    if (length < 3 || length != 3u + (SWN_ADAPTER_SIZE + head_size * bits_in(data[0]) + 1u) / 2u ||
        data[1] > SWN_SHIFT_INT4_MAX || data[2] > SWN_SHIFT_INT4_MAX) {
        return 0;
    }
    add_steps(parameters->adapter, data + 3, 0, SWN_ADAPTER_SIZE, data[1]);
    for (context = 0; context < SWN_CONTEXT_MAX; context++) {
        if (data[0] >> context & 1u) {
            add_steps(parameters->heads[context], data + 3, first, head_size, data[2]);
            first += head_size;
        }
    }
    return 1;
}

uint8_t swn_parameters_apply(swn_parameters_t *parameters, uint16_t version, uint16_t base_version, uint8_t kind,
                             const uint8_t *data, uint16_t length)
{
    uint8_t applied = 0;

    switch (kind) {
    case SWN_BLOCK_HEADS:
        applied = apply_heads(parameters, data, length);
        break;
    case SWN_BLOCK_DELTA:
        applied = (uint8_t)(base_version == parameters->model_version && apply_delta(parameters, data, length));
        break;
    case SWN_BLOCK_FULL:
        applied = apply_full(parameters, data, length);
        break;
    default:
        break;
    }
    if (applied) {
        parameters->model_version = version;
    }
    return applied;
}

static int same_block(const swn_block_t *block, const swn_piece_t *piece)
{
    return block->count == piece->count && block->version == piece->version && block->kind == piece->kind &&
           block->base_version == piece->base_version && block->length == piece->length &&
           block->crc32 == piece->crc32;
}

static void open_block(swn_block_t *block, const swn_piece_t *piece)
{
    block->crc32 = piece->crc32;
    block->version = piece->version;
    block->base_version = piece->base_version;
    block->length = piece->length;
    block->kind = piece->kind;
    block->count = piece->count;
    block->have = 0;
    memset(block->seen, 0, sizeof block->seen);
}

/* Whether the node may go from its version to this one. */
static uint8_t is_news(uint16_t own, uint16_t version, const swn_signer_t *signer)
{
    const uint32_t ahead = ((uint32_t)version + SWN_VERSIONS - own) % SWN_VERSIONS;

    return (uint8_t)(signer->public_key == NULL ? version != own : ahead != 0 && ahead <= SWN_VERSIONS / 2);
}

void swn_signer_begin(const swn_signer_t *signer, swn_ed25519_t *check, const uint8_t signature[SWN_SIGNATURE_SIZE])
{
    static const uint8_t TAG[4] = {'S', 'W', 'N', 'B'};

    swn_ed25519_init(check, signature, signer->public_key);
    swn_ed25519_update(check, TAG, sizeof TAG);
}

uint8_t swn_signer_final(const swn_signer_t *signer, swn_ed25519_t *check)
{
    return signer->verify != NULL ? signer->verify(signer->ctx, check) : swn_ed25519_final(check);
}

/* Whether the signer made the whole block; its contents end at *length. */
static uint8_t is_genuine(const swn_block_t *block, const swn_signer_t *signer, uint16_t *length)
{
    const uint8_t head[] = {block->kind, (uint8_t)(block->version & 255u), (uint8_t)(block->version >> 8),
                            (uint8_t)(block->base_version & 255u), (uint8_t)(block->base_version >> 8)};
    swn_ed25519_t check;

    *length = block->length;
    if (signer->public_key == NULL) {
        return 1;
    }
    if (block->length < SWN_SIGNATURE_SIZE) {
        return 0;
    }
    *length = (uint16_t)(block->length - SWN_SIGNATURE_SIZE);
    swn_signer_begin(signer, &check, block->data + *length);
    swn_ed25519_update(&check, head, sizeof head);
    swn_ed25519_update(&check, block->data, *length);
    return swn_signer_final(signer, &check);
}

swn_block_result_t swn_block_take(swn_block_t *block, const swn_piece_t *piece, swn_parameters_t *parameters,
                                  const swn_signer_t *signer)
{
    const unsigned byte = piece->index / 8u;
    const unsigned bit = 1u << (piece->index % 8u);
    uint16_t length;
    uint8_t applied;

    if (!is_news(parameters->model_version, piece->version, signer) ||
        (piece->kind == SWN_BLOCK_DELTA && piece->base_version != parameters->model_version)) {
        return SWN_PIECE_IGNORED;
    }
    if (!same_block(block, piece)) {
        open_block(block, piece);
    }
    if (block->seen[byte] & bit) {
        return SWN_PIECE_IGNORED;
    }
    block->seen[byte] = (uint8_t)(block->seen[byte] | bit);
    block->have++;
    memcpy(block->data + (size_t)piece->index * swn_piece_size(piece->length, piece->count), piece->piece,
           piece->piece_size);
    if (block->have < block->count) {
        return SWN_PIECE_STORED;
    }
    applied = (uint8_t)(swn_crc32(0, block->data, block->length) == block->crc32 &&
                        is_genuine(block, signer, &length) &&
                        swn_parameters_apply(parameters, block->version, block->base_version, block->kind,
                                             block->data, length));
    block->count = 0;
    return applied ? SWN_BLOCK_APPLIED : SWN_BLOCK_REFUSED;
}
