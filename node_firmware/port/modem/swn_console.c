/* A node above a serial modem, told by lines what it senses; see swn_console.h. */
#include SWN_IDENTITY

#include "swn_console.h"

#include <string.h>

#include "swn_provisioned.h"

#ifndef SWN_DIALECT
#define SWN_DIALECT swn_modem_rui3
#endif

enum { WORDS_MAX = 5 };

typedef struct word {
    const char *text;
    size_t size;
} word_t;

static void say(swn_console_t *console, const char *text)
{
    swn_modem_say(&console->out, text);
}

static void say_number(swn_console_t *console, const char *before, uint32_t value)
{
    swn_modem_say(&console->out, before);
    swn_modem_say_number(&console->out, value);
}

static void end_line(swn_console_t *console)
{
    swn_modem_say(&console->out, "\n");
    console->print(console->board, console->out.text, console->out.size);
    console->out.size = 0;
}

/* Lines ------------------------------------------------------------------------------------------- */

/* At most WORDS_MAX words, the last of which is an overflow. */
static unsigned split(const char *line, size_t size, word_t words[WORDS_MAX])
{
    unsigned count = 0;
    size_t at = 0;

    while (at < size && count < WORDS_MAX) {
        while (at < size && line[at] == ' ') {
            at++;
        }
        words[count].text = line + at;
        while (at < size && line[at] != ' ') {
            at++;
        }
        words[count].size = (size_t)(line + at - words[count].text);
        count += words[count].size > 0;
    }
    return count;
}

static uint8_t whole(word_t word, uint32_t limit, uint32_t *value)
{
    size_t at = 0;

    return (uint8_t)(swn_modem_number(word.text, word.size, &at, NULL, value) && at == word.size && *value < limit);
}

/* -12.345 in units of 1/scale (up to 100), rounded; `missing` for "-" and all that is no number. */
static int32_t decimal(word_t word, int32_t scale, int32_t missing)
{
    uint32_t integral;
    uint32_t milli = 0;
    uint8_t minus;
    size_t at = 0;
    int32_t value;

    if (!swn_modem_number(word.text, word.size, &at, &minus, &integral) || integral > 9999u) {
        return missing;
    }
    if (at < word.size && word.text[at] == '.') {
        uint32_t unit = 100;

        for (at++; at < word.size && word.text[at] >= '0' && word.text[at] <= '9'; at++, unit /= 10u) {
            milli += (uint32_t)(word.text[at] - '0') * unit;
        }
    }
    if (at != word.size) {
        return missing;
    }
    value = ((int32_t)(integral * 1000u + milli) * scale + 500) / 1000;
    return minus ? -value : value;
}

static void on_reading(swn_console_t *console, int64_t now_us, const word_t *words, uint8_t hour)
{
    uint8_t risk[SWN_CLASSES_MAX];
    const int32_t temperature = decimal(words[1], 100, SWN_TEMPERATURE_MISSING);
    const int32_t humidity = decimal(words[2], 2, SWN_HUMIDITY_MISSING);
    const int32_t rain = decimal(words[3], 10, SWN_RAIN_MISSING);
    swn_sample_t sample;
    unsigned i;

    sample.temperature_centi = (int16_t)(temperature > -9000 && temperature < 9000 ? temperature : SWN_TEMPERATURE_MISSING);
    sample.humidity_half = (uint8_t)(humidity >= 0 && humidity <= SWN_HUMIDITY_MAX ? humidity : SWN_HUMIDITY_MISSING);
    sample.rain_tenth = (uint16_t)(rain >= 0 && rain < 5000 ? rain : SWN_RAIN_MISSING);
    sample.hour = hour;
    (void)swn_sense(&console->node, now_us, &sample);
    swn_infer_own(&console->node, risk);
    say(console, "risk");
    for (i = 0; i < console->model.classes; i++) {
        say_number(console, " ", (risk[i] * 100u + 127u) / 255u);
        say(console, "%");
    }
    end_line(console);
}

void swn_console_line(swn_console_t *console, int64_t now_us, const char *line, size_t size, uint8_t hour)
{
    word_t words[WORDS_MAX];
    const unsigned count = split(line, size, words);
    uint32_t first = hour;
    uint32_t second;

    if ((count == 4 || count == WORDS_MAX) && swn_modem_is(words[0].text, words[0].size, "reading") &&
        (count == 4 || whole(words[4], 24, &first))) {
        on_reading(console, now_us, words, (uint8_t)first);
        return;
    }
    if (count == 3 && swn_modem_is(words[0].text, words[0].size, "label") && whole(words[1], UINT16_MAX + 1u, &first) &&
        whole(words[2], SWN_CLASSES_MAX, &second)) {
        say(console, swn_label(&console->node, (uint16_t)first, (uint8_t)second) ? "label taken"
                                                                               : "label of no day that waits for one");
    } else {
        say(console, "not understood");
    }
    end_line(console);
}

