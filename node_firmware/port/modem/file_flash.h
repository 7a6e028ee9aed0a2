/* A flash on a Linux box: a file below the node's state, mapped into memory; and the model that runs instead of the shipped
 * one, where a block brought the same with other experts.
 *
 * Theory of operation.  Blocks are put together in DIR/flash. When one is verified and swn_model_is_same() as the running
 * model, it is kept as DIR/model-CRC.swm, CRC being that of the shipped model's directory: at the next start that file
 * is run instead, as long as the program is started with the same shipped model. Another one begins with its own experts,
 * whatever lies in the flash still: DIR/taken has the descriptor of the block that was taken up last.
 */
#ifndef FILE_FLASH_H
#define FILE_FLASH_H

#include "swn_node.h"

enum { FILE_FLASH_SIZE = 1 << 16, FILE_FLASH_PATH = 512 };

typedef struct file_flash {
    swn_flash_t port;
    uint8_t *bytes; /* NULL: there is none */
    uint8_t lost_pieces[SWN_ERASURE_MEMORY];
    swn_receive_t receive;
    uint8_t looked_at[4]; /* the descriptor of the last block that was looked at */
    char model[FILE_FLASH_PATH]; /* the file */
    char taken[FILE_FLASH_PATH]; /* that of looked_at, once it is run */
    swn_model_t views[2];
    uint32_t images[2][FILE_FLASH_SIZE / sizeof(uint32_t)];
    unsigned runs;        /* which of both */
} file_flash_t;

/* The flash of the state in `folder`; NULL, or what cannot be used. */
const char *file_flash_open(file_flash_t *flash, const char *folder);

/* The image to start with: the shipped one of `*size` bytes, or what was taken up in its place before. */
const uint8_t *file_flash_image(file_flash_t *flash, const char *folder, const uint8_t *shipped, size_t *size);

/* Whether a block lies there that SWN_NVM_STORED may speak of. */
uint8_t file_flash_holds(const file_flash_t *flash, const void *stored, size_t size);

typedef enum file_flash_found {
    FILE_FLASH_NOTHING = 0,
    FILE_FLASH_TAKEN_UP,
    FILE_FLASH_OTHER,     /* another model: it is not run before somebody starts the program with it */
    FILE_FLASH_FAILED     /* to write it down */
} file_flash_found_t;

/* After each turn: what came of a block that is whole since the last call. */
file_flash_found_t file_flash_turn(file_flash_t *flash, swn_node_t *node, int64_t now_us);

#endif
