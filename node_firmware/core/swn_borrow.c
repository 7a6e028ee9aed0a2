/* Lending and borrowing; see swn_borrow.h. */
#include "swn_borrow.h"

#include <string.h>

#include "swn_math.h"

#define SECOND_US ((int64_t)1000000)

enum {
    REQUEST_TYPE = 3,
    REQUEST_SIZE = 5,
    AGE_STEP_S = 600,
    STEPS_PER_HOUR = 6,
    TEMPERATURE_FIRST_CENTI = -3000,
    TEMPERATURE_UNIT_CENTI = 50,
    NEAR_CENTI = 500 /* beyond that difference of temperature the vapour says no more */
};

static int64_t later_us(int64_t from_us, uint32_t after_s, uint32_t spread_s, uint32_t *prng)
{
    return from_us + ((int64_t)after_s + (int64_t)((uint64_t)swn_xorshift32(prng) * spread_s >> 32)) * SECOND_US;
}

void swn_borrow_init(swn_borrow_t *borrow)
{
    memset(borrow, 0, sizeof *borrow);
    swn_history_init(&borrow->lent);
    swn_history_init(&borrow->noon);
    borrow->readings_due_us = INT64_MAX;
    borrow->request_due_us = INT64_MAX;
}

static int borrows(const swn_share_t *share)
{
    return share->id != 0 && (share->use != 0 || share->offset_half != 0);
}

static void end(swn_borrow_t *borrow)
{
    memset(&borrow->share, 0, sizeof borrow->share);
    borrow->readings_due_us = INT64_MAX;
    borrow->request_due_us = INT64_MAX;
}

void swn_borrow_share(swn_borrow_t *borrow, const swn_share_t *share, const swn_history_t *own)
{
    const int same = borrows(&borrow->share) && share->use == borrow->share.use &&
                     share->offset_half == borrow->share.offset_half;

    if (share->days == 0) {
        end(borrow);
        return;
    }
    borrow->share = *share;
    if (!share->send) {
        borrow->readings_due_us = INT64_MAX;
    }
    if (!share->use) {
        borrow->request_due_us = INT64_MAX;
    }
    if (borrows(share) && !same) {
        borrow->lent = *own;
        borrow->noon_ready = 0;
        borrow->served = 0;
        borrow->told = 0;
        borrow->own_right = 0;
        borrow->judged_right = 0;
    }
}

void swn_borrow_hour(swn_borrow_t *borrow, const swn_sample_t *sample, uint8_t stuck)
{
    swn_sample_t corrected = *sample;

    if (!borrows(&borrow->share)) {
        return;
    }
    if (sample->humidity_half <= SWN_HUMIDITY_MAX) {
        const int32_t humidity = (int32_t)sample->humidity_half + borrow->share.offset_half;
        corrected.humidity_half =
            stuck ? SWN_HUMIDITY_MISSING : (uint8_t)swn_clamp(humidity, 0, SWN_HUMIDITY_MAX);
    }
    swn_history_add(&borrow->lent, &corrected);
}

uint8_t swn_borrow_in_use(const swn_borrow_t *borrow)
{
    return (uint8_t)(borrows(&borrow->share) &&
                     (borrow->told < SWN_TOLD_MIN || borrow->own_right <= borrow->judged_right + 1));
}

void swn_borrow_noon(swn_borrow_t *borrow, int64_t noon_us, uint32_t *prng)
{
    borrow->noon_us = noon_us;
    borrow->served = 0;
    borrow->requests = 0;
    if (borrow->share.id == 0) {
        return;
    }
    if (borrow->share.days == 0) {
        end(borrow);
        return;
    }
    borrow->share.days--;
    if (borrows(&borrow->share)) {
        borrow->noon = borrow->lent;
        borrow->noon_ready = 1;
    }
    borrow->readings_due_us =
        borrow->share.send ? later_us(noon_us, SWN_LEND_AFTER_S, SWN_LEND_SPREAD_S, prng) : INT64_MAX;
    borrow->request_due_us =
        borrow->share.use ? later_us(noon_us, SWN_REQUEST_AFTER_S, SWN_REQUEST_SPREAD_S, prng) : INT64_MAX;
}

/* Borrowing --------------------------------------------------------------------------------------------- */

