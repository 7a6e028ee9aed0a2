/* AES-CMAC (RFC 4493) of data that comes in parts. */
#ifndef SWN_CMAC_H
#define SWN_CMAC_H

#include <stddef.h>
#include <stdint.h>

#include "swn_aes.h"

typedef struct swn_cmac {
    swn_aes_t aes;
    uint8_t chain[SWN_AES_BLOCK];
    uint8_t last[SWN_AES_BLOCK]; /* bytes not taken in yet: the last block is treated otherwise */
    uint8_t used;
} swn_cmac_t;

void swn_cmac_init(swn_cmac_t *cmac, const uint8_t key[SWN_AES_BLOCK]);
void swn_cmac_update(swn_cmac_t *cmac, const uint8_t *data, size_t size);

/* The code; the cmac must be made anew afterwards. */
void swn_cmac_final(swn_cmac_t *cmac, uint8_t code[SWN_AES_BLOCK]);

#endif
