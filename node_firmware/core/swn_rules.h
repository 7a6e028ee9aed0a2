/* The published disease rules of the four crops, in integers, on one node's own hourly readings.
 *
 * Each rule maps one noon-to-noon day to a class (low, medium, high) and an index 0..127:
 *   apple   revised Mills table (MacHardy & Gadoury 1989): wet hours of the running spell over the
 *           hours needed at their mean temperature, linear between the table's rows, the end rows
 *           beyond them.  Spells join unless the dry gap is 8 h or more.  The day's progress is the
 *           largest of its wet hours: < 0.5 low, < 1 medium, else high; index 64 is progress 1.
 *   tomato  TOM-CAST disease severity value of the day's wet hours: 0 low, 1-2 medium, 3-4 high.
 *   potato  Wallin severity of the day's hours with RH >= 90 %: 0 low, 1-2 medium, 3-4 high.
 *   grape   Gubler-Thomas powdery-mildew index: < 30 low, < 60 medium, else high.  It remembers:
 *           swn_mildew_t goes from day to day.
 * Contexts without a rule give low, index 0.  Temperatures are centi degC throughout.
 */
#ifndef SWN_RULES_H
#define SWN_RULES_H

#include <stdint.h>

enum { SWN_CONTEXT_APPLE = 0, SWN_CONTEXT_TOMATO = 1, SWN_CONTEXT_POTATO = 2, SWN_CONTEXT_GRAPE = 3 };
enum { SWN_LOW = 0, SWN_MEDIUM = 1, SWN_HIGH = 2 };

enum {
    SWN_DRY_GAP_HOURS = 8,            /* this many dry hours end a wet spell */
    SWN_SPELL_HOURS_MAX = 128,        /* a longer spell goes on as half of it with the same mean */
    SWN_MILDEW_HOURS = 6,             /* continuous warm hours that make a day favourable */
    SWN_MILDEW_WARM_MIN_CENTI = 2110, /* 70 degF */
    SWN_MILDEW_WARM_MAX_CENTI = 2940, /* 85 degF */
    SWN_MILDEW_HOT_CENTI = 3500       /* 95 degF */
};

/* The wet spell that is running, dry gaps shorter than 8 h included. */
typedef struct swn_spell {
    int32_t temperature_sum_centi; /* over the wet hours */
    uint8_t wet_hours;
    uint8_t dry_hours; /* since the last wet hour */
} swn_spell_t;

/* Gubler-Thomas: 20 points for each of 3 favourable days in a row start the season's index. */
typedef struct swn_mildew {
    uint8_t index; /* 0..100 */
    uint8_t started;
} swn_mildew_t;

/* What the rules need to know of 24 hours. */
typedef struct swn_day {
    int32_t wet_sum_centi;
    int32_t humid_sum_centi;
    uint8_t wet_hours;
    uint8_t humid_hours; /* RH >= 90 % */
    uint8_t warm_run;    /* longest run of hours within the mildew's warm range */
    uint8_t hot;         /* an hour at or above 35 degC */
    uint8_t progress;    /* largest swn_spell_hour() of the day */
} swn_day_t;

typedef struct swn_verdict {
    uint8_t risk; /* SWN_LOW, SWN_MEDIUM, SWN_HIGH */
    uint8_t index;
} swn_verdict_t;

/* One hour of the apple rule: progress of the spell in 1/64 (rounded down, at most 255), 0 in a dry hour. */
uint8_t swn_spell_hour(swn_spell_t *spell, int16_t temperature_centi, uint8_t wet);

/* Disease severity value 0..4 of `hours` wet hours with this sum of temperatures. */
uint8_t swn_tomcast_severity(int32_t sum_centi, uint8_t hours);

/* Wallin severity value 0..4 of `hours` humid hours with this sum of temperatures. */
uint8_t swn_wallin_severity(int32_t sum_centi, uint8_t hours);

/* The mildew state after one more day. */
swn_mildew_t swn_mildew_next(swn_mildew_t state, uint8_t warm_run, uint8_t hot);

/* The rule of a context for a day; `mildew` is the state that includes this day. */
swn_verdict_t swn_rule(uint8_t context, const swn_day_t *day, swn_mildew_t mildew);

#endif
