/* Clock synchronisation (TS003, FPort 202), the device's side; both versions have the same bytes.
 *
 * Theory of operation.  The node's clock is the caller's int64 microseconds, which never go back; GPS time is that plus
 * an offset, which starts at 0 and is told by the network. A request (AppTimeReq) holds what the node believes and a
 * token; the answer holds what is to be added, and counts only with the token of the newest request, once. Requests
 * go out when the network asked for them (ForceDeviceResync), every 128 * 2^p s, give or take 30 s, when it told a
 * period, and for the first time after start; the first ones demand an answer.
 */
#ifndef SWN_CLOCK_H
#define SWN_CLOCK_H

#include <stddef.h>
#include <stdint.h>

enum {
    SWN_PORT_CLOCK = 202,
    SWN_CLOCK_PACKAGE = 1,
    SWN_CLOCK_ANSWER_MAX = 24,
    SWN_CLOCK_RETRY_S = 60 /* between the transmissions of a resynchronisation, plus as much again at random */
};

typedef struct swn_clock {
    int64_t request_us; /* when the next request is due */
    uint32_t offset_s;  /* GPS seconds at time 0, modulo 2^32 */
    uint32_t prng;
    uint8_t version;
    uint8_t token;
    uint8_t waits;     /* a request is out */
    uint8_t is_set;    /* the network has told the time */
    uint8_t left;      /* requests of a resynchronisation that may still go out */
    uint8_t period;    /* p, SWN_CLOCK_NO_PERIOD: none */
} swn_clock_t;

enum { SWN_CLOCK_NO_PERIOD = 255 };

/* To be sent on FPort 202; size 0: nothing. */
typedef struct swn_clock_message {
    uint8_t size;
    uint8_t data[SWN_CLOCK_ANSWER_MAX];
} swn_clock_message_t;

void swn_clock_init(swn_clock_t *clock, int64_t now_us, uint64_t seed, uint8_t version);

/* GPS seconds modulo 2^32; meaningful when `is_set`. */
uint32_t swn_clock_gps_s(const swn_clock_t *clock, int64_t now_us);

/* Takes a payload of FPort 202 that came by unicast (`multicast` 0) or in a group; 1 when the clock was corrected. */
uint8_t swn_clock_rx(swn_clock_t *clock, int64_t now_us, const uint8_t *payload, size_t size, uint8_t multicast,
                     swn_clock_message_t *answer);

/* The request that is due, and when to call again (INT64_MAX: when something came). */
int64_t swn_clock_poll(swn_clock_t *clock, int64_t now_us, swn_clock_message_t *request);

#endif
