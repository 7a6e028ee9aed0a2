/* The dialogue with the modem; see swn_modem.h. */
#include "swn_modem.h"

#include <string.h>

#include "swn_math.h"

#define SECOND_US ((int64_t)1000000)

enum { WAIT_MAX_S = 86400 };

static uint32_t draw(swn_modem_t *modem, uint32_t range)
{
    return (uint32_t)((uint64_t)swn_xorshift32(&modem->prng) * range >> 32);
}

/* The script -------------------------------------------------------------------------------------- */

/* Nothing is said for a while: it doubles, and devices that lost power together do not speak together again. */
static void pause_script(swn_modem_t *modem)
{
    const uint32_t pause_ms = modem->pause_s * 1000u;

    modem->free_us = modem->now_us + (int64_t)(pause_ms + draw(modem, pause_ms)) * 1000;
    modem->pause_s = modem->pause_s > SWN_MODEM_PAUSE_MAX_S / 2 ? SWN_MODEM_PAUSE_MAX_S : modem->pause_s * 2;
    modem->command = SWN_MODEM_IDLE;
}

static void begin_again(swn_modem_t *modem)
{
    modem->restarts++;
    modem->command = SWN_MODEM_IDLE;
    modem->step = 0;
    modem->ready = 0;
    modem->silent = 0;
    modem->class_c = 0;
    modem->out.size = 0;
    modem->out_taken = 0;
}

static void next_step(swn_modem_t *modem)
{
    modem->step++;
    modem->command = SWN_MODEM_IDLE;
}

/* Commands ---------------------------------------------------------------------------------------- */

static void on_refused(swn_modem_t *modem);

static void open_text(swn_modem_t *modem)
{
    modem->out.size = 0;
    modem->out.full = 0;
    modem->out_taken = 0;
}

static void close_text(swn_modem_t *modem, swn_modem_command_t command)
{
    swn_modem_say(&modem->out, "\r\n");
    modem->command = command;
    modem->command_until_us = modem->now_us + SWN_MODEM_REPLY_S * SECOND_US;
    if (modem->out.full) { /* half a command may be another one: it is as good as refused */
        open_text(modem);
        on_refused(modem);
    }
}

static void say_step(swn_modem_t *modem)
{
    swn_modem_step_t step = {0, 0};

    open_text(modem);
    if (!modem->config.dialect->step(&modem->config, modem->step, &modem->out, &step)) {
        modem->ready = 1;
        modem->rate_wanted = 1;
        return;
    }
    modem->step_optional = step.optional;
    modem->step_joins = step.joins;
    close_text(modem, SWN_MODEM_STEP);
}

static uint8_t class_wanted(const swn_modem_t *modem)
{
    return (uint8_t)(modem->config.always_on || swn_windows_open(&modem->windows, modem->now_us));
}

static void say_next(swn_modem_t *modem)
{
    const swn_modem_dialect_t *dialect = modem->config.dialect;

    if (modem->command != SWN_MODEM_IDLE || modem->free_us > modem->now_us) {
        return;
    }
    if (!modem->ready) {
        say_step(modem);
    }
    if (!modem->ready) {
        return;
    }
    open_text(modem);
    if (class_wanted(modem) != modem->class_c) {
        dialect->set_class(class_wanted(modem), &modem->out);
        close_text(modem, SWN_MODEM_CLASS);
    } else if (modem->frame_waits && modem->frame_from_us <= modem->now_us) {
        dialect->send(modem->frame_port, modem->frame, modem->frame_size, &modem->out);
        close_text(modem, SWN_MODEM_SEND);
    } else if (modem->rate_wanted) {
        dialect->ask_rate(&modem->out);
        close_text(modem, SWN_MODEM_ASK_RATE);
    }
}

static void end_frame(swn_modem_t *modem, uint8_t sent)
{
    modem->frame_waits = 0;
    modem->rate_wanted = 1;
    modem->sent += sent;
    modem->lost += sent ? 0u : 1u;
    modem->pause_s = sent ? SWN_MODEM_PAUSE_MIN_S : modem->pause_s;
    modem->command = SWN_MODEM_IDLE;
}

/* What the modem says ----------------------------------------------------------------------------- */

static void on_ok(swn_modem_t *modem)
{
    switch (modem->command) {
    case SWN_MODEM_STEP:
        if (modem->step_joins) {
            modem->command = SWN_MODEM_JOINING;
            modem->command_until_us = modem->now_us + SWN_MODEM_JOIN_S * SECOND_US;
        } else {
            next_step(modem);
        }
        break;
    case SWN_MODEM_SEND:
        modem->command = SWN_MODEM_SENDING;
        modem->command_until_us = modem->now_us + SWN_MODEM_SEND_S * SECOND_US;
        break;
    case SWN_MODEM_CLASS:
        modem->class_c = !modem->class_c;
        modem->command = SWN_MODEM_IDLE;
        break;
    case SWN_MODEM_ASK_RATE:
        modem->rate_wanted = 0;
        modem->command = SWN_MODEM_IDLE;
        break;
    case SWN_MODEM_IDLE:
    case SWN_MODEM_JOINING:
    case SWN_MODEM_SENDING:
        modem->noise++;
        break;
    }
}

