/* The last 48 hours of a node's readings, and the 56 int8 inputs of the model made from them.
 *
 * swn_history_add() takes one hourly reading and decides at once whether the hour was valid, wet and
 * humid, because only then the running wet spell and the lowest temperature of the last 24 h are at
 * hand.  swn_features() may be called at any time: the window is always the last 48 readings, and "the
 * day" always the last 24.
 *
 * Inputs (all clamped to -128..127; block = 3 hours, oldest first):
 *    0..15 mean temperature, round((T - 15 degC) * 4)     16..31 mean RH, round((RH - 50 %) * 2)
 *   32..47 rain, round(16 * log2(1 + rain in 0.1 mm))     48..50 one-hot (64) of the rule's class
 *   51 rule's index 0..127     52 yesterday's class * 40  53 wet hours of the last 24, times 5
 *   54 RH missing 64 / 0       55 rain missing 64 / 0
 * A block without readings repeats the block before it (the first ones: the first that has any); inputs
 * of a missing quantity are 0.  A quantity is missing when the node has no sensor for it or fewer than
 * half of the window's readings hold it.
 */
#ifndef SWN_FEATURES_H
#define SWN_FEATURES_H

#include <stdint.h>

#include "swn_model.h"
#include "swn_rules.h"

/* The shape of a model that judges these inputs; any other is for swn_observe(). */
enum { SWN_WEATHER_FEATURES = 56, SWN_WEATHER_CLASSES = 3 };
enum { SWN_HISTORY_HOURS = 48, SWN_DAY_HOURS = 24, SWN_BLOCK_HOURS = 3, SWN_BLOCKS = 16, SWN_RULE_INPUT = 48 };

#define SWN_TEMPERATURE_MISSING INT16_MIN
#define SWN_HUMIDITY_MISSING 255
#define SWN_RAIN_MISSING 65535
#define SWN_HUMIDITY_MAX 200 /* 100 % */

/* One hourly reading: means of the hour that ends at `hour` o'clock, local time. */
typedef struct swn_sample {
    int16_t temperature_centi; /* centi degC; SWN_TEMPERATURE_MISSING */
    uint8_t humidity_half;     /* 0.5 %, 0..200; SWN_HUMIDITY_MISSING */
    uint16_t rain_tenth;       /* 0.1 mm fallen in the hour; SWN_RAIN_MISSING */
    uint8_t hour;              /* 0..23 */
} swn_sample_t;

enum { SWN_HOUR_VALID = 1, SWN_HOUR_WET = 2, SWN_HOUR_HUMID = 4 };

/* A ring of 48 readings; `next` is the slot of the oldest once all are used. */
typedef struct swn_history {
    swn_spell_t spell;
    swn_spell_t before; /* as it was before the oldest of the 48 readings */
    int16_t temperature_centi[SWN_HISTORY_HOURS];
    uint16_t rain_tenth[SWN_HISTORY_HOURS];
    uint8_t humidity_half[SWN_HISTORY_HOURS];
    uint8_t flags[SWN_HISTORY_HOURS];
    uint8_t progress[SWN_HISTORY_HOURS]; /* of the apple rule after each hour, 1/64 */
    uint8_t next;
    uint8_t used; /* readings so far, at most 48 */
} swn_history_t;

void swn_history_init(swn_history_t *history);

/* Adds the next hour; a reading out of its range counts as missing. */
void swn_history_add(swn_history_t *history, const swn_sample_t *sample);

/* The ring's slot of the reading `ago` hours before the newest (0: the newest). */
unsigned swn_history_slot(const swn_history_t *history, unsigned ago);

/* Puts in what an hour's own sensors did not say (MISSING: nothing); swn_history_replay() must follow. */
void swn_history_lend(swn_history_t *history, unsigned ago, uint8_t humidity_half, uint16_t rain_tenth);

/* Runs the wet spell through the ring again, after hours in it have changed. */
void swn_history_replay(swn_history_t *history);

/* What the rules need of the last 24 readings. */
void swn_history_day(const swn_history_t *history, swn_day_t *day);

/* Readings with a temperature among the last 48. */
uint8_t swn_history_valid(const swn_history_t *history);

/* 1 when humidity (rain) counts as missing in the window. */
uint8_t swn_history_no_humidity(const swn_history_t *history);
uint8_t swn_history_no_rain(const swn_history_t *history);

/* The inputs x; `verdict` is the rule's for the last 24 h, `yesterday` the class of the day before. */
void swn_features(const swn_history_t *history, swn_verdict_t verdict, uint8_t yesterday, int8_t x[SWN_WEATHER_FEATURES]);

/* min(127, round(16 * log2(1 + rain))) */
uint8_t swn_rain_level(uint32_t rain_tenth);

/* RH >= 90 % at a temperature and dew point (Magnus form of FAO-56): exact in integers. */
uint8_t swn_is_humid(int32_t temperature_centi, int32_t dew_point_centi);

#endif
