/* Readings to model inputs, on cases computed by hand from the formulas of swn_features.h. */
#include <string.h>

#include "expect.h"
#include "swn_features.h"

static swn_sample_t reading(int temperature_centi, int humidity_half, int rain_tenth)
{
    swn_sample_t sample;

    sample.temperature_centi = (int16_t)temperature_centi;
    sample.humidity_half = (uint8_t)humidity_half;
    sample.rain_tenth = (uint16_t)rain_tenth;
    sample.hour = 0;
    return sample;
}

static void add(swn_history_t *history, unsigned hours, int temperature_centi, int humidity_half, int rain_tenth)
{
    const swn_sample_t sample = reading(temperature_centi, humidity_half, rain_tenth);

    while (hours-- > 0) {
        swn_history_add(history, &sample);
    }
}

static void build(const swn_history_t *history, int8_t x[SWN_WEATHER_FEATURES])
{
    const swn_verdict_t verdict = {SWN_MEDIUM, 77};

    swn_features(history, verdict, SWN_HIGH, x);
}

static void test_blocks(void)
{
    swn_history_t history;
    int8_t x[SWN_WEATHER_FEATURES];
    unsigned i;

    swn_history_init(&history);
    add(&history, 24, 1500, 100, 0);  /* 15 degC, 50 %: zero */
    add(&history, 3, 1812, 137, 10);  /* (18.12 - 15) * 4 = 12.48; (68.5 - 50) * 2 = 37; 3 mm: 16 log2(31) = 79.3 */
    add(&history, 2, 1000, 200, 0);   /* mean of 10, 10, 10.5: -19.33; of 100, 100, 99: 99.3 */
    add(&history, 1, 1050, 198, 1);   /* 0.1 mm: 16 */
    add(&history, 3, 5000, 0, 3000);  /* 140 clamps to 127; -100; 900 mm: 127 */
    add(&history, 3, -2000, 180, 0);  /* -140 clamps to -128; 80 */
    add(&history, 12, 1500, 100, 0);
    build(&history, x);
    for (i = 0; i < 8; i++) {
        EXPECT_EQ(x[i], 0);
        EXPECT_EQ(x[16 + i], 0);
        EXPECT_EQ(x[32 + i], 0);
    }
    EXPECT_EQ(x[8], 12);
    EXPECT_EQ(x[24], 37);
    EXPECT_EQ(x[40], 79);
    EXPECT_EQ(x[9], -19);
    EXPECT_EQ(x[25], 99);
    EXPECT_EQ(x[41], 16);
    EXPECT_EQ(x[10], 127);
    EXPECT_EQ(x[26], -100);
    EXPECT_EQ(x[42], 127);
    EXPECT_EQ(x[11], -128);
    EXPECT_EQ(x[27], 80);
    EXPECT_EQ(x[48], 0);
    EXPECT_EQ(x[49], 64);
    EXPECT_EQ(x[50], 0);
    EXPECT_EQ(x[51], 77);
    EXPECT_EQ(x[52], 80);
    /* Wet: 3 rainy hours, 3 humid ones, 3 rainy, 3 at 90 %. */
    EXPECT_EQ(x[53], 60);
    EXPECT_EQ(x[54], 0);
    EXPECT_EQ(x[55], 0);
}

static void test_rounding_is_half_up(void)
{
    swn_history_t history;
    int8_t x[SWN_WEATHER_FEATURES];

    swn_history_init(&history);
    add(&history, 45, 1500, 100, 0);
    add(&history, 2, 1512, 100, 0);
    add(&history, 1, 1514, 101, 0); /* mean 15.1267: 0.507; humidity 1 / 3 */
    build(&history, x);
    EXPECT_EQ(x[15], 1);
    EXPECT_EQ(x[31], 0);
    add(&history, 3, 1488, 100, 0); /* -0.48 */
    build(&history, x);
    EXPECT_EQ(x[15], 0);
    add(&history, 3, 1487, 99, 0); /* -0.52; -1 */
    build(&history, x);
    EXPECT_EQ(x[15], -1);
    EXPECT_EQ(x[31], -1);
}

static void test_missing(void)
{
    swn_history_t history;
    int8_t x[SWN_WEATHER_FEATURES];
    unsigned i;

    swn_history_init(&history);
    build(&history, x);
    EXPECT_EQ(x[54], 64);
    EXPECT_EQ(x[55], 64);
    add(&history, 6, 2000, 140, 5); /* six hours known: older blocks repeat the first */
    build(&history, x);
    for (i = 0; i < 16; i++) {
        EXPECT_EQ(x[i], 20);
        EXPECT_EQ(x[16 + i], 40);
        EXPECT_EQ(x[32 + i], i < 14 ? 0 : 64); /* 1.5 mm: 16 log2(16) */
    }
    EXPECT_EQ(x[54], 0);
    add(&history, 6, SWN_TEMPERATURE_MISSING, 140, 0); /* a gap repeats the block before it */
    build(&history, x);
    EXPECT_EQ(x[15], 20);
    EXPECT_EQ(swn_history_valid(&history), 6);
    add(&history, 48, 1500, SWN_HUMIDITY_MISSING, SWN_RAIN_MISSING);
    build(&history, x);
    EXPECT_EQ(x[20], 0);
    EXPECT_EQ(x[54], 64);
    EXPECT_EQ(x[55], 64);
    EXPECT_EQ(swn_history_no_humidity(&history), 1);
    add(&history, 24, 1500, 100, 0); /* half is enough */
    EXPECT_EQ(swn_history_no_humidity(&history), 0);
    EXPECT_EQ(swn_history_no_rain(&history), 0);
    add(&history, 1, 20000, 201, 0); /* no such air: both count as missing */
    EXPECT_EQ(swn_history_valid(&history), 47);
    EXPECT_EQ(history.humidity_half[history.next - 1], SWN_HUMIDITY_MISSING);
}

