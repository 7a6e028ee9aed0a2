/* What outlives a reset, in Zephyr's settings: "swarm/KEY/PIECE".
 *
 * NVS keeps no entry that is larger than a flash sector (2 KB on an STM32WL), and the parameters are 6 KB: they are cut into
 * pieces, and the last one ends with the CRC-32 of all. A value that one piece holds is written at once or not at all; a larger
 * one that was cut off in the middle is not recalled, and the node begins with the shipped model, as without memory.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <zephyr/kernel.h>
#include <zephyr/logging/log.h>
#include <zephyr/settings/settings.h>

#include "swn_math.h"
#include "swn_zephyr.h"

enum { PIECE = 1024, VALUE_MAX = 8192, CRC_SIZE = 4, NAME_SIZE = 16 };

LOG_MODULE_REGISTER(swarm_settings);

/* Of the one thread that owns the node. */
static uint8_t value[VALUE_MAX + CRC_SIZE];

int swn_zephyr_settings_init(void)
{
    return settings_subsys_init();
}

static void name_of(char name[NAME_SIZE], uint8_t key, unsigned piece)
{
    (void)snprintf(name, NAME_SIZE, "swarm/%u/%u", (unsigned)key, piece);
}

static void put_crc(uint8_t *out, uint32_t crc)
{
    unsigned i;

    for (i = 0; i < CRC_SIZE; i++) {
        out[i] = (uint8_t)(crc >> 8 * i);
    }
}

/* 0, or what Zephyr says. */
static int save(uint8_t key, const void *data, size_t size)
{
    char name[NAME_SIZE];
    unsigned piece = 0;
    size_t at;

    if (size > VALUE_MAX) {
        return -EFBIG;
    }
    memcpy(value, data, size);
    put_crc(value + size, swn_crc32(0, value, size));
    size += CRC_SIZE;
    for (at = 0; at < size; at += PIECE, piece++) {
        int result;

        name_of(name, key, piece);
        result = settings_save_one(name, value + at, size - at < PIECE ? size - at : PIECE);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void swn_zephyr_keep(void *ctx, uint8_t key, const void *data, size_t size)
{
    swn_zephyr_t *zephyr = ctx;
    const int result = save(key, data, size);

    if (result != 0) {
        zephyr->unkept++;
        LOG_ERR("settings do not keep swarm/%u: %d", (unsigned)key, result);
    }
}

typedef struct reading {
    size_t size;
} reading_t;

static int take(const char *key, size_t len, settings_read_cb read_cb, void *cb_arg, void *param)
{
    reading_t *reading = param;
    ssize_t got;

    (void)key;
    if (reading->size + len > sizeof value) {
        return 0;
    }
    got = read_cb(cb_arg, value + reading->size, len);
    reading->size += got > 0 ? (size_t)got : 0;
    return 0;
}

/* Bytes of a value in `value`; 0: none, or not whole. */
static size_t load(uint8_t key)
{
    uint8_t crc[CRC_SIZE];
    size_t before;
    reading_t reading = {0};
    unsigned piece = 0;

    do {
        char name[NAME_SIZE];

        before = reading.size;
        name_of(name, key, piece++);
        (void)settings_load_subtree_direct(name, take, &reading);
    } while (reading.size == before + PIECE);
    if (reading.size <= CRC_SIZE) {
        return 0;
    }
    put_crc(crc, swn_crc32(0, value, reading.size - CRC_SIZE));
    return memcmp(crc, value + reading.size - CRC_SIZE, CRC_SIZE) == 0 ? reading.size - CRC_SIZE : 0;
}

void swn_zephyr_recall(swn_node_t *node)
{
    uint8_t key;

    for (key = SWN_NVM_PARAMETERS; key <= SWN_NVM_LAST; key++) {
        const size_t size = load(key);

        if (size > 0) {
            (void)swn_recall(node, key, value, size);
        }
    }
}
