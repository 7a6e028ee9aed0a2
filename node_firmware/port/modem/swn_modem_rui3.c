/* RUI3, the AT commands of RAK3172, RAK4630 and their kin; source: RAKwireless, "RUI3 AT Command Manual".
 *
 *   AT+SEND=12:0102       OK | AT_BUSY_ERROR | AT_NO_NETWORK_JOINED | AT_PARAM_ERROR, then +EVT:TX_DONE
 *   AT+JOIN=1:0:8:0       OK, then +EVT:JOINED | +EVT:JOIN_FAILED_RX_TIMEOUT
 *   Restricted_Wait_4553_ms     before a busy, when it is the duty cycle
 *   +EVT:RX_1:-70:8:UNICAST:10:0102     window, RSSI, SNR, whose, FPort, payload
 */
#include <string.h>

#include "swn_modem.h"

typedef struct band {
    const char *region;
    uint8_t number;
    uint8_t duty_cycle;
} band_t;

/* AS923 is AS923-1. */
static const band_t BANDS[] = {{"eu433", 0, 1}, {"cn470", 1, 0}, {"ru864", 2, 1}, {"in865", 3, 0}, {"eu868", 4, 1},
                               {"us915", 5, 0}, {"au915", 6, 0}, {"kr920", 7, 0}, {"as923", 8, 0}};

static const band_t *band_of(const swn_modem_config_t *config)
{
    size_t i;

    for (i = 0; i < sizeof BANDS / sizeof BANDS[0]; i++) {
        if (strcmp(BANDS[i].region, config->region) == 0) {
            return &BANDS[i];
        }
    }
    return NULL;
}

static int fits(const swn_modem_config_t *config)
{
    return band_of(config) != NULL;
}

static void say_identity(const swn_modem_config_t *config, unsigned index, swn_modem_text_t *out)
{
    switch (index) {
    case 0:
        swn_modem_say(out, config->abp ? "AT+NJM=0" : "AT+NJM=1");
        break;
    case 1:
        swn_modem_say_setting(out, "AT+DEVEUI=", config->dev_eui, sizeof config->dev_eui);
        break;
    case 2:
        if (config->abp) {
            swn_modem_say(out, "AT+DEVADDR=");
            swn_modem_say_address(out, config->dev_addr);
        } else {
            swn_modem_say_setting(out, "AT+APPEUI=", config->join_eui, sizeof config->join_eui);
        }
        break;
    case 3:
        swn_modem_say_setting(out, config->abp ? "AT+NWKSKEY=" : "AT+APPKEY=", config->abp ? config->nwk_s_key : config->app_key, 16);
        break;
    default:
        swn_modem_say_setting(out, "AT+APPSKEY=", config->app_s_key, sizeof config->app_s_key);
        break;
    }
}

static void say_group(const swn_modem_config_t *config, swn_modem_text_t *out)
{
    swn_modem_say(out, "AT+ADDMULC=C:");
    swn_modem_say_address(out, config->mc_addr);
    swn_modem_say_setting(out, ":", config->mc_nwk_s_key, sizeof config->mc_nwk_s_key);
    swn_modem_say_setting(out, ":", config->mc_app_s_key, sizeof config->mc_app_s_key);
    swn_modem_say(out, ":");
    swn_modem_say_number(out, config->mc_frequency_hz);
    swn_modem_say(out, ":");
    swn_modem_say_number(out, config->mc_data_rate);
}

static int script(const swn_modem_config_t *config, unsigned index, swn_modem_text_t *out, swn_modem_step_t *step)
{
    const unsigned identity_steps = config->abp ? 5 : 4;

    if (index < identity_steps) {
        say_identity(config, index, out);
        return 1;
    }
    switch (index - identity_steps) {
    case 0:
        swn_modem_say(out, "AT+BAND=");
        swn_modem_say_number(out, band_of(config)->number);
        return 1;
    case 1:
        step->optional = 1; /* bands without the law do not know the setting */
        swn_modem_say(out, band_of(config)->duty_cycle ? "AT+DCS=1" : "AT+DCS=0");
        return 1;
    case 2:
        swn_modem_say(out, "AT+CFM=0");
        return 1;
    case 3:
        swn_modem_say(out, "AT+CLASS=A");
        return 1;
    case 4:
        swn_modem_say(out, "AT+ADR=1");
        return 1;
    case 5:
        step->optional = 1; /* some versions keep the rate to ADR alone */
        swn_modem_say(out, "AT+DR=");
        swn_modem_say_number(out, config->data_rate);
        return 1;
    case 6:
        step->joins = 1; /* one attempt: the pauses between them are ours */
        swn_modem_say(out, "AT+JOIN=1:0:8:1");
        return 1;
    case 7:
        step->optional = 1; /* it may hold the group of before; a second one of that address is refused */
        swn_modem_say(out, "AT+RMVMULC=");
        swn_modem_say_address(out, config->mc_addr);
        return 1;
    case 8:
        say_group(config, out);
        return 1;
    default:
        return 0;
    }
}

