/* A flash on the host; see swn_host_flash.h. */
#include "swn_host_flash.h"

#include <string.h>

enum { ERASED = 0xFF };

static swn_open_t open_flash(void *user, const uint8_t descriptor[4], uint32_t size)
{
    static const uint8_t ANY[4] = {0, 0, 0, 0};
    swn_host_flash_t *flash = user;

    if (size > flash->size) {
        return SWN_OPEN_NO_ROOM;
    }
    if (memcmp(flash->unwanted, ANY, sizeof ANY) != 0 && memcmp(flash->unwanted, descriptor, sizeof ANY) == 0) {
        return SWN_OPEN_UNWANTED;
    }
    memset(flash->bytes, ERASED, flash->size);
    flash->opened = size;
    return SWN_OPEN_YES;
}

static uint8_t is_inside(const swn_host_flash_t *flash, uint32_t offset, size_t size)
{
    return (uint8_t)(offset <= flash->opened && size <= flash->opened - offset);
}

static uint8_t write_flash(void *user, uint32_t offset, const uint8_t *data, size_t size)
{
    swn_host_flash_t *flash = user;
    size_t i;

    if (!is_inside(flash, offset, size)) {
        return 0;
    }
    if (flash->failing > 0) {
        flash->failing--;
        return 0;
    }
    for (i = 0; i < size; i++) {
        flash->rewritten += flash->bytes[offset + i] != ERASED;
        flash->bytes[offset + i] = data[i];
    }
    return 1;
}

static uint8_t read_flash(void *user, uint32_t offset, uint8_t *data, size_t size)
{
    const swn_host_flash_t *flash = user;

    if (!is_inside(flash, offset, size)) {
        return 0;
    }
    memcpy(data, flash->bytes + offset, size);
    return 1;
}

static const uint8_t *map_flash(void *user)
{
    const swn_host_flash_t *flash = user;

    return flash->bytes;
}

void swn_host_flash_link(swn_host_flash_t *flash, uint8_t *bytes, uint32_t size)
{
    flash->port.user = flash;
    flash->port.open = open_flash;
    flash->port.write = write_flash;
    flash->port.read = read_flash;
    flash->port.map = map_flash;
    flash->bytes = bytes;
    flash->size = size;
}

void swn_host_flash_init(swn_host_flash_t *flash, uint8_t *bytes, uint32_t size)
{
    memset(flash, 0, sizeof *flash);
    swn_host_flash_link(flash, bytes, size);
}
