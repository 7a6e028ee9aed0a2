/* The Zephyr sample on this computer: the real sample, port and core above a stub of Zephyr, with a clock that obeys.
 *
 *   sample_bench FILE     FILE keeps the settings; prints one line for each thing that the stack was told
 *
 * The stub's network answers the third join; it sends a SCHEDULE after the first uplink (a window of a minute in an hour,
 * reports each half hour), a ROUND when a window has been open for ten seconds, and refuses every fifth frame once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <LoRaMac.h>
#include <zephyr/logging/log.h>
#include <zephyr/lorawan/lorawan.h>
#include <zephyr/random/random.h>
#include <zephyr/settings/settings.h>

#include "swn_zephyr.h"

#define SECOND_US ((int64_t)1000000)
enum { RUN_S = 6 * 3600, ENTRIES = 32, ENTRY_MAX = 2048 };

typedef struct entry {
    char name[32];
    size_t size;
    uint8_t bytes[ENTRY_MAX];
} entry_t;

static int64_t now_us;
static struct lorawan_downlink_cb *listener;
static unsigned joins, uplinks, attempts;
static int64_t round_us = INT64_MAX;
static entry_t entries[ENTRIES];
static const char *file_name;

static void save(void)
{
    FILE *file = fopen(file_name, "wb");

    fwrite(entries, sizeof entries, 1, file);
    fclose(file);
}

static void advance(int64_t us)
{
    /* Round 5, mode none; the next window in an hour, for a minute. */
    static const uint8_t round[] = {1, 5, 0, 0, 0, 0, 255, 0, 0, 0x10, 0x0E, 0, 0, 0x10, 0x0E, 0, 0, 60, 0};
    const int64_t until_us = now_us + us;

    if (round_us <= until_us) {
        now_us = round_us;
        round_us = INT64_MAX;
        listener->cb(10, 0, -90, -11, sizeof round, round);
    }
    now_us = until_us;
    if (now_us > RUN_S * SECOND_US) {
        save();
        exit(0);
    }
}

atomic_val_t atomic_get(const atomic_t *target)
{
    return *target;
}
atomic_val_t atomic_set(atomic_t *target, atomic_val_t value)
{
    const atomic_val_t before = *target;
    *target = value;
    return before;
}
atomic_val_t atomic_inc(atomic_t *target)
{
    return (*target)++;
}
int32_t k_sleep(k_timeout_t timeout)
{
    advance(timeout.us);
    return 0;
}
int64_t k_uptime_ticks(void)
{
    return now_us / 100;
}
uint64_t k_ticks_to_us_floor64(uint64_t ticks)
{
    return ticks * 100;
}
int k_msgq_put(struct k_msgq *queue, const void *data, k_timeout_t timeout)
{
    (void)timeout;
    if (queue->used == queue->max_msgs) {
        return -ENOMSG;
    }
    memcpy(queue->buffer + queue->used++ * queue->msg_size, data, queue->msg_size);
    return 0;
}
int k_msgq_get(struct k_msgq *queue, void *data, k_timeout_t timeout)
{
    if (queue->used == 0) {
        /* The message ends the wait. */
        advance(round_us > now_us && round_us < now_us + timeout.us ? round_us - now_us : timeout.us > 100 ? timeout.us : 100);
    }
    if (queue->used == 0) {
        return -EAGAIN;
    }
    memcpy(data, queue->buffer, queue->msg_size);
    memmove(queue->buffer, queue->buffer + queue->msg_size, --queue->used * queue->msg_size);
    return 0;
}
uint32_t sys_rand32_get(void)
{
    return 7;
}

int settings_subsys_init(void)
{
    FILE *file = fopen(file_name, "rb");

    if (file != NULL) {
        printf("settings found %d\n", fread(entries, sizeof entries, 1, file) == 1);
        fclose(file);
    }
    return 0;
}
int settings_save_one(const char *name, const void *data, size_t size)
{
    entry_t *entry = entries;

    while (entry < entries + ENTRIES && entry->size > 0 && strcmp(entry->name, name) != 0) {
        entry++;
    }
    if (entry == entries + ENTRIES || size > ENTRY_MAX) {
        return -ENOSPC;
    }
    strcpy(entry->name, name);
    entry->size = size;
    memcpy(entry->bytes, data, size);
    return 0;
}
static ssize_t read_entry(void *from, void *data, size_t size)
{
    memcpy(data, ((entry_t *)from)->bytes, size);
    return (ssize_t)size;
}
int settings_load_subtree_direct(const char *subtree, settings_load_direct_cb cb, void *param)
{
    entry_t *entry;

    for (entry = entries; entry < entries + ENTRIES && entry->size > 0; entry++) {
        if (strcmp(entry->name, subtree) == 0) {
            return cb(NULL, entry->size, read_entry, entry, param);
        }
    }
    return 0;
}

