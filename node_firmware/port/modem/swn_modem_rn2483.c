/* RN2483, firmware 1.0.5; source: Microchip, "RN2483 LoRa Technology Module Command Reference User's Guide" (DS40001784G).
 *
 *   mac tx uncnf 12 0102   ok | busy | no_free_ch | not_joined | invalid_data_len, then mac_tx_ok | mac_rx 10 0102 | mac_err
 *   mac join otaa          ok | no_free_ch | keys_not_init, then accepted | denied
 *
 * It does not say which downlinks were the group's: those that answer no uplink are taken for it. After a `mac reset` its counters
 * begin anew, so a session that is fixed (ABP) would repeat them: it joins, or it is not used.
 */
#include <string.h>

#include "swn_modem.h"

static const char *band_of(const swn_modem_config_t *config)
{
    if (strcmp(config->region, "eu868") == 0) {
        return "868";
    }
    return strcmp(config->region, "eu433") == 0 ? "433" : NULL;
}

static int fits(const swn_modem_config_t *config)
{
    return band_of(config) != NULL && !config->abp;
}

static void say_group(const swn_modem_config_t *config, unsigned index, swn_modem_text_t *out)
{
    switch (index) {
    case 0:
        swn_modem_say(out, "mac set mcastdevaddr ");
        swn_modem_say_address(out, config->mc_addr);
        break;
    case 1:
        swn_modem_say_setting(out, "mac set mcastnwkskey ", config->mc_nwk_s_key, sizeof config->mc_nwk_s_key);
        break;
    case 2:
        swn_modem_say_setting(out, "mac set mcastappskey ", config->mc_app_s_key, sizeof config->mc_app_s_key);
        break;
    case 3:
        swn_modem_say(out, "mac set mcast on");
        break;
    default: /* class C listens where RX2 is */
        swn_modem_say(out, "mac set rx2 ");
        swn_modem_say_number(out, config->mc_data_rate);
        swn_modem_say(out, " ");
        swn_modem_say_number(out, config->mc_frequency_hz);
        break;
    }
}

enum { GROUP_STEPS = 5, FIRST_GROUP_STEP = 6 };

static int script(const swn_modem_config_t *config, unsigned index, swn_modem_text_t *out, swn_modem_step_t *step)
{
    if (index >= FIRST_GROUP_STEP && index < FIRST_GROUP_STEP + GROUP_STEPS) {
        say_group(config, index - FIRST_GROUP_STEP, out);
        return 1;
    }
    switch (index) {
    case 0:
        swn_modem_say(out, "mac reset ");
        swn_modem_say(out, band_of(config));
        return 1;
    case 1:
        swn_modem_say_setting(out, "mac set deveui ", config->dev_eui, sizeof config->dev_eui);
        return 1;
    case 2:
        swn_modem_say_setting(out, "mac set appeui ", config->join_eui, sizeof config->join_eui);
        return 1;
    case 3:
        swn_modem_say_setting(out, "mac set appkey ", config->app_key, sizeof config->app_key);
        return 1;
    case 4:
        swn_modem_say(out, "mac set adr on");
        return 1;
    case 5:
        swn_modem_say(out, "mac set dr ");
        swn_modem_say_number(out, config->data_rate);
        return 1;
    case FIRST_GROUP_STEP + GROUP_STEPS:
        step->joins = 1;
        swn_modem_say(out, "mac join otaa");
        return 1;
    case FIRST_GROUP_STEP + GROUP_STEPS + 1: /* the join accept has set RX2 to the network's */
        say_group(config, GROUP_STEPS - 1, out);
        return 1;
    default:
        return 0;
    }
}

static void send(uint8_t f_port, const uint8_t *data, size_t size, swn_modem_text_t *out)
{
    swn_modem_say(out, "mac tx uncnf ");
    swn_modem_say_number(out, f_port);
    swn_modem_say_setting(out, " ", data, size);
}

static void ask_rate(swn_modem_text_t *out)
{
    swn_modem_say(out, "mac get dr");
}

static void set_class(uint8_t class_c, swn_modem_text_t *out)
{
    swn_modem_say(out, class_c ? "mac set class c" : "mac set class a");
}

static uint8_t read_downlink(const char *line, size_t size, size_t at, swn_modem_line_t *out)
{
    uint32_t f_port;

    if (!swn_modem_number(line, size, &at, NULL, &f_port) || f_port > 255u || at >= size || line[at++] != ' ') {
        return 0;
    }
    out->f_port = (uint8_t)f_port;
    return swn_modem_hex(line, size, &at, out->data, sizeof out->data, &out->size);
}

static void read(const char *line, size_t size, swn_modem_line_t *out)
{
    static const struct {
        const char *text;
        swn_modem_word_t word;
    } words[] = {{"ok", SWN_MODEM_OK},
                 {"busy", SWN_MODEM_BUSY},
                 {"no_free_ch", SWN_MODEM_BUSY},
                 {"mac_paused", SWN_MODEM_BUSY},
                 {"silent", SWN_MODEM_REFUSED},
                 {"invalid_param", SWN_MODEM_REFUSED},
                 {"invalid_data_len", SWN_MODEM_REFUSED},
                 {"keys_not_init", SWN_MODEM_REFUSED},
                 {"not_joined", SWN_MODEM_NOT_JOINED},
                 {"frame_counter_err_rejoin_needed", SWN_MODEM_NOT_JOINED},
                 {"accepted", SWN_MODEM_JOINED},
                 {"denied", SWN_MODEM_JOIN_FAILED},
                 {"mac_tx_ok", SWN_MODEM_SENT},
                 {"mac_err", SWN_MODEM_SEND_FAILED}};
    static const char downlink[] = "mac_rx ";
    size_t at = 0;
    size_t i;

    for (i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (swn_modem_is(line, size, words[i].text)) {
            out->word = words[i].word;
            return;
        }
    }
    if (swn_modem_starts(line, size, downlink)) {
        out->word = read_downlink(line, size, sizeof downlink - 1, out) ? SWN_MODEM_DOWNLINK : SWN_MODEM_NOISE;
    } else if (swn_modem_starts(line, size, "RN2483 ")) {
        out->word = SWN_MODEM_RESTARTED;
    } else if (swn_modem_number(line, size, &at, NULL, &out->value) && at == size) {
        out->word = SWN_MODEM_RATE;
    }
}

const swn_modem_dialect_t swn_modem_rn2483 = {1, 0, 1, fits, script, send, ask_rate, set_class, read};
