/* AES-CMAC; see swn_cmac.h. Section numbers are those of RFC 4493. */
#include "swn_cmac.h"

#include <string.h>

enum { PADDING = 0x80, REDUCTION = 0x87 };

/* 2.3: times x in GF(2^128), most significant bit first. */
static void double_block(uint8_t block[SWN_AES_BLOCK])
{
    const unsigned carry = (unsigned)block[0] >> 7;
    unsigned i;

    for (i = 0; i < SWN_AES_BLOCK; i++) {
        const unsigned next = i + 1 < SWN_AES_BLOCK ? (unsigned)block[i + 1] >> 7 : 0u;
        block[i] = (uint8_t)(((unsigned)block[i] << 1 | next) & 0xFFu);
    }
    block[SWN_AES_BLOCK - 1] = (uint8_t)(block[SWN_AES_BLOCK - 1] ^ carry * REDUCTION);
}

static void chain_last(swn_cmac_t *cmac)
{
    unsigned i;

    for (i = 0; i < SWN_AES_BLOCK; i++) {
        cmac->chain[i] ^= cmac->last[i];
    }
    swn_aes_encrypt(&cmac->aes, cmac->chain, cmac->chain);
    cmac->used = 0;
}

void swn_cmac_init(swn_cmac_t *cmac, const uint8_t key[SWN_AES_BLOCK])
{
    memset(cmac, 0, sizeof *cmac);
    swn_aes_init(&cmac->aes, key);
}

void swn_cmac_update(swn_cmac_t *cmac, const uint8_t *data, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        if (cmac->used == SWN_AES_BLOCK) {
            chain_last(cmac);
        }
        cmac->last[cmac->used++] = data[i];
    }
}

void swn_cmac_final(swn_cmac_t *cmac, uint8_t code[SWN_AES_BLOCK])
{
    uint8_t subkey[SWN_AES_BLOCK];
    unsigned i;

    memset(subkey, 0, sizeof subkey);
    swn_aes_encrypt(&cmac->aes, subkey, subkey);
    double_block(subkey);
    if (cmac->used < SWN_AES_BLOCK) {
        memset(cmac->last + cmac->used, 0, (size_t)SWN_AES_BLOCK - cmac->used);
        cmac->last[cmac->used] = PADDING;
        double_block(subkey);
    }
    for (i = 0; i < SWN_AES_BLOCK; i++) {
        cmac->last[i] ^= subkey[i];
    }
    chain_last(cmac);
    memcpy(code, cmac->chain, SWN_AES_BLOCK);
}