uint8_t swn_console_number(const char *line, size_t size, const char *word, int64_t *value)
{
    const size_t digits_max = 18;
    const size_t length = strlen(word);
    size_t at;

    if (!swn_modem_starts(line, size, word) || size < length + 2 || size > length + 1 + digits_max || line[length] != ' ') {
        return 0;
    }
    *value = 0;
    for (at = length + 1; at < size; at++) {
        if (line[at] < '0' || line[at] > '9') {
            return 0;
        }
        *value = *value * 10 + (line[at] - '0');
    }
    return 1;
}

/* Time -------------------------------------------------------------------------------------------- */

static void tell(swn_console_t *console)
{
    const swn_modem_t *modem = &console->modem;

    if (modem->ready != console->told_ready) {
        say_number(console, modem->ready ? "joined, payload " : "not joined, payload ", console->node.config.payload_max);
        end_line(console);
    }
    if (modem->mute != console->told_mute) {
        say(console, modem->mute ? "the modem does not answer: check its line, speed and power" : "the modem answers again");
        end_line(console);
    }
    if (modem->sent != console->told_sent || modem->received != console->told_received || modem->lost != console->told_lost) {
        say_number(console, "sent ", modem->sent);
        say_number(console, ", received ", modem->received);
        say_number(console, ", lost ", modem->lost);
        say_number(console, ", round ", console->node.round_known ? console->node.round : 0u);
        say_number(console, ", model ", console->node.parameters.model_version);
        end_line(console);
    }
    console->told_ready = modem->ready;
    console->told_mute = modem->mute;
    console->told_sent = modem->sent;
    console->told_received = modem->received;
    console->told_lost = modem->lost;
}

void swn_console_tell_experts(swn_console_t *console)
{
    const uint16_t held = swn_model_held(console->node.config.model);
    unsigned i;

    say(console, "experts");
    for (i = 0; i < SWN_EXPERTS_MAX; i++) {
        if (held >> i & 1u) {
            say_number(console, " ", i);
        }
    }
    end_line(console);
}

int64_t swn_console_turn(swn_console_t *console, int64_t now_us)
{
    int64_t node_us;
    int64_t modem_us;

    (void)swn_modem_poll(&console->modem, now_us);
    node_us = swn_poll(&console->node, now_us);
    modem_us = swn_modem_poll(&console->modem, now_us);
    tell(console);
    return modem_us < node_us ? modem_us : node_us;
}

/* Start ------------------------------------------------------------------------------------------- */

static const swn_modem_config_t MODEM = {
    .dialect = &SWN_DIALECT,
    .region = SWN_REGION,
    .dev_eui = SWN_DEV_EUI,
    .join_eui = SWN_JOIN_EUI,
#ifdef SWN_ACTIVATION_ABP
    .abp = 1,
    .dev_addr = SWN_DEV_ADDR,
    .nwk_s_key = SWN_NWK_S_KEY,
    .app_s_key = SWN_APP_S_KEY,
#else
    .app_key = SWN_APP_KEY,
#endif
    .mc_addr = SWN_MC_ADDR,
    .mc_nwk_s_key = SWN_MC_NWK_S_KEY,
    .mc_app_s_key = SWN_MC_APP_S_KEY,
    .mc_frequency_hz = SWN_MC_FREQUENCY_HZ,
    .mc_data_rate = SWN_MC_DATA_RATE,
    .data_rate = SWN_SLOWEST_DATA_RATE,
    .payload_max = SWN_PAYLOAD_MAX_AT_RATE,
    .always_on = (SWN_FLAGS & SWN_ALWAYS_ON) != 0,
    .seed = (uint32_t)(SWN_SEED ^ SWN_SEED >> 32),
};

const char *swn_console_name(void)
{
    return SWN_NODE_NAME;
}

const char *swn_console_init(swn_console_t *console, const swn_console_config_t *config, int64_t now_us)
{
    swn_modem_config_t modem = MODEM;
    swn_config_t node;

    memset(console, 0, sizeof *console);
    console->board = config->board;
    console->print = config->print;
    if (swn_model_open(&console->model, config->image, config->image_size) != SWN_OK) {
        return "is no model container that this node can run";
    }
    modem.board = config->board;
    modem.nvm_write = config->nvm_write;
    if (swn_modem_init(&console->modem, &modem, &console->node, &console->port, now_us) != 0) {
        return "this modem does not know the region, or cannot do ABP";
    }
    swn_provisioned_node(&node);
    node.model = &console->model;
    node.receive = config->receive;
    return swn_init(&console->node, &node, &console->port, now_us) == 0 ? NULL : "the node's header is out of range; provision it again";
}
