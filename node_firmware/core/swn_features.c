/* Readings to model inputs; see swn_features.h. */
#include "swn_features.h"

#include <string.h>

#include "swn_math.h"

enum { RAIN_LEVELS = 239, HUMID_HALF = 180, TEMPERATURE_MIN_CENTI = -6000, TEMPERATURE_MAX_CENTI = 9000 };

/* round(16 * log2(1 + i)); from 239 on the level is 127. */
static const uint8_t RAIN_LEVEL[RAIN_LEVELS] = {
    0, 16, 25, 32, 37, 41, 45, 48, 51, 53, 55, 57, 59, 61, 63, 64,
    65, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 79, 80,
    81, 81, 82, 83, 83, 84, 85, 85, 86, 86, 87, 87, 88, 88, 89, 89,
    90, 90, 91, 91, 92, 92, 93, 93, 93, 94, 94, 95, 95, 95, 96, 96,
    96, 97, 97, 97, 98, 98, 98, 99, 99, 99, 100, 100, 100, 101, 101, 101,
    101, 102, 102, 102, 103, 103, 103, 103, 104, 104, 104, 104, 105, 105, 105, 105,
    106, 106, 106, 106, 107, 107, 107, 107, 107, 108, 108, 108, 108, 109, 109, 109,
    109, 109, 110, 110, 110, 110, 110, 111, 111, 111, 111, 111, 111, 112, 112, 112,
    112, 112, 113, 113, 113, 113, 113, 113, 114, 114, 114, 114, 114, 114, 115, 115,
    115, 115, 115, 115, 116, 116, 116, 116, 116, 116, 116, 117, 117, 117, 117, 117,
    117, 117, 118, 118, 118, 118, 118, 118, 118, 119, 119, 119, 119, 119, 119, 119,
    119, 120, 120, 120, 120, 120, 120, 120, 121, 121, 121, 121, 121, 121, 121, 121,
    121, 122, 122, 122, 122, 122, 122, 122, 122, 123, 123, 123, 123, 123, 123, 123,
    123, 123, 124, 124, 124, 124, 124, 124, 124, 124, 124, 125, 125, 125, 125, 125,
    125, 125, 125, 125, 125, 126, 126, 126, 126, 126, 126, 126, 126, 126, 126,
};

/* floor(numerator / denominator + 1/2), denominator > 0 */
static int32_t round_divide(int32_t numerator, int32_t denominator)
{
    const int32_t twice = 2 * numerator + denominator;
    const int32_t quotient = twice / (2 * denominator);

    return twice % (2 * denominator) < 0 ? quotient - 1 : quotient;
}

unsigned swn_history_slot(const swn_history_t *history, unsigned ago)
{
    return (history->next + 2u * SWN_HISTORY_HOURS - 1u - ago) % SWN_HISTORY_HOURS;
}

uint8_t swn_rain_level(uint32_t rain_tenth)
{
    return rain_tenth >= RAIN_LEVELS ? 127 : RAIN_LEVEL[rain_tenth];
}

/* With y(T) = 17.27 T / (T + 237.3), RH = exp(y(Td) - y(T)).  The difference of the two fractions is
 * 17.27 * 237.3 (T - Td) / ((T + 237.3)(Td + 237.3)), so RH >= 0.9 is
 * (T - Td) * 17.27 * 237.3 / -ln(0.9) <= (T + 237.3)(Td + 237.3): 3889665 in centi degC squared. */
uint8_t swn_is_humid(int32_t temperature_centi, int32_t dew_point_centi)
{
    const int32_t depression = temperature_centi - dew_point_centi;

    if (depression <= 0) {
        return 1;
    }
    if (depression > 500) {
        return 0; /* RH 90 % never lies 5 degrees below; keeps the product in 32 bits */
    }
    return (uint8_t)(depression * 3889665 <= (temperature_centi + 23730) * (dew_point_centi + 23730));
}

void swn_history_init(swn_history_t *history)
{
    unsigned slot;

    memset(history, 0, sizeof *history);
    for (slot = 0; slot < SWN_HISTORY_HOURS; slot++) {
        history->temperature_centi[slot] = SWN_TEMPERATURE_MISSING;
        history->rain_tenth[slot] = SWN_RAIN_MISSING;
        history->humidity_half[slot] = SWN_HUMIDITY_MISSING;
    }
}

static int16_t lowest_of_day(const swn_history_t *history, int16_t lowest)
{
    unsigned ago;

    for (ago = 0; ago + 1 < SWN_DAY_HOURS; ago++) {
        const int16_t temperature = history->temperature_centi[swn_history_slot(history, ago)];
        if (temperature != SWN_TEMPERATURE_MISSING && temperature < lowest) {
            lowest = temperature;
        }
    }
    return lowest;
}