void lorawan_register_downlink_callback(struct lorawan_downlink_cb *cb)
{
    listener = cb;
}
int lorawan_set_region(enum lorawan_region region)
{
    return region == LORAWAN_REGION_EU868 ? 0 : -ENOTSUP;
}
int lorawan_start(void)
{
    return 0;
}
void lorawan_enable_adr(bool enable)
{
    printf("adr %d\n", enable);
}
int lorawan_join(const struct lorawan_join_config *config)
{
    advance(6 * SECOND_US);
    if (config->mode == LORAWAN_ACT_ABP) {
        printf("abp %08x nwk %02x app %02x\n", (unsigned)config->abp.dev_addr, config->abp.nwk_skey[0], config->abp.app_skey[0]);
        return 0;
    }
    printf("join eui %02x..%02x key %02x..%02x at %d s\n", config->dev_eui[0], config->dev_eui[7], config->otaa.app_key[0],
           config->otaa.nwk_key[15], (int)(now_us / SECOND_US));
    return ++joins == 3 ? 0 : -ETIMEDOUT;
}
int lorawan_send(uint8_t port, uint8_t *data, uint8_t size, enum lorawan_message_type type)
{
    static const uint8_t schedule[] = {1, 0x10, 0x0E, 0, 0, 60, 0, 30, 0};

    if (++attempts % 5 == 0) {
        printf("busy at %d s\n", (int)(now_us / SECOND_US));
        return -ECONNREFUSED;
    }
    printf("uplink %u: port %u, %u bytes, type %u, confirmed %d at %d s\n", ++uplinks, port, size, data[0], type,
           (int)(now_us / SECOND_US));
    advance(2 * SECOND_US);
    if (uplinks == 1) {
        listener->cb(12, 0, -80, 4, sizeof schedule, schedule);
    }
    advance(SECOND_US);
    return 0;
}
int lorawan_set_class(enum lorawan_class dev_class)
{
    printf("class %c at %d s\n", "ABC"[dev_class], (int)(now_us / SECOND_US));
    round_us = dev_class == LORAWAN_CLASS_C ? now_us + 10 * SECOND_US : INT64_MAX;
    return 0;
}
void lorawan_get_payload_sizes(uint8_t *next, uint8_t *most)
{
    *next = 51;
    *most = 51;
}
LoRaMacStatus_t LoRaMacMcChannelSetup(McChannelParams_t *channel)
{
    printf("group %08x app %02x nwk %02x\n", (unsigned)channel->Address, channel->McKeys.Session.McAppSKey[0],
           channel->McKeys.Session.McNwkSKey[0]);
    return LORAMAC_STATUS_OK;
}
LoRaMacStatus_t LoRaMacMcChannelSetupRxParams(AddressIdentifier_t group, McRxParams_t *receive, uint8_t *status)
{
    printf("group %d at %u Hz DR%d\n", group, (unsigned)receive->Params.ClassC.Frequency, receive->Params.ClassC.Datarate);
    *status = 0;
    return LORAMAC_STATUS_OK;
}

int sample_main(void);

/* Parameters as a node would keep them, over a "reset"; a torn value is not recalled; what finds no room is counted. */
static int settings_roundtrip(void)
{
    static swn_model_t model;
    static swn_node_t one, other;
    static swn_zephyr_t zephyr;
    size_t i;

    model.classes = 3;
    one.config.model = other.config.model = &model;
    one.parameters.head_size = swn_head_size(&model);
    for (i = 0; i < sizeof one.parameters.adapter / sizeof one.parameters.adapter[0]; i++) {
        one.parameters.adapter[i] = (int16_t)(i * 7);
    }
    swn_zephyr_keep(&zephyr, SWN_NVM_PARAMETERS, &one.parameters, sizeof one.parameters);
    swn_zephyr_recall(&other);
    printf("recalled %d\n", memcmp(&one.parameters, &other.parameters, sizeof one.parameters) == 0);
    entries[1].bytes[5] ^= 1;
    memset(&other.parameters, 0, sizeof other.parameters);
    swn_zephyr_recall(&other);
    printf("torn recalled %d\n", other.parameters.head_size != 0);
    printf("unkept %u\n", (unsigned)zephyr.unkept);
    for (i = 0; i < ENTRIES; i++) {
        entries[i].size = 1;
    }
    swn_zephyr_keep(&zephyr, SWN_NVM_MASKED, &one.parameters, sizeof one.parameters);
    printf("unkept %u\n", (unsigned)zephyr.unkept);
    return 0;
}

int main(int argc, char **argv)
{
    file_name = argc > 1 ? argv[1] : "settings";
    return argc > 2 ? settings_roundtrip() : sample_main();
}
