/* A node above a serial modem, told by lines what it senses: what a program on Linux (main_posix.c) and a firmware in QEMU
 * (../qemu) have in common. No stdio, no clock: the caller brings lines and time, and prints.
 *
 *   reading TEMPERATURE HUMIDITY RAIN [HOUR]   degC, %, mm of the hour that ended at HOUR; "-" for what is missing
 *   label DAY CLASS                            the truth about a day
 *
 * Whose node it is, the header says that SWN_IDENTITY names at compile time.
 */
#ifndef SWN_CONSOLE_H
#define SWN_CONSOLE_H

#include "swn_modem.h"

typedef struct swn_console {
    swn_model_t model;
    swn_node_t node;
    swn_port_t port;
    swn_modem_t modem;
    void *board;
    void (*print)(void *board, const char *line, size_t size); /* a line, with its end */
    swn_modem_text_t out;
    uint32_t told_sent;
    uint32_t told_received;
    uint32_t told_lost;
    uint8_t told_ready;
    uint8_t told_mute;
} swn_console_t;

typedef struct swn_console_config {
    const uint8_t *image; /* of the model */
    size_t image_size;
    void *board;
    void (*print)(void *board, const char *line, size_t size);
    void (*nvm_write)(void *board, uint8_t key, const void *data, size_t size); /* or NULL */
    swn_receive_t *receive; /* the board's flash for large blocks, or NULL */
} swn_console_config_t;

/* NULL, or why it cannot start. */
const char *swn_console_init(swn_console_t *console, const swn_console_config_t *config, int64_t now_us);

/* The node's name, from its header. */
const char *swn_console_name(void);

/* A line without its end, not behind "at": see above. `hour` is the local hour of now. */
void swn_console_line(swn_console_t *console, int64_t now_us, const char *line, size_t size, uint8_t hour);

/* Everything that is due, once what the modem said was given to swn_modem_feed(). When to come back. */
int64_t swn_console_turn(swn_console_t *console, int64_t now_us);

/* Tells which experts the node runs. */
void swn_console_tell_experts(swn_console_t *console);

/* "WORD NUMBER" with a number of up to 18 digits; 0: it is something else. */
uint8_t swn_console_number(const char *line, size_t size, const char *word, int64_t *value);

#endif