/* Relative humidity (0.5 %) at a node, from a neighbour's in % and both temperatures: es(T) of FAO-56 changes by
 * 4098.17 K / (T + 237.3)^2 per kelvin, so the same vapour means RH * exp(x), taken to the second order. */
static uint8_t humidity_here(unsigned humidity, int32_t there_centi, int32_t here_centi)
{
    const int32_t sum = here_centi + 23730;
    const int32_t x = 409817 * swn_clamp(there_centi - here_centi, -NEAR_CENTI, NEAR_CENTI) / (sum * sum / 4096);
    const int32_t here = 4096 + x + x * x / 8192;

    return (uint8_t)swn_clamp(((int32_t)humidity * (4096 + here) + 2048) / 4096, 0, SWN_HUMIDITY_MAX);
}

static void lend_hour(swn_history_t *history, const swn_readings_t *readings, unsigned hour, unsigned ago, uint8_t use)
{
    const unsigned slot = swn_history_slot(history, ago);
    const int16_t here_centi = history->temperature_centi[slot];
    uint8_t humidity = SWN_HUMIDITY_MISSING;
    uint16_t rain = SWN_RAIN_MISSING;

    if (here_centi == SWN_TEMPERATURE_MISSING) {
        return; /* the hour does not count anyway */
    }
    if ((readings->content & SWN_READINGS_HUMIDITY) && (use & (SWN_USE_HUMIDITY | SWN_USE_HUMIDITY_INSTEAD)) &&
        ((use & SWN_USE_HUMIDITY_INSTEAD) || history->humidity_half[slot] == SWN_HUMIDITY_MISSING)) {
        const int32_t there_centi =
            readings->content & SWN_READINGS_TEMPERATURE
                ? TEMPERATURE_FIRST_CENTI + TEMPERATURE_UNIT_CENTI * (int32_t)readings->temperature[hour]
                : here_centi;
        humidity = humidity_here(readings->humidity[hour], there_centi, here_centi);
    }
    if ((readings->content & SWN_READINGS_RAIN) && (use & SWN_USE_RAIN) &&
        history->rain_tenth[slot] == SWN_RAIN_MISSING) {
        rain = readings->rainy >> hour & 1u ? readings->rain_tenth : 0;
    }
    swn_history_lend(history, ago, humidity, rain);
}

/* Puts the day that ended `noon_ago` hours before the history's newest one into its place. */
static void lend_day(swn_history_t *history, const swn_readings_t *readings, unsigned noon_ago, uint8_t use)
{
    unsigned hour;

    for (hour = 0; hour < SWN_READINGS_HOURS; hour++) {
        const unsigned ago = noon_ago + SWN_READINGS_HOURS - 1u - hour;
        if ((readings->hours >> hour & 1u) && ago < history->used) {
            lend_hour(history, readings, hour, ago, use);
        }
    }
    swn_history_replay(history);
}

uint8_t swn_borrow_take(swn_borrow_t *borrow, const swn_readings_t *readings, unsigned since_noon)
{
    const unsigned age_hours = (readings->age + STEPS_PER_HOUR / 2u) / STEPS_PER_HOUR;
    const unsigned days_back = age_hours + 12u < since_noon ? 2u : (age_hours + 12u - since_noon) / 24u;
    const uint8_t use = borrow->share.use;

    if (!borrows(&borrow->share) || use == 0 || days_back > 1 || since_noon >= 24u) {
        return 0;
    }
    lend_day(&borrow->lent, readings, since_noon + 24u * days_back, use);
    if (!borrow->noon_ready) {
        return 0;
    }
    lend_day(&borrow->noon, readings, 24u * days_back, use);
    if (days_back == 0) {
        borrow->served = 1;
        borrow->request_due_us = INT64_MAX;
    }
    return 1;
}

/* Sending ----------------------------------------------------------------------------------------------- */

static uint8_t age_of(int64_t noon_us, int64_t now_us)
{
    return (uint8_t)swn_clamp((int32_t)((now_us - noon_us) / (AGE_STEP_S * SECOND_US)), 0, UINT8_MAX);
}

