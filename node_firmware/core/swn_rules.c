/* The published disease rules; see swn_rules.h.  Means are compared as sums, so they are never rounded. */
#include "swn_rules.h"

typedef struct swn_mills_row {
    uint8_t fahrenheit;
    uint8_t hours;
} swn_mills_row_t;

/* Hours of wetness for infection by ascospores, MacHardy & Gadoury 1989 as amended. */
static const swn_mills_row_t MILLS[] = {
    {34, 41}, {36, 35}, {37, 30}, {39, 28}, {41, 21}, {43, 18}, {45, 15}, {46, 13}, {48, 12}, {50, 11},
    {52, 9},  {54, 8},  {55, 8},  {57, 7},  {59, 7},  {61, 6},  {75, 6},  {77, 8},  {79, 11},
};
enum { MILLS_LAST = (int)(sizeof MILLS / sizeof MILLS[0]) - 1 };

/* One bin of a severity table: from `from_centi` on, the hours at which severity 1, 2, 3, 4 begin. */
typedef struct swn_severity_bin {
    int16_t from_centi;
    uint8_t hours[4];
} swn_severity_bin_t;

enum { NEVER = 255 };

static const swn_severity_bin_t TOMCAST[] = {
    {1300, {7, 16, 21, NEVER}},
    {1800, {4, 9, 16, 23}},
    {2100, {3, 6, 13, 21}},
    {2600, {4, 9, 16, 23}},
    {3000, {NEVER, NEVER, NEVER, NEVER}},
};

/* Published to a tenth of a degree (7.2-11.6, 11.7-15.0, 15.1-26.6): the edges lie between the bins. */
static const swn_severity_bin_t WALLIN[] = {
    {720, {16, 19, 22, NEVER}},
    {1165, {13, 16, 19, 22}},
    {1505, {10, 13, 16, 19}},
    {2665, {NEVER, NEVER, NEVER, NEVER}},
};

/* Progress in 1/64 of a spell: wet hours over the hours that their mean temperature needs.
 * With scale = 5 * wet, sums of centi degF are 9/5 * sum + 3200 * wet, times 5: no division.
 * Bounds: wet <= 128, a sloped row spans at most 200 centi degF: all products < 2^31. */
static uint8_t mills_progress(int32_t sum_centi, int32_t wet)
{
    const int32_t scale = 5 * wet;
    const int32_t fahrenheit = 9 * sum_centi + 3200 * scale;
    int32_t row = 0;
    int32_t span = 1;
    int32_t need;
    int32_t progress;

    while (row < MILLS_LAST && fahrenheit >= 100 * (int32_t)MILLS[row + 1].fahrenheit * scale) {
        row++;
    }
    need = (int32_t)MILLS[row].hours * scale;
    if (row < MILLS_LAST && fahrenheit > 100 * (int32_t)MILLS[row].fahrenheit * scale &&
        MILLS[row + 1].hours != MILLS[row].hours) {
        const int32_t slope = (int32_t)MILLS[row + 1].hours - (int32_t)MILLS[row].hours;
        span = 100 * ((int32_t)MILLS[row + 1].fahrenheit - (int32_t)MILLS[row].fahrenheit);
        need = need * span + slope * (fahrenheit - 100 * (int32_t)MILLS[row].fahrenheit * scale);
    }
    progress = 64 * wet * span * scale / need;
    return (uint8_t)(progress > 255 ? 255 : progress);
}

uint8_t swn_spell_hour(swn_spell_t *spell, int16_t temperature_centi, uint8_t wet)
{
    if (!wet) {
        if (spell->dry_hours < SWN_DRY_GAP_HOURS) {
            spell->dry_hours++;
        }
        if (spell->dry_hours >= SWN_DRY_GAP_HOURS) {
            spell->wet_hours = 0;
            spell->temperature_sum_centi = 0;
        }
        return 0;
    }
    if (spell->wet_hours >= SWN_SPELL_HOURS_MAX) {
        spell->wet_hours = SWN_SPELL_HOURS_MAX / 2;
        spell->temperature_sum_centi /= 2;
    }
    spell->dry_hours = 0;
    spell->wet_hours++;
    spell->temperature_sum_centi += temperature_centi;
    return mills_progress(spell->temperature_sum_centi, spell->wet_hours);
}

static uint8_t severity(const swn_severity_bin_t *bins, unsigned count, int32_t sum_centi, uint8_t hours)
{
    unsigned bin = count;
    uint8_t value = 0;

    if (hours == 0) {
        return 0;
    }
    while (bin > 0 && sum_centi < (int32_t)bins[bin - 1].from_centi * hours) {
        bin--;
    }
    if (bin == 0) {
        return 0;
    }
    while (value < 4 && hours >= bins[bin - 1].hours[value]) {
        value++;
    }
    return value;
}

uint8_t swn_tomcast_severity(int32_t sum_centi, uint8_t hours)
{
    return severity(TOMCAST, (unsigned)(sizeof TOMCAST / sizeof TOMCAST[0]), sum_centi, hours);
}

uint8_t swn_wallin_severity(int32_t sum_centi, uint8_t hours)
{
    return severity(WALLIN, (unsigned)(sizeof WALLIN / sizeof WALLIN[0]), sum_centi, hours);
}

swn_mildew_t swn_mildew_next(swn_mildew_t state, uint8_t warm_run, uint8_t hot)
{
    const int favourable = warm_run >= SWN_MILDEW_HOURS;
    int index = state.index;

    if (!state.started) {
        index = favourable ? index + 20 : 0; /* a miss before 60 begins anew */
    } else if (favourable) {
        index += hot ? 10 : 20;
    } else {
        index -= 10;
    }
    state.index = (uint8_t)(index < 0 ? 0 : index > 100 ? 100 : index);
    state.started = (uint8_t)(state.started || state.index >= 60);
    return state;
}

static swn_verdict_t of_severity(uint8_t value)
{
    swn_verdict_t verdict;

    verdict.risk = (uint8_t)(value == 0 ? SWN_LOW : value <= 2 ? SWN_MEDIUM : SWN_HIGH);
    verdict.index = (uint8_t)(value >= 4 ? 127 : 32 * value);
    return verdict;
}

swn_verdict_t swn_rule(uint8_t context, const swn_day_t *day, swn_mildew_t mildew)
{
    swn_verdict_t verdict = {SWN_LOW, 0};

    switch (context) {
    case SWN_CONTEXT_APPLE:
        verdict.risk = (uint8_t)(day->progress < 32 ? SWN_LOW : day->progress < 64 ? SWN_MEDIUM : SWN_HIGH);
        verdict.index = (uint8_t)(day->progress > 127 ? 127 : day->progress);
        break;
    case SWN_CONTEXT_TOMATO:
        verdict = of_severity(swn_tomcast_severity(day->wet_sum_centi, day->wet_hours));
        break;
    case SWN_CONTEXT_POTATO:
        verdict = of_severity(swn_wallin_severity(day->humid_sum_centi, day->humid_hours));
        break;
    case SWN_CONTEXT_GRAPE:
        verdict.risk = (uint8_t)(mildew.index < 30 ? SWN_LOW : mildew.index < 60 ? SWN_MEDIUM : SWN_HIGH);
        verdict.index = mildew.index;
        break;
    default:
        break;
    }
    return verdict;
}