void swn_history_add(swn_history_t *history, const swn_sample_t *sample)
{
    const unsigned slot = history->next;
    const int valid =
        sample->temperature_centi >= TEMPERATURE_MIN_CENTI && sample->temperature_centi <= TEMPERATURE_MAX_CENTI;
    const uint8_t humidity = sample->humidity_half > SWN_HUMIDITY_MAX ? SWN_HUMIDITY_MISSING : sample->humidity_half;
    const int rain = sample->rain_tenth != SWN_RAIN_MISSING && sample->rain_tenth > 0;
    uint8_t flags = 0;

    if (history->used == SWN_HISTORY_HOURS && (history->flags[slot] & SWN_HOUR_VALID)) {
        (void)swn_spell_hour(&history->before, history->temperature_centi[slot], history->flags[slot] & SWN_HOUR_WET);
    }
    history->progress[slot] = 0;
    if (valid) {
        int humid = humidity != SWN_HUMIDITY_MISSING && humidity >= HUMID_HALF;
        if (humidity == SWN_HUMIDITY_MISSING) {
            humid = swn_is_humid(sample->temperature_centi, lowest_of_day(history, sample->temperature_centi));
        }
        flags = (uint8_t)(SWN_HOUR_VALID | (humid ? SWN_HOUR_HUMID : 0) | (humid || rain ? SWN_HOUR_WET : 0));
        history->progress[slot] = swn_spell_hour(&history->spell, sample->temperature_centi, flags & SWN_HOUR_WET);
    }
    history->temperature_centi[slot] = valid ? sample->temperature_centi : SWN_TEMPERATURE_MISSING;
    history->humidity_half[slot] = humidity;
    history->rain_tenth[slot] = sample->rain_tenth;
    history->flags[slot] = flags;
    history->next = (uint8_t)((slot + 1u) % SWN_HISTORY_HOURS);
    history->used = (uint8_t)(history->used < SWN_HISTORY_HOURS ? history->used + 1 : SWN_HISTORY_HOURS);
}

void swn_history_lend(swn_history_t *history, unsigned ago, uint8_t humidity_half, uint16_t rain_tenth)
{
    const unsigned slot = swn_history_slot(history, ago);
    uint8_t flags = history->flags[slot];

    if (humidity_half <= SWN_HUMIDITY_MAX) {
        history->humidity_half[slot] = humidity_half;
        flags = (uint8_t)(humidity_half >= HUMID_HALF ? flags | SWN_HOUR_HUMID : flags & ~SWN_HOUR_HUMID);
    }
    if (rain_tenth != SWN_RAIN_MISSING) {
        history->rain_tenth[slot] = rain_tenth;
    }
    if (flags & SWN_HOUR_VALID) {
        const int rain = history->rain_tenth[slot] != SWN_RAIN_MISSING && history->rain_tenth[slot] > 0;
        flags = (uint8_t)((flags & SWN_HOUR_HUMID) || rain ? flags | SWN_HOUR_WET : flags & ~SWN_HOUR_WET);
    }
    history->flags[slot] = flags;
}

void swn_history_replay(swn_history_t *history)
{
    unsigned ago;

    history->spell = history->before;
    for (ago = history->used; ago-- > 0;) {
        const unsigned slot = swn_history_slot(history, ago);
        const uint8_t flags = history->flags[slot];

        history->progress[slot] = (uint8_t)(
            flags & SWN_HOUR_VALID
                ? swn_spell_hour(&history->spell, history->temperature_centi[slot], flags & SWN_HOUR_WET)
                : 0);
    }
}

void swn_history_day(const swn_history_t *history, swn_day_t *day)
{
    uint8_t run = 0;
    unsigned ago;

    memset(day, 0, sizeof *day);
    for (ago = 0; ago < SWN_DAY_HOURS; ago++) {
        const unsigned slot = swn_history_slot(history, ago);
        const int16_t temperature = history->temperature_centi[slot];
        const uint8_t flags = history->flags[slot];

        if (flags & SWN_HOUR_WET) {
            day->wet_hours++;
            day->wet_sum_centi += temperature;
        }
        if (flags & SWN_HOUR_HUMID) {
            day->humid_hours++;
            day->humid_sum_centi += temperature;
        }
        run = (uint8_t)((flags & SWN_HOUR_VALID) && temperature >= SWN_MILDEW_WARM_MIN_CENTI &&
                                temperature <= SWN_MILDEW_WARM_MAX_CENTI
                            ? run + 1
                            : 0);
        day->warm_run = run > day->warm_run ? run : day->warm_run;
        day->hot = (uint8_t)(day->hot || ((flags & SWN_HOUR_VALID) && temperature >= SWN_MILDEW_HOT_CENTI));
        day->progress = history->progress[slot] > day->progress ? history->progress[slot] : day->progress;
    }
}