/* An hour counts when all that is to be sent of it is there. */
static void read_hour(const swn_history_t *own, unsigned slot, unsigned hour, swn_readings_t *out, uint32_t *rain_sum)
{
    const int32_t centi = own->temperature_centi[slot];
    const uint8_t humidity = own->humidity_half[slot];
    const uint16_t rain = own->rain_tenth[slot];

    if (centi == SWN_TEMPERATURE_MISSING || ((out->content & SWN_READINGS_HUMIDITY) && humidity == SWN_HUMIDITY_MISSING) ||
        ((out->content & SWN_READINGS_RAIN) && rain == SWN_RAIN_MISSING)) {
        return;
    }
    out->hours |= (uint32_t)1 << hour;
    out->humidity[hour] = (uint8_t)((humidity + (hour / 2u & 1u)) / 2u); /* ties both ways: no lasting bias */
    out->temperature[hour] = (uint8_t)swn_clamp(
        (swn_clamp(centi, TEMPERATURE_FIRST_CENTI, 9000) - TEMPERATURE_FIRST_CENTI + TEMPERATURE_UNIT_CENTI / 2) /
            TEMPERATURE_UNIT_CENTI,
        0, SWN_READINGS_TEMPERATURE_TOP);
    if ((out->content & SWN_READINGS_RAIN) && rain > 0) {
        out->rainy |= (uint32_t)1 << hour;
        *rain_sum += rain;
    }
}

size_t swn_borrow_readings(const swn_borrow_t *borrow, const swn_history_t *own, unsigned since_noon, int64_t now_us,
                           uint8_t *out, size_t room)
{
    swn_readings_t readings;
    uint32_t rain_sum = 0;
    uint32_t rainy = 0;
    unsigned hour;

    memset(&readings, 0, sizeof readings);
    readings.content = borrow->share.send;
    readings.age = age_of(borrow->noon_us, now_us);
    for (hour = 0; hour < SWN_READINGS_HOURS; hour++) {
        const unsigned ago = since_noon + SWN_READINGS_HOURS - 1u - hour;
        if (ago < own->used) {
            read_hour(own, swn_history_slot(own, ago), hour, &readings, &rain_sum);
            rainy += readings.rainy >> hour & 1u;
        }
    }
    if (rainy > 0) {
        readings.rain_tenth = (uint8_t)swn_clamp((int32_t)((rain_sum + rainy / 2u) / rainy), 1, UINT8_MAX);
    }
    return swn_readings_write(&readings, out, room < SWN_READINGS_SIZE_MAX ? room : SWN_READINGS_SIZE_MAX);
}

size_t swn_borrow_request(const swn_borrow_t *borrow, int64_t now_us, uint8_t *out, size_t room)
{
    if (room < REQUEST_SIZE) {
        return 0;
    }
    out[0] = REQUEST_TYPE;
    out[1] = age_of(borrow->noon_us, now_us);
    out[2] = borrow->told;
    out[3] = borrow->own_right;
    out[4] = borrow->judged_right;
    return REQUEST_SIZE;
}

void swn_borrow_asked(swn_borrow_t *borrow, int64_t now_us, uint32_t *prng)
{
    borrow->requests++;
    borrow->request_due_us = borrow->requests < SWN_REQUESTS_MAX
                                 ? later_us(now_us, SWN_REQUEST_AFTER_S, SWN_REQUEST_SPREAD_S, prng)
                                 : INT64_MAX;
}

/* Comparing --------------------------------------------------------------------------------------------- */

void swn_borrow_judged(swn_borrow_t *borrow, uint16_t day, uint8_t own, uint8_t judged)
{
    swn_day_verdict_t *verdict = &borrow->verdicts[day % SWN_VERDICT_DAYS];

    verdict->day = day;
    verdict->own = own;
    verdict->judged = judged;
    verdict->comparable =
        (uint8_t)(borrows(&borrow->share) && (borrow->served || borrow->share.offset_half != 0));
}

void swn_borrow_label(swn_borrow_t *borrow, uint16_t day, uint8_t label)
{
    swn_day_verdict_t *verdict = &borrow->verdicts[day % SWN_VERDICT_DAYS];

    if (verdict->day != day || !verdict->comparable) {
        return;
    }
    verdict->comparable = 0;
    borrow->told++;
    borrow->own_right = (uint8_t)(borrow->own_right + (verdict->own == label));
    borrow->judged_right = (uint8_t)(borrow->judged_right + (verdict->judged == label));
    if (borrow->told >= SWN_TOLD_MAX) { /* the latest season counts more */
        borrow->told /= 2;
        borrow->own_right /= 2;
        borrow->judged_right /= 2;
    }
}