static void send(uint8_t f_port, const uint8_t *data, size_t size, swn_modem_text_t *out)
{
    swn_modem_say(out, "AT+SEND=");
    swn_modem_say_number(out, f_port);
    swn_modem_say_setting(out, ":", data, size);
}

static void ask_rate(swn_modem_text_t *out)
{
    swn_modem_say(out, "AT+DR=?");
}

static void set_class(uint8_t class_c, swn_modem_text_t *out)
{
    swn_modem_say(out, class_c ? "AT+CLASS=C" : "AT+CLASS=A");
}

/* 1:-70:8:UNICAST:10:0102, behind +EVT:RX_. */
static uint8_t read_downlink(const char *line, size_t size, size_t at, swn_modem_line_t *out)
{
    uint8_t minus;
    uint32_t number;

    while (at < size && line[at] != ':') {
        at++; /* 1, 2, B, C */
    }
    if (at++ >= size || !swn_modem_number(line, size, &at, &minus, &number) || at >= size || line[at++] != ':' ||
        !swn_modem_number(line, size, &at, &minus, &number) || number > 100u) {
        return 0;
    }
    out->snr_db = (int8_t)(minus ? -(int)number : (int)number);
    if (swn_modem_starts(line + at, size - at, ":UNICAST:")) {
        at += 9;
    } else if (swn_modem_starts(line + at, size - at, ":MULTICAST:")) {
        out->multicast = 1;
        at += 11;
    } else {
        return 0;
    }
    if (!swn_modem_number(line, size, &at, NULL, &number) || number > 255u || at >= size || line[at++] != ':') {
        return 0;
    }
    out->f_port = (uint8_t)number;
    return swn_modem_hex(line, size, &at, out->data, sizeof out->data, &out->size);
}

static swn_modem_word_t word_of(const char *line, size_t size)
{
    static const struct {
        const char *text;
        swn_modem_word_t word;
    } whole[] = {{"OK", SWN_MODEM_OK},
                 {"AT_BUSY_ERROR", SWN_MODEM_BUSY},
                 {"AT_DUTYCYCLE_RESTRICTED", SWN_MODEM_BUSY},
                 {"AT_DUTYCYLE_RESTRICTED", SWN_MODEM_BUSY}, /* so written by firmware up to 1.0.4 */
                 {"AT_NO_NETWORK_JOINED", SWN_MODEM_NOT_JOINED},
                 {"+EVT:JOINED", SWN_MODEM_JOINED},
                 {"+EVT:TX_DONE", SWN_MODEM_SENT},
                 {"+EVT:SEND_CONFIRMED_OK", SWN_MODEM_SENT}};
    static const struct {
        const char *text;
        swn_modem_word_t word;
    } begins[] = {{"AT_", SWN_MODEM_REFUSED},
                  {"+EVT:JOIN_FAILED", SWN_MODEM_JOIN_FAILED},
                  {"+EVT:JOIN FAILED", SWN_MODEM_JOIN_FAILED},
                  {"+EVT:SEND_CONFIRMED_FAILED", SWN_MODEM_SEND_FAILED},
                  {"Current Work Mode:", SWN_MODEM_RESTARTED}};
    size_t i;

    for (i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        if (swn_modem_is(line, size, whole[i].text)) {
            return whole[i].word;
        }
    }
    for (i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        if (swn_modem_starts(line, size, begins[i].text)) {
            return begins[i].word;
        }
    }
    return SWN_MODEM_NOISE;
}

static void read(const char *line, size_t size, swn_modem_line_t *out)
{
    static const char wait[] = "Restricted_Wait_", rate[] = "AT+DR=", downlink[] = "+EVT:RX_";
    size_t at;

    out->word = word_of(line, size);
    if (swn_modem_starts(line, size, downlink)) {
        out->word = read_downlink(line, size, sizeof downlink - 1, out) ? SWN_MODEM_DOWNLINK : SWN_MODEM_NOISE;
    } else if (swn_modem_starts(line, size, wait)) {
        at = sizeof wait - 1;
        out->word = swn_modem_number(line, size, &at, NULL, &out->value) ? SWN_MODEM_WAIT : SWN_MODEM_NOISE;
    } else if (swn_modem_starts(line, size, rate)) {
        at = sizeof rate - 1;
        out->word = swn_modem_number(line, size, &at, NULL, &out->value) && at == size ? SWN_MODEM_RATE : SWN_MODEM_NOISE;
    }
}

const swn_modem_dialect_t swn_modem_rui3 = {0, 1, 0, fits, script, send, ask_rate, set_class, read};
