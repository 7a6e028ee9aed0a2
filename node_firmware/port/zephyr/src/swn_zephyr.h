/* Zephyr's LoRaWAN below the node.
 *
 * Theory of operation. Zephyr hands downlinks over on its system work queue, and lorawan_send() lasts until the second receive
 * window is over. So a downlink waits in a message queue, the port's tx only takes a frame, and swn_zephyr_run(), called by
 * the one thread that owns the node, sends it, switches the class for multicast windows, and gives the node what came. After
 * it the node is polled again. A frame that could not go out (duty cycle) is tried again for ten minutes.
 *
 * Zephyr does not say whether a downlink was the group's: those that come while no frame is being sent count as such, for
 * a node in class A hears no others.
 */
#ifndef SWN_ZEPHYR_H
#define SWN_ZEPHYR_H

#include "swn_node.h"
#include "swn_windows.h"

enum { SWN_ZEPHYR_FRAME_LIFE_S = 600, SWN_ZEPHYR_RETRY_S = 20 };

/* Where the multicast group speaks, and its keys. */
typedef struct swn_zephyr_group {
    uint32_t address;
    uint8_t nwk_s_key[16];
    uint8_t app_s_key[16];
    uint32_t frequency_hz;
    uint8_t data_rate;
} swn_zephyr_group_t;

/* Owned by the caller; fields are for reading only. */
typedef struct swn_zephyr {
    swn_node_t *node;
    swn_windows_t windows;
    int64_t frame_from_us; /* not tried before */
    int64_t frame_until_us;
    uint32_t sent;
    uint32_t lost;         /* frames that tx took and that did not go out */
    uint32_t received;
    uint32_t overflowed;   /* downlinks that found the queue full */
    uint32_t unkept;       /* values that settings did not keep: do not go on, a reset would forget which masks are used up */
    uint8_t class_c;
    uint8_t frame_port;
    uint8_t frame_size;    /* 0: none waits */
    uint8_t frame[SWN_PAYLOAD_MAX];
} swn_zephyr_t;

/* Microseconds since the start; they never go back. */
int64_t swn_zephyr_now_us(void);

/* Fills `port` for swn_init(), and registers for downlinks and data rates: once, after lorawan_start(). */
void swn_zephyr_init(swn_zephyr_t *zephyr, swn_node_t *node, swn_port_t *port);

/* After the join. What lorawan_send() lets through goes to the node; with CONFIG_LORASWARM_MULTICAST the group is set up.
 * 0, or a negative errno. */
int swn_zephyr_joined(swn_zephyr_t *zephyr, const swn_zephyr_group_t *group);

/* Sends what waits and hears what came; waits for downlinks until `until_us` at most. Returns when to come back. */
int64_t swn_zephyr_run(swn_zephyr_t *zephyr, int64_t until_us);

/* swn_zephyr_settings.c: what outlives a reset, below "swarm/" in Zephyr's settings. `ctx` is the swn_zephyr_t. */
int swn_zephyr_settings_init(void);
void swn_zephyr_keep(void *ctx, uint8_t key, const void *data, size_t size);
void swn_zephyr_recall(swn_node_t *node);

/* swn_zephyr_multicast.c */
int swn_zephyr_set_group(const swn_zephyr_group_t *group);

#endif
