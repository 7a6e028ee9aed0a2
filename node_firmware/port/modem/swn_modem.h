/* A serial LoRaWAN modem below the node: AT commands of RUI3 (RAK3172 and kin), or `mac` commands of the RN2483.
 *
 * Theory of operation.  Bytes and time in, bytes out; the caller owns the UART and the clock:
 *   swn_modem_feed()  what the UART received, in any pieces;
 *   swn_modem_poll()  what is due: the next command, a time-out; says when it wants to be called again;
 *   swn_modem_take()  what the UART has to send now.
 * One command is out at a time. A script of steps sets keys and region, joins, and hands over the multicast group;
 * then the modem is ready: the node's frames go out one by one, and the receiver is switched to class C for the windows
 * that the node asked for. A frame that tx took is kept while the modem says busy (its duty cycle) or has lost its session,
 * for ten minutes. Each uplink is followed by a question for the data rate, because ADR may have changed it, and the
 * node is told how much fits. A refusal of a step, three silences running, or the modem's own restart begin the script
 * anew, after a pause that doubles. Lines that mean nothing are counted, lines that are too long are skipped to their end.
 *
 * Downlinks go straight into swn_rx() of the node. Call swn_modem_poll() before swn_poll(), with the same time.
 */
#ifndef SWN_MODEM_H
#define SWN_MODEM_H

#include <stddef.h>
#include <stdint.h>

#include "swn_node.h"

enum {
    SWN_MODEM_LINE_MAX = 576,   /* the longest event: a downlink of 242 bytes in hex */
    SWN_MODEM_DATA_MAX = 242,
    SWN_MODEM_RATES = 16,
    SWN_MODEM_REPLY_S = 3,      /* until a command is answered */
    SWN_MODEM_SEND_S = 30,      /* until the modem says that a frame is out: airtime at SF12, both receive windows */
    SWN_MODEM_JOIN_S = 60,
    SWN_MODEM_BUSY_S = 10,      /* after "busy" without a time */
    SWN_MODEM_FRAME_LIFE_S = 600,
    SWN_MODEM_SILENCES_MAX = 3,
    SWN_MODEM_PAUSE_MIN_S = 10, /* before the script begins anew, doubled each time, plus as much again at random */
    SWN_MODEM_PAUSE_MAX_S = 3600
};

/* What a line of the modem means. */
typedef enum swn_modem_word {
    SWN_MODEM_NOISE = 0,
    SWN_MODEM_OK,
    SWN_MODEM_BUSY,        /* duty cycle, or the last command is not done yet */
    SWN_MODEM_REFUSED,
    SWN_MODEM_NOT_JOINED,
    SWN_MODEM_JOINED,
    SWN_MODEM_JOIN_FAILED,
    SWN_MODEM_SENT,
    SWN_MODEM_SEND_FAILED,
    SWN_MODEM_WAIT,        /* value: ms until the duty cycle allows */
    SWN_MODEM_RATE,        /* value: the uplink's data rate */
    SWN_MODEM_DOWNLINK,
    SWN_MODEM_RESTARTED
} swn_modem_word_t;

typedef struct swn_modem_line {
    swn_modem_word_t word;
    uint32_t value;
    uint8_t f_port;
    uint8_t multicast;
    int8_t snr_db;
    uint8_t size;
    uint8_t data[SWN_MODEM_DATA_MAX];
} swn_modem_line_t;

/* Text that is being put together; what does not fit is left out, and `full` is set. */
typedef struct swn_modem_text {
    char text[SWN_MODEM_LINE_MAX];
    size_t size;
    uint8_t full;
} swn_modem_text_t;

typedef struct swn_modem_config swn_modem_config_t;

/* One command of the script. */
typedef struct swn_modem_step {
    uint8_t joins;     /* done when the modem says that it has joined */
    uint8_t optional;  /* a refusal does not matter */
} swn_modem_step_t;

/* How one family of modems is spoken to. Commands are written without their line end. */
typedef struct swn_modem_dialect {
    uint8_t downlink_ends_send; /* a downlink after an uplink comes instead of the word that it is out */
    uint8_t tells_multicast;    /* a downlink's line says whether it was the group's */
    uint8_t rate_ends_query;    /* the value comes without a status behind it */
    /* 0: this modem cannot do what the config asks for. */
    int (*fits)(const swn_modem_config_t *config);
    /* Command number `index` of the script; 0: there is none, the script is over. */
    int (*step)(const swn_modem_config_t *config, unsigned index, swn_modem_text_t *out, swn_modem_step_t *step);
    void (*send)(uint8_t f_port, const uint8_t *data, size_t size, swn_modem_text_t *out);
    void (*ask_rate)(swn_modem_text_t *out);
    void (*set_class)(uint8_t class_c, swn_modem_text_t *out);
    void (*read)(const char *line, size_t size, swn_modem_line_t *out);
} swn_modem_dialect_t;

extern const swn_modem_dialect_t swn_modem_rui3;   /* RAK3172, RAK4630, ...: RUI3, 115200 baud */
extern const swn_modem_dialect_t swn_modem_rn2483; /* firmware 1.0.5 (class C, multicast), 57600 baud; OTAA only */

