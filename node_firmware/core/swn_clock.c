/* Clock synchronisation; see swn_clock.h. */
#include "swn_clock.h"

#include <string.h>

#include "swn_math.h"

enum {
    CID_VERSION = 0,
    CID_TIME = 1,
    CID_PERIOD = 2,
    CID_RESYNC = 3,
    TOKEN_BITS = 15,
    ANSWER_REQUIRED = 16,
    FIRST_TRIES = 3,
    PERIOD_UNIT_S = 128,
    PERIOD_JITTER_S = 30,
    SECOND_US = 1000000
};

void swn_clock_init(swn_clock_t *clock, int64_t now_us, uint64_t seed, uint8_t version)
{
    memset(clock, 0, sizeof *clock);
    clock->prng = swn_seed32(seed);
    clock->version = version;
    clock->period = SWN_CLOCK_NO_PERIOD;
    clock->left = FIRST_TRIES;
    clock->request_us = now_us;
}

uint32_t swn_clock_gps_s(const swn_clock_t *clock, int64_t now_us)
{
    return clock->offset_s + (uint32_t)((uint64_t)(now_us / SECOND_US) & 0xFFFFFFFFu);
}

/* 0..span_s - 1 seconds, in microseconds. */
static int64_t chance_us(swn_clock_t *clock, uint32_t span_s)
{
    return (int64_t)((uint64_t)swn_xorshift32(&clock->prng) * span_s >> 32) * SECOND_US;
}

static void schedule(swn_clock_t *clock, int64_t now_us)
{
    if (clock->left > 0) {
        clock->request_us = now_us + (int64_t)SWN_CLOCK_RETRY_S * SECOND_US + chance_us(clock, SWN_CLOCK_RETRY_S);
    } else if (clock->period != SWN_CLOCK_NO_PERIOD) {
        const uint32_t period_s = (uint32_t)PERIOD_UNIT_S << clock->period;
        clock->request_us = now_us + ((int64_t)period_s - PERIOD_JITTER_S) * SECOND_US +
                            chance_us(clock, 2 * PERIOD_JITTER_S + 1);
    } else {
        clock->request_us = INT64_MAX;
    }
}

static void put(swn_clock_message_t *message, const uint8_t *data, size_t size)
{
    if (message->size + size <= SWN_CLOCK_ANSWER_MAX) {
        memcpy(message->data + message->size, data, size);
        message->size = (uint8_t)(message->size + size);
    }
}

static void put_time(uint8_t *out, uint32_t gps_s)
{
    unsigned i;

    for (i = 0; i < 4; i++) {
        out[i] = (uint8_t)(gps_s >> 8 * i & 0xFFu);
    }
}

static uint8_t correct(swn_clock_t *clock, int64_t now_us, const uint8_t *body)
{
    if (!clock->waits || (body[4] & TOKEN_BITS) != clock->token) {
        return 0;
    }
    clock->offset_s += swn_get32(body); /* two's complement, modulo 2^32 */
    clock->token = (uint8_t)((clock->token + 1u) & TOKEN_BITS);
    clock->waits = 0;
    clock->is_set = 1;
    clock->left = 0;
    schedule(clock, now_us);
    return 1;
}

static void set_period(swn_clock_t *clock, int64_t now_us, uint8_t period, swn_clock_message_t *answer)
{
    uint8_t said[6] = {CID_PERIOD, 0};

    put_time(said + 2, swn_clock_gps_s(clock, now_us));
    put(answer, said, sizeof said);
    clock->period = period;
    if (clock->left == 0) {
        schedule(clock, now_us);
    }
}

static size_t body_size(uint8_t cid)
{
    static const uint8_t SIZES[4] = {0, 5, 1, 1};

    return cid < sizeof SIZES ? SIZES[cid] : SIZE_MAX;
}

uint8_t swn_clock_rx(swn_clock_t *clock, int64_t now_us, const uint8_t *payload, size_t size, uint8_t multicast,
                     swn_clock_message_t *answer)
{
    const uint8_t version[3] = {CID_VERSION, SWN_CLOCK_PACKAGE, clock->version};
    uint8_t corrected = 0;

    answer->size = 0;
    while (size > 0) {
        const uint8_t cid = payload[0];
        const size_t body = body_size(cid);

        if (body > size - 1) {
            break;
        }
        if (cid == CID_RESYNC) { /* a group may be told so, too; each node then asks at its own time */
            clock->left = payload[1] & 7u;
            if (clock->left > 0) {
                clock->request_us = now_us + (multicast ? chance_us(clock, SWN_CLOCK_RETRY_S) : 0);
            }
        } else if (multicast) {
            break;
        } else if (cid == CID_VERSION) {
            put(answer, version, sizeof version);
        } else if (cid == CID_TIME) {
            corrected = (uint8_t)(corrected | correct(clock, now_us, payload + 1));
        } else {
            set_period(clock, now_us, payload[1] & 15u, answer);
        }
        payload += 1 + body;
        size -= 1 + body;
    }
    return corrected;
}

int64_t swn_clock_poll(swn_clock_t *clock, int64_t now_us, swn_clock_message_t *request)
{
    uint8_t said[6] = {CID_TIME};

    request->size = 0;
    if (now_us >= clock->request_us) {
        put_time(said + 1, swn_clock_gps_s(clock, now_us));
        said[5] = (uint8_t)(clock->token | (clock->is_set ? 0u : ANSWER_REQUIRED));
        put(request, said, sizeof said);
        clock->waits = 1;
        clock->left = (uint8_t)(clock->left - (clock->left > 0));
        schedule(clock, now_us);
    }
    return clock->request_us;
}
