/* What nodes lend one another: readings of sensors that one of them has and the other lacks.
 *
 * Theory of operation.  The gateway's SHARE says for so many days what to send and what to use.
 *   lending     a while after each noon the day's 24 hours go up in one READINGS frame, own readings only: what
 *               was borrowed is never passed on.
 *   borrowing   the node keeps a second history beside its own: its own readings, corrected by the offset that
 *               the gateway found, and a neighbour's where one is missing (or, when told so, instead of it). Two hours
 *               after noon it asks for the closed day's hours, again every two hours until they come; a third
 *               history, as it was at noon, then gives the day's verdict anew.
 * Hours are put to their place by the clock's noon, so a frame may come a day late; hours that do not come stay
 * missing.  A neighbour's humidity is taken halfway as it is and halfway as what its vapour would be at this
 * node's own temperature: the first errs with the site, the second with the thermometers.
 * Days whose true class is told are counted twice, by own readings and with the neighbour's: when the own ones
 * are right more often, the node goes back to them, and the next request says so.
 */
#ifndef SWN_BORROW_H
#define SWN_BORROW_H

#include <stddef.h>
#include <stdint.h>

#include "swn_features.h"
#include "swn_readings.h"

enum { SWN_USE_HUMIDITY = 1, SWN_USE_RAIN = 2, SWN_USE_HUMIDITY_INSTEAD = 4 }; /* swn_share_t.use */

enum {
    SWN_LEND_AFTER_S = 300,     /* noon to the day's frame, and at random up to */
    SWN_LEND_SPREAD_S = 5400,   /* so much later */
    SWN_REQUEST_AFTER_S = 7200, /* noon to the first request, and from each to the next, */
    SWN_REQUEST_SPREAD_S = 1800,
    SWN_REQUESTS_MAX = 6,
    SWN_VERDICT_DAYS = 8,       /* days whose label may still come */
    SWN_TOLD_MIN = 8,           /* labelled days that can end a loan */
    SWN_TOLD_MAX = 200
};

typedef struct swn_share {
    uint8_t id;         /* 1..15; 0: none */
    uint8_t send;       /* SWN_READINGS_... */
    uint8_t use;        /* SWN_USE_... */
    int8_t offset_half; /* added to the own humidity, 0.5 % */
    uint8_t days;
} swn_share_t;

/* One closed day's class, by the node's own readings and as it was judged. */
typedef struct swn_day_verdict {
    uint16_t day;
    uint8_t own;
    uint8_t judged;
    uint8_t comparable; /* the second has what the first lacks */
} swn_day_verdict_t;

typedef struct swn_borrow {
    swn_history_t lent; /* own and borrowed hours together */
    swn_history_t noon; /* the same as it was at the last noon */
    int64_t noon_us;
    int64_t readings_due_us; /* INT64_MAX: none */
    int64_t request_due_us;
    swn_share_t share;  /* days: that are left */
    swn_day_verdict_t verdicts[SWN_VERDICT_DAYS];
    uint8_t noon_ready; /* a noon has passed since the loan began */
    uint8_t served;     /* the last closed day has its borrowed hours */
    uint8_t requests;   /* for that day */
    uint8_t told;       /* days counted in the next two */
    uint8_t own_right;
    uint8_t judged_right;
} swn_borrow_t;

void swn_borrow_init(swn_borrow_t *borrow);

/* The gateway's order; `own` is the node's history. */
void swn_borrow_share(swn_borrow_t *borrow, const swn_share_t *share, const swn_history_t *own);

/* One more hour; `stuck` when the humidity sensor is flat. */
void swn_borrow_hour(swn_borrow_t *borrow, const swn_sample_t *sample, uint8_t stuck);

/* 1 when the second history is the better one. */
uint8_t swn_borrow_in_use(const swn_borrow_t *borrow);

/* A noon has passed at noon_us: plans what is to be sent. */
void swn_borrow_noon(swn_borrow_t *borrow, int64_t noon_us, uint32_t *prng);

/* A neighbour's day, `since_noon` hours after the node's own last noon; 1 when the last closed day has changed. */
uint8_t swn_borrow_take(swn_borrow_t *borrow, const swn_readings_t *readings, unsigned since_noon);

/* The day's frame of own readings, and the request; sizes, 0 when there is nothing to say. */
size_t swn_borrow_readings(const swn_borrow_t *borrow, const swn_history_t *own, unsigned since_noon, int64_t now_us,
                           uint8_t *out, size_t room);
size_t swn_borrow_request(const swn_borrow_t *borrow, int64_t now_us, uint8_t *out, size_t room);

/* The request went out: plans the next one, in case nothing comes. */
void swn_borrow_asked(swn_borrow_t *borrow, int64_t now_us, uint32_t *prng);

/* Keeps the two verdicts of a day; counts them when its label comes. */
void swn_borrow_judged(swn_borrow_t *borrow, uint16_t day, uint8_t own, uint8_t judged);
void swn_borrow_label(swn_borrow_t *borrow, uint16_t day, uint8_t label);

#endif