/* Without a humidity sensor the lowest temperature of 24 h stands for the dew point. At 10 degC, 90 % RH is a
 * depression of 1.55 degC, at 20 degC 1.68 (Magnus). */
static void test_humidity_from_the_night(void)
{
    swn_history_t history;
    swn_day_t day;

    EXPECT_EQ(swn_is_humid(1000, 1000), 1);
    EXPECT_EQ(swn_is_humid(1000, 847), 1);
    EXPECT_EQ(swn_is_humid(1000, 842), 0);
    EXPECT_EQ(swn_is_humid(2000, 1833), 1);
    EXPECT_EQ(swn_is_humid(2000, 1829), 0);
    EXPECT_EQ(swn_is_humid(3000, 1000), 0);
    swn_history_init(&history);
    add(&history, 10, 2000, SWN_HUMIDITY_MISSING, 0); /* constant: as if saturated */
    add(&history, 1, 1000, SWN_HUMIDITY_MISSING, 0);
    add(&history, 4, 1140, SWN_HUMIDITY_MISSING, 0);  /* 1.4 above the lowest */
    add(&history, 9, 1400, SWN_HUMIDITY_MISSING, 0);
    swn_history_day(&history, &day);
    EXPECT_EQ(day.humid_hours, 15);
    EXPECT_EQ(day.humid_sum_centi, 10 * 2000 + 1000 + 4 * 1140);
    EXPECT_EQ(day.wet_hours, 15);
    add(&history, 10, 1400, SWN_HUMIDITY_MISSING, 0);
    add(&history, 1, 1400, SWN_HUMIDITY_MISSING, 0);  /* the hour at 10 degC is 21 h ago */
    swn_history_day(&history, &day);
    EXPECT_EQ(day.humid_hours, 4);
    add(&history, 5, 1400, SWN_HUMIDITY_MISSING, 0);  /* now it is forgotten: 11.4 is the lowest */
    swn_history_day(&history, &day);
    EXPECT_EQ(day.humid_hours, 2);
}

static void test_day(void)
{
    swn_history_t history;
    swn_day_t day;

    swn_history_init(&history);
    add(&history, 24, 0, 200, 9); /* two days ago: not of the day */
    add(&history, 5, 2110, 100, 0);
    add(&history, 1, 2941, 100, 0);
    add(&history, 7, 2940, 100, 0);
    add(&history, 1, 3500, 100, 0);
    add(&history, 10, 2000, 179, 0);
    swn_history_day(&history, &day);
    EXPECT_EQ(day.warm_run, 7);
    EXPECT_EQ(day.hot, 1);
    EXPECT_EQ(day.wet_hours, 0);
    EXPECT_EQ(day.humid_hours, 0);
    add(&history, 2, 1700, 100, 1); /* rain alone: wet, not humid */
    add(&history, 3, 1600, 180, 0);
    swn_history_day(&history, &day);
    EXPECT_EQ(day.wet_hours, 5);
    EXPECT_EQ(day.wet_sum_centi, 2 * 1700 + 3 * 1600);
    EXPECT_EQ(day.humid_hours, 3);
    EXPECT_EQ(day.progress, 64 * 5 / 6); /* 61-75 degF: 6 h */
}

/* 16 log2(1 + r) crosses n - 1/2 where (1 + r)^32 crosses 2^(2n - 1): compared by repeated squaring. */
static void test_rain_levels(void)
{
    unsigned rain;

    EXPECT_EQ(swn_rain_level(0), 0);
    EXPECT_EQ(swn_rain_level(1), 16);
    EXPECT_EQ(swn_rain_level(3), 32);
    EXPECT_EQ(swn_rain_level(7), 48);
    EXPECT_EQ(swn_rain_level(127), 112);
    EXPECT_EQ(swn_rain_level(238), 126);
    EXPECT_EQ(swn_rain_level(239), 127);
    EXPECT_EQ(swn_rain_level(196605), 127);
    for (rain = 1; rain < 400; rain++) {
        double power = rain + 1.0;
        double half_steps = 0;
        unsigned k;

        for (k = 0; k < 5; k++) {
            power *= power;
        }
        while (power >= 2.0) {
            power /= 2.0;
            half_steps += 1.0;
        }
        EXPECT_EQ(swn_rain_level(rain), half_steps >= 253 ? 127 : ((int)half_steps + 1) / 2);
    }
}

int main(void)
{
    test_blocks();
    test_rounding_is_half_up();
    test_missing();
    test_humidity_from_the_night();
    test_day();
    test_rain_levels();
    return expect_done("test_features");
}
