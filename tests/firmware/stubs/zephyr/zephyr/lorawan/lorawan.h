/* STUB: the part of Zephyr's LoRaWAN interface that the port and the sample use. Names, types and order are those of
 * include/zephyr/lorawan/lorawan.h at commit 0202bd860cbf80c9b7f98720b9967021b231351f. */
#ifndef ZEPHYR_LORAWAN_STUB_H
#define ZEPHYR_LORAWAN_STUB_H

#include <zephyr/kernel.h>

typedef struct _snode {
    struct _snode *next;
} sys_snode_t;

enum lorawan_class { LORAWAN_CLASS_A = 0x00, LORAWAN_CLASS_B = 0x01, LORAWAN_CLASS_C = 0x02 };
enum lorawan_act_type { LORAWAN_ACT_OTAA = 0, LORAWAN_ACT_ABP };
enum lorawan_region {
    LORAWAN_REGION_AS923,
    LORAWAN_REGION_AU915,
    LORAWAN_REGION_CN470,
    LORAWAN_REGION_CN779,
    LORAWAN_REGION_EU433,
    LORAWAN_REGION_EU868,
    LORAWAN_REGION_KR920,
    LORAWAN_REGION_IN865,
    LORAWAN_REGION_US915,
    LORAWAN_REGION_RU864
};
enum lorawan_message_type { LORAWAN_MSG_UNCONFIRMED = 0, LORAWAN_MSG_CONFIRMED };

struct lorawan_join_otaa {
    uint8_t *join_eui;
    uint8_t *nwk_key;
    uint8_t *app_key;
    uint16_t dev_nonce;
};
struct lorawan_join_abp {
    uint32_t dev_addr;
    uint8_t *app_skey;
    uint8_t *nwk_skey;
    uint8_t *app_eui;
};
struct lorawan_join_config {
    union {
        struct lorawan_join_otaa otaa;
        struct lorawan_join_abp abp;
    };
    uint8_t *dev_eui;
    enum lorawan_act_type mode;
};

#define LW_RECV_PORT_ANY UINT16_MAX

struct lorawan_downlink_cb {
    uint16_t port;
    void (*cb)(uint8_t port, uint8_t flags, int16_t rssi, int8_t snr, uint8_t len, const uint8_t *data);
    sys_snode_t node;
};

void lorawan_register_downlink_callback(struct lorawan_downlink_cb *cb);
int lorawan_join(const struct lorawan_join_config *config);
int lorawan_start(void);
int lorawan_send(uint8_t port, uint8_t *data, uint8_t len, enum lorawan_message_type type);
int lorawan_set_class(enum lorawan_class dev_class);
void lorawan_enable_adr(bool enable);
void lorawan_get_payload_sizes(uint8_t *max_next_payload_size, uint8_t *max_payload_size);
int lorawan_set_region(enum lorawan_region region);

#endif