uint8_t swn_history_valid(const swn_history_t *history)
{
    uint8_t valid = 0;
    unsigned slot;

    for (slot = 0; slot < SWN_HISTORY_HOURS; slot++) {
        valid = (uint8_t)(valid + (history->flags[slot] & SWN_HOUR_VALID));
    }
    return valid;
}

uint8_t swn_history_no_humidity(const swn_history_t *history)
{
    unsigned present = 0;
    unsigned slot;

    for (slot = 0; slot < SWN_HISTORY_HOURS; slot++) {
        present += history->humidity_half[slot] != SWN_HUMIDITY_MISSING;
    }
    return (uint8_t)(2u * present < history->used || present == 0);
}

uint8_t swn_history_no_rain(const swn_history_t *history)
{
    unsigned present = 0;
    unsigned slot;

    for (slot = 0; slot < SWN_HISTORY_HOURS; slot++) {
        present += history->rain_tenth[slot] != SWN_RAIN_MISSING;
    }
    return (uint8_t)(2u * present < history->used || present == 0);
}

/* One block's readings, added up; a count of 0 means that none was there. */
typedef struct swn_block_sums {
    int32_t temperature_centi;
    int32_t humidity_half;
    uint32_t rain_tenth;
    uint8_t temperatures;
    uint8_t humidities;
} swn_block_sums_t;

static void add_block(const swn_history_t *history, unsigned block, swn_block_sums_t *sums)
{
    unsigned hour;

    memset(sums, 0, sizeof *sums);
    for (hour = 0; hour < SWN_BLOCK_HOURS; hour++) {
        const unsigned slot = swn_history_slot(history, SWN_HISTORY_HOURS - 1u - (block * SWN_BLOCK_HOURS + hour));
        if (history->temperature_centi[slot] != SWN_TEMPERATURE_MISSING) {
            sums->temperatures++;
            sums->temperature_centi += history->temperature_centi[slot];
        }
        if (history->humidity_half[slot] != SWN_HUMIDITY_MISSING) {
            sums->humidities++;
            sums->humidity_half += history->humidity_half[slot];
        }
        if (history->rain_tenth[slot] != SWN_RAIN_MISSING) {
            sums->rain_tenth += history->rain_tenth[slot];
        }
    }
}

/* Blocks before `first` had no reading: they repeat it. */
static void fill_front(int8_t *inputs, unsigned first)
{
    unsigned block;

    for (block = 0; first < SWN_BLOCKS && block < first; block++) {
        inputs[block] = inputs[first];
    }
}

static void fill_blocks(const swn_history_t *history, int8_t *x, int no_humidity, int no_rain)
{
    unsigned first_temperature = SWN_BLOCKS;
    unsigned first_humidity = SWN_BLOCKS;
    unsigned block;

    for (block = 0; block < SWN_BLOCKS; block++) {
        swn_block_sums_t sums;

        add_block(history, block, &sums);
        if (sums.temperatures > 0) {
            const int32_t count = sums.temperatures;
            x[block] = swn_sat8(round_divide(sums.temperature_centi - 1500 * count, 25 * count));
            first_temperature = block < first_temperature ? block : first_temperature;
        } else if (block > 0) {
            x[block] = x[block - 1];
        }
        if (no_humidity) {
            x[16 + block] = 0;
        } else if (sums.humidities > 0) {
            const int32_t count = sums.humidities;
            x[16 + block] = swn_sat8(round_divide(sums.humidity_half - 100 * count, count));
            first_humidity = block < first_humidity ? block : first_humidity;
        } else if (block > 0) {
            x[16 + block] = x[15 + block];
        }
        x[32 + block] = (int8_t)(no_rain ? 0 : swn_rain_level(sums.rain_tenth));
    }
    fill_front(x, first_temperature);
    fill_front(x + 16, first_humidity);
}

void swn_features(const swn_history_t *history, swn_verdict_t verdict, uint8_t yesterday, int8_t x[SWN_WEATHER_FEATURES])
{
    const int no_humidity = swn_history_no_humidity(history);
    const int no_rain = swn_history_no_rain(history);
    swn_day_t day;

    memset(x, 0, SWN_WEATHER_FEATURES);
    fill_blocks(history, x, no_humidity, no_rain);
    swn_history_day(history, &day);
    x[SWN_RULE_INPUT + (verdict.risk <= SWN_HIGH ? verdict.risk : SWN_HIGH)] = 64;
    x[51] = swn_sat8(verdict.index);
    x[52] = swn_sat8(40 * (int32_t)yesterday);
    x[53] = swn_sat8(5 * (int32_t)day.wet_hours);
    x[54] = (int8_t)(no_humidity ? 64 : 0);
    x[55] = (int8_t)(no_rain ? 64 : 0);
}