static void on_busy(swn_modem_t *modem)
{
    int64_t until_us = modem->now_us + SWN_MODEM_BUSY_S * SECOND_US;

    if (modem->wait_ms > 0) {
        until_us = modem->now_us + (int64_t)modem->wait_ms * 1000;
    }
    modem->wait_ms = 0;
    if (modem->command == SWN_MODEM_SEND || modem->command == SWN_MODEM_SENDING) {
        modem->frame_from_us = until_us; /* the receiver's class may still be switched */
    } else {
        modem->free_us = until_us;
    }
    modem->command = SWN_MODEM_IDLE;
}

static void on_refused(swn_modem_t *modem)
{
    switch (modem->command) {
    case SWN_MODEM_STEP:
        if (modem->step_optional) {
            next_step(modem);
            break;
        }
        begin_again(modem);
        pause_script(modem);
        break;
    case SWN_MODEM_JOINING:
        pause_script(modem);
        break;
    case SWN_MODEM_SEND:
    case SWN_MODEM_SENDING:
        end_frame(modem, 0); /* too long for the data rate, most of all: the rate is asked for next */
        break;
    case SWN_MODEM_CLASS:
        modem->free_us = modem->now_us + SWN_MODEM_BUSY_S * SECOND_US;
        modem->command = SWN_MODEM_IDLE;
        break;
    case SWN_MODEM_ASK_RATE:
        modem->rate_wanted = 0;
        modem->command = SWN_MODEM_IDLE;
        break;
    case SWN_MODEM_IDLE:
        modem->noise++;
        break;
    }
}

static void on_rate(swn_modem_t *modem, uint32_t rate)
{
    if (rate >= SWN_MODEM_RATES || modem->config.payload_max[rate] == 0) {
        modem->noise++;
    } else {
        swn_set_payload_max(modem->node, modem->config.payload_max[rate]);
    }
    if (modem->config.dialect->rate_ends_query && modem->command == SWN_MODEM_ASK_RATE) {
        modem->rate_wanted = 0;
        modem->command = SWN_MODEM_IDLE;
    }
}

static void on_downlink(swn_modem_t *modem, const swn_modem_line_t *line)
{
    const swn_modem_dialect_t *dialect = modem->config.dialect;
    const uint8_t sending = modem->command == SWN_MODEM_SENDING;
    const uint8_t multicast = dialect->tells_multicast ? line->multicast : (uint8_t)!sending;

    modem->received++;
    if (sending && dialect->downlink_ends_send) {
        end_frame(modem, 1);
    }
    swn_rx(modem->node, modem->now_us, line->f_port, line->data, line->size, multicast, line->snr_db);
}

static void on_line(swn_modem_t *modem)
{
    swn_modem_line_t *line = &modem->line;

    memset(line, 0, sizeof *line);
    modem->config.dialect->read(modem->in, modem->in_size, line);
    if (line->word != SWN_MODEM_NOISE) {
        modem->silent = 0;
        modem->mute = 0;
    }
    switch (line->word) {
    case SWN_MODEM_NOISE:
        modem->noise++;
        break;
    case SWN_MODEM_OK:
        on_ok(modem);
        break;
    case SWN_MODEM_BUSY:
        on_busy(modem);
        break;
    case SWN_MODEM_NOT_JOINED: /* it forgot its session; a frame that waits goes out after the next join */
        begin_again(modem);
        pause_script(modem);
        break;
    case SWN_MODEM_JOINED:
        if (modem->command == SWN_MODEM_JOINING || (modem->command == SWN_MODEM_STEP && modem->step_joins)) {
            next_step(modem);
        }
        break;
    case SWN_MODEM_JOIN_FAILED:
    case SWN_MODEM_REFUSED:
        on_refused(modem);
        break;
    case SWN_MODEM_SENT:
    case SWN_MODEM_SEND_FAILED:
        if (modem->command == SWN_MODEM_SENDING || modem->command == SWN_MODEM_SEND) {
            end_frame(modem, line->word == SWN_MODEM_SENT);
        }
        break;
    case SWN_MODEM_WAIT:
        modem->wait_ms = line->value < WAIT_MAX_S * 1000u ? line->value : WAIT_MAX_S * 1000u;
        break;
    case SWN_MODEM_RATE:
        on_rate(modem, line->value);
        break;
    case SWN_MODEM_DOWNLINK:
        on_downlink(modem, line);
        break;
    case SWN_MODEM_RESTARTED:
        begin_again(modem);
        break;
    }
}

/* The command that is out got no answer. */
static void on_silence(swn_modem_t *modem)
{
    modem->silences++;
    switch (modem->command) {
    case SWN_MODEM_JOINING:
        pause_script(modem);
        break;
    case SWN_MODEM_SENDING:
        end_frame(modem, 0);
        break;
    case SWN_MODEM_IDLE:
    case SWN_MODEM_STEP:
    case SWN_MODEM_SEND:
    case SWN_MODEM_CLASS:
    case SWN_MODEM_ASK_RATE:
        modem->command = SWN_MODEM_IDLE;
        break;
    }
    if (++modem->silent >= SWN_MODEM_SILENCES_MAX) {
        modem->mute = 1;
        begin_again(modem);
        pause_script(modem);
    }
}

