/* Zephyr's LoRaWAN below the node; see swn_zephyr.h. */
#include "swn_zephyr.h"

#include <errno.h>
#include <string.h>

#include <zephyr/kernel.h>
#include <zephyr/lorawan/lorawan.h>

#define SECOND_US ((int64_t)1000000)

typedef struct downlink {
    uint8_t f_port;
    uint8_t multicast;
    int8_t snr_db;
    uint8_t size;
    uint8_t data[255];
} downlink_t;

K_MSGQ_DEFINE(swn_downlinks, sizeof(downlink_t), CONFIG_LORASWARM_QUEUE, 4);

/* Zephyr's callbacks carry no context: these two are written by them alone. */
static atomic_t swn_sending;
static atomic_t swn_overflowed;

int64_t swn_zephyr_now_us(void)
{
    return (int64_t)k_ticks_to_us_floor64((uint64_t)k_uptime_ticks());
}

/* On the system work queue. */
static void on_downlink(uint8_t port, uint8_t flags, int16_t rssi, int8_t snr, uint8_t len, const uint8_t *data)
{
    downlink_t downlink;

    (void)flags;
    (void)rssi;
    if (data == NULL || len == 0 || port == 0) {
        return;
    }
    downlink.f_port = port;
    downlink.multicast = (uint8_t)(atomic_get(&swn_sending) == 0);
    downlink.snr_db = snr;
    downlink.size = len;
    memcpy(downlink.data, data, len);
    if (k_msgq_put(&swn_downlinks, &downlink, K_NO_WAIT) != 0) {
        atomic_inc(&swn_overflowed);
    }
}

static struct lorawan_downlink_cb downlinks = {.port = LW_RECV_PORT_ANY, .cb = on_downlink};

static int zephyr_tx(void *ctx, uint8_t f_port, const uint8_t *data, size_t size)
{
    swn_zephyr_t *zephyr = ctx;

    if (zephyr->frame_size > 0 || size == 0 || size > sizeof zephyr->frame) {
        return -1;
    }
    zephyr->frame_port = f_port;
    zephyr->frame_size = (uint8_t)size;
    zephyr->frame_from_us = 0;
    zephyr->frame_until_us = swn_zephyr_now_us() + SWN_ZEPHYR_FRAME_LIFE_S * SECOND_US;
    memcpy(zephyr->frame, data, size);
    return 0;
}

static void zephyr_listen(void *ctx, int64_t from_us, int64_t until_us)
{
    swn_zephyr_t *zephyr = ctx;

    swn_windows_listen(&zephyr->windows, swn_zephyr_now_us(), from_us, until_us);
}

void swn_zephyr_init(swn_zephyr_t *zephyr, swn_node_t *node, swn_port_t *port)
{
    memset(zephyr, 0, sizeof *zephyr);
    zephyr->node = node;
    swn_windows_init(&zephyr->windows);
    memset(port, 0, sizeof *port);
    port->ctx = zephyr;
    port->tx = zephyr_tx;
    port->listen = zephyr_listen;
    port->nvm_write = swn_zephyr_keep;
    lorawan_register_downlink_callback(&downlinks);
}

static void tell_payload(const swn_zephyr_t *zephyr)
{
    uint8_t next = 0;
    uint8_t most = 0;

    lorawan_get_payload_sizes(&next, &most); /* `next`: less MAC commands that wait */
    swn_set_payload_max(zephyr->node, next < SWN_PAYLOAD_MAX ? next : SWN_PAYLOAD_MAX);
}

int swn_zephyr_joined(swn_zephyr_t *zephyr, const swn_zephyr_group_t *group)
{
    tell_payload(zephyr);
#ifdef CONFIG_LORASWARM_MULTICAST
    return swn_zephyr_set_group(group);
#else
    (void)group;
    return 0;
#endif
}

static void send(swn_zephyr_t *zephyr)
{
    int result;

    atomic_set(&swn_sending, 1);
    result = lorawan_send(zephyr->frame_port, zephyr->frame, zephyr->frame_size, LORAWAN_MSG_UNCONFIRMED);
    atomic_set(&swn_sending, 0);
    tell_payload(zephyr);
    if (result == 0) {
        zephyr->sent++;
        zephyr->frame_size = 0;
    } else if (result == -EAGAIN || result == -EMSGSIZE || swn_zephyr_now_us() >= zephyr->frame_until_us) {
        zephyr->lost++; /* too long for the data rate, which the node knows now; or too late */
        zephyr->frame_size = 0;
    } else {
        zephyr->frame_from_us = swn_zephyr_now_us() + SWN_ZEPHYR_RETRY_S * SECOND_US;
    }
}

static void window(swn_zephyr_t *zephyr, int64_t now_us)
{
    uint8_t wanted;

    swn_windows_begin(&zephyr->windows, now_us);
    wanted = swn_windows_open(&zephyr->windows, now_us);
    if (wanted != zephyr->class_c && lorawan_set_class(wanted ? LORAWAN_CLASS_C : LORAWAN_CLASS_A) == 0) {
        zephyr->class_c = wanted;
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When the port itself has something to do. */
static int64_t due_us(const swn_zephyr_t *zephyr)
{
    int64_t due = zephyr->windows.next_from_us;

    if (zephyr->class_c) {
        due = earlier(due, zephyr->windows.open_until_us);
    }
    if (zephyr->frame_size > 0) {
        due = earlier(due, zephyr->frame_from_us);
    }
    return due;
}

int64_t swn_zephyr_run(swn_zephyr_t *zephyr, int64_t until_us)
{
    int64_t now_us = swn_zephyr_now_us();
    int64_t wait_us;
    downlink_t downlink;

    if (zephyr->frame_size > 0 && zephyr->frame_from_us <= now_us) {
        send(zephyr);
        now_us = swn_zephyr_now_us();
    }
    window(zephyr, now_us);
    wait_us = earlier(until_us, due_us(zephyr)) - now_us;
    wait_us = wait_us < 0 ? 0 : earlier(wait_us, SECOND_US * 3600);
    if (k_msgq_get(&swn_downlinks, &downlink, K_USEC(wait_us)) == 0) {
        zephyr->received++;
        now_us = swn_zephyr_now_us();
        swn_rx(zephyr->node, now_us, downlink.f_port, downlink.data, downlink.size, downlink.multicast, downlink.snr_db);
        window(zephyr, now_us);
        return now_us;
    }
    zephyr->overflowed = (uint32_t)atomic_get(&swn_overflowed);
    return earlier(until_us, due_us(zephyr));
}