/* Everything comes from the header that `swarm pilot provision` wrote; byte strings as they are printed. */
struct swn_modem_config {
    const swn_modem_dialect_t *dialect;
    const char *region;         /* as in SWN_REGION */
    uint8_t dev_eui[8];
    uint8_t join_eui[8];
    uint8_t app_key[16];        /* OTAA */
    uint8_t abp;                /* 1: the four below instead */
    uint32_t dev_addr;
    uint8_t nwk_s_key[16];
    uint8_t app_s_key[16];
    uint32_t mc_addr;
    uint8_t mc_nwk_s_key[16];
    uint8_t mc_app_s_key[16];
    uint32_t mc_frequency_hz;
    uint8_t mc_data_rate;
    uint8_t data_rate;          /* of uplinks, until ADR says otherwise */
    uint8_t always_on;          /* class C all day */
    uint8_t payload_max[SWN_MODEM_RATES]; /* at each uplink data rate; 0: not usable */
    uint32_t seed;              /* of the pauses */
    /* The board's: see swn_port_t; may be NULL. */
    void *board;
    uint32_t (*random32)(void *board);
    void (*nvm_write)(void *board, uint8_t key, const void *data, size_t size);
};

/* The command that is out. */
typedef enum swn_modem_command {
    SWN_MODEM_IDLE = 0,
    SWN_MODEM_STEP,
    SWN_MODEM_JOINING, /* the step was taken, the network has not answered yet */
    SWN_MODEM_SEND,
    SWN_MODEM_SENDING, /* the frame was taken, it is not out yet */
    SWN_MODEM_CLASS,
    SWN_MODEM_ASK_RATE
} swn_modem_command_t;

/* Owned by the caller; fields are for reading only. */
typedef struct swn_modem {
    swn_modem_config_t config;
    swn_node_t *node;
    int64_t now_us;            /* of the last call */
    int64_t command_until_us;  /* when the command that is out has failed */
    int64_t free_us;           /* no command before */
    int64_t frame_from_us;     /* no frame before: the duty cycle */
    int64_t frame_until_us;    /* then it is given up */
    int64_t open_until_us;     /* of the window that is open */
    int64_t next_from_us;      /* of the one that is announced; SWN_NEVER_US: none */
    int64_t next_until_us;
    uint32_t prng;
    uint32_t pause_s;
    uint32_t wait_ms;          /* said before a busy */
    uint32_t sent;
    uint32_t lost;             /* frames that tx took and that did not go out */
    uint32_t received;
    uint32_t noise;            /* lines that mean nothing, or say what cannot be */
    uint32_t overflows;        /* lines longer than SWN_MODEM_LINE_MAX */
    uint32_t silences;         /* commands without an answer */
    uint32_t restarts;         /* of the script */
    swn_modem_command_t command;
    uint16_t step;
    uint8_t step_optional;
    uint8_t step_joins;
    uint8_t ready;             /* the script is over: frames can go out */
    uint8_t silent;            /* running silences */
    uint8_t mute;              /* so many of them that it seems dead; until it says something */
    uint8_t class_c;           /* as the modem was told */
    uint8_t rate_wanted;
    uint8_t frame_waits;
    uint8_t frame_port;
    uint8_t frame_size;
    uint8_t frame[SWN_PAYLOAD_MAX];
    uint8_t skipping;          /* inside a line that is too long */
    uint16_t in_size;
    uint16_t out_taken;
    char in[SWN_MODEM_LINE_MAX];
    swn_modem_text_t out;
    swn_modem_line_t line;
} swn_modem_t;

/* Fills `port` for swn_init(); -1 when this modem cannot do what the config asks for. The script begins with the first
 * poll. `node` is given downlinks and data rates from then on; it may be initialised later, but before that poll. */
int swn_modem_init(swn_modem_t *modem, const swn_modem_config_t *config, swn_node_t *node, swn_port_t *port,
                   int64_t now_us);

void swn_modem_feed(swn_modem_t *modem, int64_t now_us, const uint8_t *bytes, size_t size);

/* Later than now_us. */
int64_t swn_modem_poll(swn_modem_t *modem, int64_t now_us);

/* Up to `size` bytes for the UART; 0: nothing to send. */
size_t swn_modem_take(swn_modem_t *modem, uint8_t *bytes, size_t size);

/* For dialects. A decimal number (with `minus` NULL: no sign allowed) or hex bytes at *at, which moves behind them; 0: there
 * is none, or it is too large. */
void swn_modem_say(swn_modem_text_t *out, const char *text);
void swn_modem_say_number(swn_modem_text_t *out, uint32_t value);
void swn_modem_say_hex(swn_modem_text_t *out, const uint8_t *bytes, size_t size);
void swn_modem_say_address(swn_modem_text_t *out, uint32_t address);
uint8_t swn_modem_starts(const char *line, size_t size, const char *prefix);
uint8_t swn_modem_is(const char *line, size_t size, const char *text);
uint8_t swn_modem_number(const char *line, size_t size, size_t *at, uint8_t *minus, uint32_t *value);
uint8_t swn_modem_hex(const char *line, size_t size, size_t *at, uint8_t *bytes, size_t bytes_max, uint8_t *count);

#endif
