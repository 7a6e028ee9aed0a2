/* A flash on the host: memory that is written once after each erasing, as the NOR flash of the parts is. */
#ifndef SWN_HOST_FLASH_H
#define SWN_HOST_FLASH_H

#include "swn_transport.h"

typedef struct swn_host_flash {
    swn_flash_t port;
    uint8_t *bytes;
    uint32_t size;
    uint32_t opened;    /* bytes of the block it is open for */
    uint32_t rewritten; /* bytes that were written although they were not erased */
    uint32_t failing;   /* so many of the next writes fail */
    uint8_t unwanted[4]; /* a block with this descriptor is not wanted, unless it is zeros */
} swn_host_flash_t;

/* Anew where its bytes are, with all that it knows: it was moved, or copied. */
void swn_host_flash_link(swn_host_flash_t *flash, uint8_t *bytes, uint32_t size);

void swn_host_flash_init(swn_host_flash_t *flash, uint8_t *bytes, uint32_t size);

#endif
