/* A flash on a Linux box; see file_flash.h. */
#include "file_flash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ERASED = 0xFF };

static swn_open_t open_block(void *user, const uint8_t descriptor[4], uint32_t size)
{
    file_flash_t *flash = user;

    (void)descriptor;
    if (size > FILE_FLASH_SIZE) {
        return SWN_OPEN_NO_ROOM;
    }
    memset(flash->bytes, ERASED, FILE_FLASH_SIZE);
    return SWN_OPEN_YES;
}

static uint8_t write_block(void *user, uint32_t offset, const uint8_t *data, size_t size)
{
    file_flash_t *flash = user;

    if (offset > FILE_FLASH_SIZE || size > FILE_FLASH_SIZE - offset) {
        return 0;
    }
    memcpy(flash->bytes + offset, data, size);
    return 1;
}

static uint8_t read_block(void *user, uint32_t offset, uint8_t *data, size_t size)
{
    const file_flash_t *flash = user;

    if (offset > FILE_FLASH_SIZE || size > FILE_FLASH_SIZE - offset) {
        return 0;
    }
    memcpy(data, flash->bytes + offset, size);
    return 1;
}

static const uint8_t *map_block(void *user)
{
    const file_flash_t *flash = user;

    return flash->bytes;
}

const char *file_flash_open(file_flash_t *flash, const char *folder)
{
    char path[FILE_FLASH_PATH];
    void *bytes = MAP_FAILED;
    FILE *taken;
    int file;
    int full;

    if (snprintf(path, sizeof path, "%s/flash", folder) >= (int)sizeof path ||
        snprintf(flash->taken, sizeof flash->taken, "%s/taken", folder) >= (int)sizeof flash->taken) {
        return "the name is too long";
    }
    taken = fopen(flash->taken, "rb");
    if (taken != NULL) {
        (void)!fread(flash->looked_at, 1, sizeof flash->looked_at, taken);
        (void)fclose(taken);
    }
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (file < 0) {
        return strerror(errno);
    }
    /* Room on the disk now: to write behind a full one through the map would be the end of the program. */
    full = posix_fallocate(file, 0, FILE_FLASH_SIZE);
    if (full == 0) {
        bytes = mmap(NULL, FILE_FLASH_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    if (bytes == MAP_FAILED) {
        (void)close(file);
        return strerror(full != 0 ? full : errno);
    }
    (void)close(file);
    flash->bytes = bytes;
    flash->port.user = flash;
    flash->port.open = open_block;
    flash->port.write = write_block;
    flash->port.read = read_block;
    flash->port.map = map_block;
    flash->receive.config.flash = &flash->port;
    flash->receive.config.lost_pieces = flash->lost_pieces;
    flash->receive.config.lost_pieces_size = sizeof flash->lost_pieces;
    return NULL;
}

const uint8_t *file_flash_image(file_flash_t *flash, const char *folder, const uint8_t *shipped, size_t *size)
{
    const uint8_t *image = (const uint8_t *)flash->images[0];
    swn_model_t view;
    FILE *file;
    size_t kept;

    if (swn_model_open(&view, shipped, *size) != SWN_OK ||
        snprintf(flash->model, sizeof flash->model, "%s/model-%08" PRIx32 ".swm", folder, view.crc32) >= (int)sizeof flash->model) {
        flash->model[0] = '\0';
        return shipped;
    }
    file = fopen(flash->model, "rb");
    if (file == NULL) {
        return shipped;
    }
    kept = fread(flash->images[0], 1, sizeof flash->images[0], file);
    (void)fclose(file);
    if (swn_model_open(&flash->views[0], image, kept) != SWN_OK || !swn_model_is_same(&flash->views[0], &view)) {
        return shipped;
    }
    *size = kept;
    return image;
}

uint8_t file_flash_holds(const file_flash_t *flash, const void *stored, size_t size)
{
    swn_stored_t record;
    swn_model_t view;

    if (size != sizeof record) {
        return 0;
    }
    memcpy(&record, stored, sizeof record);
    if (record.size == 0) {
        return 1; /* it says which counters are used up, and no more */
    }
    return (uint8_t)(record.size > SWN_SIGNATURE_SIZE && record.size <= FILE_FLASH_SIZE &&
                     swn_model_open(&view, flash->bytes, record.size - SWN_SIGNATURE_SIZE) == SWN_OK);
}

/* The whole file or the one before it, whenever power fails. */
static uint8_t keep(const char *path, const void *data, size_t size)
{
    char fresh[FILE_FLASH_PATH + sizeof ".new"];
    FILE *file;

    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    file = fopen(fresh, "wb");
    return (uint8_t)(file != NULL && fwrite(data, 1, size, file) == size && fflush(file) == 0 && fsync(fileno(file)) == 0 &&
                     fclose(file) == 0 && rename(fresh, path) == 0);
}

file_flash_found_t file_flash_turn(file_flash_t *flash, swn_node_t *node, int64_t now_us)
{
    const swn_transport_t *transport = &flash->receive.transport;
    const unsigned next = 1u - flash->runs;
    const size_t size = transport->kept_size > SWN_SIGNATURE_SIZE ? transport->kept_size - SWN_SIGNATURE_SIZE : 0;
    uint8_t is_new;

    if (flash->receive.state != SWN_WHOLE_AND_VERIFIED || size == 0 || size > FILE_FLASH_SIZE ||
        memcmp(flash->looked_at, transport->kept, sizeof flash->looked_at) == 0) {
        return FILE_FLASH_NOTHING;
    }
    memcpy(flash->looked_at, transport->kept, sizeof flash->looked_at);
    memcpy(flash->images[next], flash->bytes, size);
    if (swn_model_open(&flash->views[next], (const uint8_t *)flash->images[next], size) != SWN_OK ||
        !swn_model_is_same(&flash->views[next], node->config.model)) {
        return FILE_FLASH_OTHER;
    }
    is_new = (uint8_t)(swn_model_held(&flash->views[next]) != swn_model_held(node->config.model));
    if (flash->model[0] == '\0' || (is_new && !keep(flash->model, flash->images[next], size)) ||
        !keep(flash->taken, flash->looked_at, sizeof flash->looked_at)) {
        return FILE_FLASH_FAILED;
    }
    if (!is_new) {
        return FILE_FLASH_NOTHING;
    }
    flash->runs = next;
    swn_take_up(node, now_us, &flash->views[next]);
    return FILE_FLASH_TAKEN_UP;
}
