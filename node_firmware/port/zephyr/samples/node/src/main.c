/* A node of the swarm on Zephyr. Its keys are in identity.h (a header of `swarm pilot provision`), the model in model.h
 * (`swarm model header`), both beside this file; read_sensors() is yours. */
#include <zephyr/device.h>
#include <zephyr/kernel.h>
#include <zephyr/logging/log.h>
#include <zephyr/lorawan/lorawan.h>
#include <zephyr/random/random.h>

#include "identity.h"
#include "model.h"
#include "swn_provisioned.h"
#include "swn_zephyr.h"

LOG_MODULE_REGISTER(swarm_node);

#define SECOND_US ((int64_t)1000000)
#define HOUR_US (3600 * SECOND_US)
/* LORAWAN_REGION_EU868 of SWN_REGION_ID EU868. */
#define REGION_2(id) LORAWAN_REGION_##id
#define REGION(id) REGION_2(id)

enum { JOIN_PAUSE_MIN_S = 15, JOIN_PAUSE_MAX_S = 3600 };

static swn_model_t model;
static swn_node_t node;
static swn_port_t port;
static swn_zephyr_t zephyr;

static const swn_zephyr_group_t group = {
    SWN_MC_ADDR, SWN_MC_NWK_S_KEY, SWN_MC_APP_S_KEY, SWN_MC_FREQUENCY_HZ, SWN_MC_DATA_RATE,
};

/* Yours: the hour that ended at `hour` o'clock, local time. */
static void read_sensors(swn_sample_t *sample)
{
    sample->temperature_centi = SWN_TEMPERATURE_MISSING;
    sample->humidity_half = SWN_HUMIDITY_MISSING;
    sample->rain_tenth = SWN_RAIN_MISSING;
    sample->hour = (uint8_t)(swn_zephyr_now_us() / HOUR_US % 24);
}

static void join_config(struct lorawan_join_config *config)
{
    static uint8_t dev_eui[] = SWN_DEV_EUI;
    static uint8_t join_eui[] = SWN_JOIN_EUI;
#ifdef SWN_ACTIVATION_ABP
    static uint8_t nwk_s_key[] = SWN_NWK_S_KEY;
    static uint8_t app_s_key[] = SWN_APP_S_KEY;

    config->mode = LORAWAN_ACT_ABP;
    config->abp.dev_addr = SWN_DEV_ADDR;
    config->abp.nwk_skey = nwk_s_key;
    config->abp.app_skey = app_s_key;
    config->abp.app_eui = join_eui;
#else
    static uint8_t app_key[] = SWN_APP_KEY;

    config->mode = LORAWAN_ACT_OTAA;
    config->otaa.join_eui = join_eui;
    config->otaa.app_key = app_key;
    config->otaa.nwk_key = app_key;
    config->otaa.dev_nonce = 0; /* not looked at: with CONFIG_LORAWAN_NVM_SETTINGS the stack keeps its own */
#endif
    config->dev_eui = dev_eui;
}

/* Pauses double and are random, so that a field that lost power together does not join together. */
static void join(void)
{
    struct lorawan_join_config config;
    uint32_t pause_s = JOIN_PAUSE_MIN_S;
    int result;

    join_config(&config);
    k_sleep(K_MSEC(sys_rand32_get() % 10000u));
    while ((result = lorawan_join(&config)) != 0) {
        LOG_WRN("join: %d", result);
        k_sleep(K_SECONDS(pause_s + sys_rand32_get() % pause_s));
        pause_s = pause_s > JOIN_PAUSE_MAX_S / 2 ? JOIN_PAUSE_MAX_S : pause_s * 2;
    }
}

static int start(void)
{
    swn_config_t config;
    swn_status_t status;
    int result;

    status = swn_model_open(&model, SWN_MODEL, sizeof SWN_MODEL);
    if (status != SWN_OK) {
        LOG_ERR("model.h: refused with %d", (int)status);
        return -1;
    }
    result = swn_zephyr_settings_init();
    if (result == 0) {
        result = lorawan_set_region(REGION(SWN_REGION_ID));
    }
    if (result == 0) {
        result = lorawan_start();
    }
    if (result != 0) {
        LOG_ERR("settings, region or LoRaWAN: %d", result);
        return -1;
    }
    swn_provisioned_node(&config);
    config.model = &model;
    swn_zephyr_init(&zephyr, &node, &port);
    if (swn_init(&node, &config, &port, swn_zephyr_now_us()) != 0) {
        LOG_ERR("identity.h is out of range");
        return -1;
    }
    swn_zephyr_recall(&node);
    lorawan_enable_adr(true);
    join();
    result = swn_zephyr_joined(&zephyr, &group);
    if (result != 0) {
        LOG_ERR("multicast group: %d", result);
    }
    return 0;
}

int main(void)
{
    int64_t reading_us = HOUR_US;
    int64_t wake_us;

    if (start() != 0) {
        return 0;
    }
    for (;;) {
        if (swn_zephyr_now_us() >= reading_us) {
            swn_sample_t sample;

            reading_us += HOUR_US;
            read_sensors(&sample);
            (void)swn_sense(&node, swn_zephyr_now_us(), &sample);
        }
        wake_us = swn_poll(&node, swn_zephyr_now_us());
        if (zephyr.unkept > 0) {
            LOG_ERR("stopped: what was to outlive a reset was not kept");
            return 0; /* nothing was sent since: no mask is used up that a reset would forget */
        }
        (void)swn_zephyr_run(&zephyr, wake_us < reading_us ? wake_us : reading_us);
    }
}