/* The port ---------------------------------------------------------------------------------------- */

static int modem_tx(void *ctx, uint8_t f_port, const uint8_t *data, size_t size)
{
    swn_modem_t *modem = ctx;

    if (!modem->ready) {
        return SWN_MODEM_BUSY_S;
    }
    if (modem->frame_from_us > modem->now_us) {
        return (int)((modem->frame_from_us - modem->now_us) / SECOND_US) + 1;
    }
    if (modem->frame_waits || size == 0 || size > SWN_PAYLOAD_MAX) {
        return -1;
    }
    modem->frame_waits = 1;
    modem->frame_port = f_port;
    modem->frame_size = (uint8_t)size;
    memcpy(modem->frame, data, size);
    modem->frame_until_us = modem->now_us + SWN_MODEM_FRAME_LIFE_S * SECOND_US;
    return 0;
}

static void modem_listen(void *ctx, int64_t from_us, int64_t until_us)
{
    swn_modem_t *modem = ctx;

    swn_windows_listen(&modem->windows, modem->now_us, from_us, until_us);
}

static void modem_nvm_write(void *ctx, uint8_t key, const void *data, size_t size)
{
    const swn_modem_t *modem = ctx;

    modem->config.nvm_write(modem->config.board, key, data, size);
}

int swn_modem_init(swn_modem_t *modem, const swn_modem_config_t *config, swn_node_t *node, swn_port_t *port,
                   int64_t now_us)
{
    if (!config->dialect->fits(config)) {
        return -1;
    }
    memset(modem, 0, sizeof *modem);
    modem->config = *config;
    modem->node = node;
    modem->now_us = now_us;
    modem->prng = config->seed != 0 ? config->seed : 1;
    modem->pause_s = SWN_MODEM_PAUSE_MIN_S;
    modem->free_us = now_us + (int64_t)draw(modem, SWN_MODEM_PAUSE_MIN_S * 1000u) * 1000;
    swn_windows_init(&modem->windows);
    memset(port, 0, sizeof *port);
    port->ctx = modem;
    port->tx = modem_tx;
    port->listen = modem_listen;
    port->nvm_write = config->nvm_write != NULL ? modem_nvm_write : NULL;
    return 0;
}

/* The world --------------------------------------------------------------------------------------- */

void swn_modem_feed(swn_modem_t *modem, int64_t now_us, const uint8_t *bytes, size_t size)
{
    size_t i;

    modem->now_us = now_us;
    for (i = 0; i < size; i++) {
        const char c = (char)bytes[i];

        if (c == '\r' || c == '\n') {
            if (modem->in_size > 0 && !modem->skipping) {
                on_line(modem);
            }
            modem->in_size = 0;
            modem->skipping = 0;
        } else if (modem->skipping) {
            continue;
        } else if (modem->in_size == sizeof modem->in) {
            modem->skipping = 1;
            modem->overflows++;
        } else {
            modem->in[modem->in_size++] = c;
        }
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Whether the frame is with the modem: it is not given up then, however long that takes. */
static int is_sending(const swn_modem_t *modem)
{
    return modem->command == SWN_MODEM_SEND || modem->command == SWN_MODEM_SENDING;
}

static int64_t next_us(const swn_modem_t *modem)
{
    int64_t next = modem->windows.next_from_us;

    if (modem->command != SWN_MODEM_IDLE) {
        next = earlier(next, modem->command_until_us);
    } else if (modem->free_us > modem->now_us) {
        next = earlier(next, modem->free_us);
    }
    if (swn_windows_open(&modem->windows, modem->now_us)) {
        next = earlier(next, modem->windows.open_until_us);
    }
    if (modem->frame_waits && !is_sending(modem)) {
        next = earlier(next, modem->frame_from_us > modem->now_us ? modem->frame_from_us : modem->frame_until_us);
    }
    return next > modem->now_us ? next : modem->now_us + 1;
}

int64_t swn_modem_poll(swn_modem_t *modem, int64_t now_us)
{
    modem->now_us = now_us;
    swn_windows_begin(&modem->windows, now_us);
    if (modem->command != SWN_MODEM_IDLE && modem->command_until_us <= now_us) {
        on_silence(modem);
    }
    if (modem->frame_waits && modem->frame_until_us <= now_us && !is_sending(modem)) {
        modem->frame_waits = 0;
        modem->lost++;
    }
    say_next(modem);
    return next_us(modem);
}

size_t swn_modem_take(swn_modem_t *modem, uint8_t *bytes, size_t size)
{
    const size_t left = modem->out.size - modem->out_taken;
    const size_t taken = left < size ? left : size;

    memcpy(bytes, modem->out.text + modem->out_taken, taken);
    modem->out_taken = (uint16_t)(modem->out_taken + taken);
    return taken;
}
