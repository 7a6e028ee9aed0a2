/* Crops that the model was shipped without: their inputs, the rounds that are for them alone, and the end of a window.
 *
 *   test_contexts IMAGE     IMAGE: a model container with heads of its own for contexts 0 and 1 alone
 */
#include "bench.h"

enum { APPLE = 0, TOMATO = 1, POTATO = 2, GRAPE = 3, OTHER = 5, NEW = SWN_MODE_NEW_CONTEXTS };

static void test_who_knows(bench_t *bench)
{
    uint8_t context;

    for (context = 0; context < SWN_CONTEXT_MAX; context++) {
        start(bench, context, 1);
        EXPECT_EQ(swn_node_knows_crop(&bench->node), context <= TOMATO);
    }
}

/* A flagged round is not for a node that was shipped with its crop's head; what it says of the next window is. */
static void test_known_crops_stay_out(bench_t *bench)
{
    const uint8_t known[2] = {APPLE, TOMATO};
    unsigned i;

    for (i = 0; i < 4; i++) {
        const unsigned mode = i < 2 ? SWN_MODE_PROTOTYPES : SWN_MODE_TOP_K_SIGN;
        int64_t now_us;

        start(bench, known[i % 2], 30);
        now_us = live(bench, 6);
        bench->node.status_due_us = SWN_NEVER_US;
        announce(bench, now_us, 4, NEW | mode, 0, 3600);
        EXPECT_EQ(bench->node.update_due_us, SWN_NEVER_US);
        EXPECT_EQ(bench->world.listens, 1);
        (void)swn_poll(&bench->node, now_us + HOUR_US / 2);
        EXPECT_EQ(bench->world.sent, 0);
        announce(bench, now_us, 4, mode, 0, 3600); /* the same round without the flag: it was heard already */
        EXPECT_EQ(bench->node.update_due_us, SWN_NEVER_US);
        announce(bench, now_us, 5, mode, 0, 3600);
        (void)swn_poll(&bench->node, now_us + 5 * SECOND_US);
        EXPECT_EQ(bench->world.sent, 1);
        EXPECT_EQ(bench->world.learning[1], 5);
        EXPECT_EQ(bench->node.dropped, 0);
        EXPECT_EQ(bench->node.refused, 0);
    }
}

/* New crops answer, once, however often the announcement is repeated before and after. */
static void test_new_crops_answer_once(bench_t *bench)
{
    const uint8_t crops[3] = {POTATO, GRAPE, OTHER};
    unsigned i;

    for (i = 0; i < 6; i++) {
        const unsigned mode = i < 3 ? SWN_MODE_PROTOTYPES : SWN_MODE_TOP_K_SIGN;
        int64_t now_us;
        int64_t due_us;

        start(bench, crops[i % 3], 31 + i);
        now_us = live(bench, 6);
        bench->node.status_due_us = SWN_NEVER_US;
        announce(bench, now_us, 4, NEW | mode, 600, 3600);
        due_us = bench->node.update_due_us;
        EXPECT(due_us >= now_us + 5 * SECOND_US && due_us < now_us + 605 * SECOND_US);
        announce(bench, now_us + 2 * SECOND_US, 4, NEW | mode, 600, 3600);
        EXPECT_EQ(bench->node.update_due_us, due_us);
        (void)swn_poll(&bench->node, due_us);
        EXPECT_EQ(bench->world.sent, 1);
        EXPECT_EQ(bench->world.learning[0], mode);
        EXPECT_EQ(bench->world.learning[1], 4);
        EXPECT_EQ(bench->world.learning[5], crops[i % 3]);
        announce(bench, due_us + SECOND_US, 4, NEW | mode, 0, 3600);
        (void)swn_poll(&bench->node, due_us + 20 * SECOND_US);
        EXPECT_EQ(bench->world.sent, 1);
        EXPECT_EQ(bench->node.learner.pending_mode, mode);
        EXPECT_EQ(bench->node.dropped, 0);
    }
}

/* Coordinates of one part of the residual, and of the frame on its way, that are not zero. */
static void count_changes(const bench_t *bench, unsigned first, unsigned end, unsigned *residual, unsigned *sent)
{
    const swn_learner_t *learner = &bench->node.learner;
    unsigned i;

    *residual = 0;
    *sent = 0;
    for (i = first; i < end; i++) {
        *residual += learner->residual[i] != 0;
        *sent += learner->pending.steps[i] != 0;
    }
}

/* Their training leaves the adapter alone, which all crops share; an ordinary round changes it again. */
static void test_heads_only(bench_t *bench)
{
    int64_t now_us;
    unsigned residual;
    unsigned sent;

    start(bench, POTATO, 40);
    now_us = live(bench, 30);
    bench->node.status_due_us = SWN_NEVER_US;
    announce(bench, now_us, 8, NEW | SWN_MODE_TOP_K_SIGN, 0, 3600);
    (void)swn_poll(&bench->node, now_us + 5 * SECOND_US);
    EXPECT_EQ(bench->world.learning[0], 2);
    count_changes(bench, 0, SWN_HEAD_OFFSET, &residual, &sent);
    EXPECT_EQ(residual, 0);
    EXPECT_EQ(sent, 0);
    count_changes(bench, SWN_HEAD_OFFSET, SWN_LOCAL_SIZE_MAX, &residual, &sent);
    EXPECT(residual > 60);
    EXPECT_EQ(sent, bench->world.learning[SWN_TOP_K_COUNT_AT]);
    EXPECT(sent > 40);
    acknowledge(bench, now_us + 6 * SECOND_US, 8, 0xFF);
    count_changes(bench, 0, SWN_HEAD_OFFSET, &residual, &sent);
    EXPECT_EQ(residual, 0);
    announce(bench, now_us + HOUR_US, 9, SWN_MODE_TOP_K_SIGN, 0, 3600);
    (void)swn_poll(&bench->node, now_us + HOUR_US + 5 * SECOND_US);
    count_changes(bench, 0, SWN_HEAD_OFFSET, &residual, &sent);
    EXPECT(residual > 60);
}

/* From noon on: `wet` hours at 95 %, the others at 60 %; all at one temperature. Returns the time of the next noon. */
static int64_t one_day(bench_t *bench, unsigned day, int temperature_centi, unsigned wet)
{
    int64_t now_us = 0;
    unsigned hour;

    for (hour = 1; hour <= 24; hour++) {
        swn_sample_t sample;

        now_us = day * DAY_US + hour * HOUR_US;
        sample.hour = (uint8_t)((hour + 12) % 24);
        sample.temperature_centi = (int16_t)temperature_centi;
        sample.humidity_half = (uint8_t)(hour <= wet ? 190 : 120);
        sample.rain_tenth = 0;
        (void)swn_sense(&bench->node, now_us, &sample);
    }
    return now_us;
}

/* Days of 15 to 26 degC, wet for 0 to 21 hours: TOM-CAST's values 0 to 4, and a season's index that comes and goes. */
typedef struct weather_day {
    int temperature_centi;
    unsigned wet;
    uint8_t severity; /* TOM-CAST, by hand */
    uint8_t season;   /* Gubler-Thomas, by hand */
} weather_day_t;

static const weather_day_t WEATHER[] = {
    {2400, 0, 0, 20}, {2400, 3, 1, 40}, {2400, 2, 0, 60},  {2200, 6, 2, 80}, {2500, 13, 3, 100}, {1500, 21, 3, 90},
    {1500, 7, 1, 80}, {2000, 23, 4, 70}, {1200, 20, 0, 60}, {1500, 0, 0, 50}, {1500, 16, 2, 40},  {2300, 21, 4, 60},
};
enum { DAYS = (int)(sizeof WEATHER / sizeof WEATHER[0]) };

static uint8_t class_of(uint8_t severity)
{
    return (uint8_t)(severity == 0 ? SWN_LOW : severity <= 2 ? SWN_MEDIUM : SWN_HIGH);
}

/* Inputs 48..50 and 52 by TOM-CAST, 51 by the season: for the day's sample and for a question alike. */
static void test_inputs_of_new_crops(bench_t *bench)
{
    const uint8_t crops[3] = {POTATO, GRAPE, OTHER};
    unsigned crop;
    unsigned day;
    unsigned i;

    for (crop = 0; crop < 3; crop++) {
        start(bench, crops[crop], 50);
        for (day = 0; day < DAYS; day++) {
            const uint8_t risk = class_of(WEATHER[day].severity);
            const int8_t *x = bench->node.day_x;
            int8_t asked[SWN_WEATHER_FEATURES];

            (void)one_day(bench, day, WEATHER[day].temperature_centi, WEATHER[day].wet);
            for (i = 0; i < SWN_WEATHER_CLASSES; i++) {
                EXPECT_EQ(x[48 + i], i == risk ? 64 : 0);
            }
            EXPECT_EQ(x[51], WEATHER[day].season);
            EXPECT_EQ(x[52], day == 0 ? 0 : 40 * class_of(WEATHER[day - 1].severity));
            EXPECT_EQ(x[53], 5 * WEATHER[day].wet);
            EXPECT_EQ(swn_own_features(&bench->node, crops[crop], asked).index, WEATHER[day].season);
            EXPECT_EQ(memcmp(asked, x, sizeof asked), 0);
        }
    }
}

/* Known crops keep their own rule's class, index and yesterday; only the rule tells the crops' inputs apart. */
static void test_inputs_of_known_crops(bench_t *bench)
{
    static bench_t other;
    unsigned day;

    other.model = bench->model;
    start(bench, TOMATO, 51);
    start(&other, APPLE, 51);
    for (day = 0; day < DAYS; day++) {
        const uint8_t severity = WEATHER[day].severity;
        const int8_t *x = bench->node.day_x;
        const uint8_t mills = other.node.season.yesterday[APPLE]; /* of the day before */
        int8_t asked[SWN_WEATHER_FEATURES];

        (void)one_day(bench, day, WEATHER[day].temperature_centi, WEATHER[day].wet);
        (void)one_day(&other, day, WEATHER[day].temperature_centi, WEATHER[day].wet);
        EXPECT_EQ(x[48 + class_of(severity)], 64);
        EXPECT_EQ(x[51], severity == 4 ? 127 : 32 * severity);
        EXPECT_EQ(x[52], day == 0 ? 0 : 40 * class_of(WEATHER[day - 1].severity));
        EXPECT_EQ(other.node.day_x[48 + other.node.season.yesterday[APPLE]], 64);
        EXPECT_EQ(other.node.day_x[52], 40 * mills);
        EXPECT_EQ(memcmp(other.node.day_x, x, 48), 0);
        /* Asked about another crop, the node judges by that crop's rule, or by the general one. */
        EXPECT_EQ(swn_own_features(&other.node, TOMATO, asked).index, x[51]);
        EXPECT_EQ(memcmp(asked, x, sizeof asked), 0);
        EXPECT_EQ(swn_own_features(&other.node, GRAPE, asked).index, WEATHER[day].season);
        EXPECT_EQ(asked[48 + class_of(severity)], 64);
    }
    EXPECT_EQ(other.node.day_x[51], 127); /* 21 wet hours at 23 degC, of 6 that an infection needs */
}

/* In the last day of a spell of one temperature: the apple rule, by hand. */
static void test_apple_index(bench_t *bench)
{
    start(bench, APPLE, 52);
    (void)one_day(bench, 0, 1800, 3);
    EXPECT_EQ(bench->node.day_x[51], 32); /* 3 of 6 h */
    EXPECT_EQ(bench->node.day_x[49], 64);
    (void)one_day(bench, 1, 1800, 2);
    EXPECT_EQ(bench->node.day_x[51], 64 * 2 / 6);
    EXPECT_EQ(bench->node.day_x[48], 64);
    EXPECT_EQ(bench->node.day_x[52], 40);
}

/* ROUND ends the open window, once, and announces the next one, once. */
static void test_round_closes_the_window(bench_t *bench)
{
    const uint8_t schedule[9] = {1, 0x10, 0x0E, 0, 0, 120, 0, 0, 0}; /* in an hour, two minutes */
    int64_t now_us = HOUR_US + 20 * SECOND_US;
    unsigned repeat;

    start(bench, POTATO, 60);
    receive(bench, 0, SWN_PORT_STATUS, schedule, sizeof schedule);
    EXPECT_EQ(bench->world.listens, 1);
    EXPECT_EQ(bench->world.until_us, HOUR_US + 120 * SECOND_US);
    acknowledge(bench, now_us, 1, 0xFF); /* of the programme, and not its end */
    EXPECT_EQ(bench->world.closings, 0);
    for (repeat = 0; repeat < 3; repeat++) {
        const unsigned next_s = 7200 - 3 * repeat; /* each says when, counted from itself */

        announce_window(bench, now_us + 3 * repeat * SECOND_US, 1, NEW | SWN_MODE_NONE, 0, 3600, next_s, 90);
        EXPECT_EQ(bench->world.closings, 1);
        EXPECT_EQ(bench->world.closed_us, now_us);
        EXPECT_EQ(bench->world.listens, 2);
        EXPECT_EQ(bench->world.from_us, now_us + 7200 * SECOND_US - 50000);
        EXPECT_EQ(bench->world.until_us, now_us + 7290 * SECOND_US);
    }
    /* The next one, within the guard before it begins and with a frame that announces none. */
    now_us += 7200 * SECOND_US - 50000;
    announce_window(bench, now_us, 2, SWN_MODE_NONE, 0, 3600, 7200, 0);
    EXPECT_EQ(bench->world.closings, 2);
    EXPECT_EQ(bench->world.closed_us, now_us);
    EXPECT_EQ(bench->world.listens, 2);
    EXPECT_EQ(bench->node.window_until_us, now_us); /* nothing to wait for: the next STATUS asks */
}

/* A ROUND that comes when no window is open has none to close. */
static void test_round_outside_a_window(bench_t *bench)
{
    start(bench, APPLE, 61);
    announce_window(bench, 0, 1, SWN_MODE_NONE, 0, 3600, 3600, 60);
    EXPECT_EQ(bench->world.closings, 0);
    EXPECT_EQ(bench->world.listens, 1);
    announce_window(bench, HOUR_US - 50001, 2, SWN_MODE_NONE, 0, 3600, 7200, 60); /* before the receiver opens */
    EXPECT_EQ(bench->world.closings, 0);
    EXPECT_EQ(bench->world.listens, 2);
    announce_window(bench, 4 * HOUR_US, 3, SWN_MODE_NONE, 0, 3600, 7200, 60); /* after it closed by itself */
    EXPECT_EQ(bench->world.closings, 0);
    EXPECT_EQ(bench->world.listens, 3);
}

int main(int argc, char **argv)
{
    static bench_t bench;

    if (open_model(&bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_who_knows(&bench);
    test_known_crops_stay_out(&bench);
    test_new_crops_answer_once(&bench);
    test_heads_only(&bench);
    test_inputs_of_new_crops(&bench);
    test_inputs_of_known_crops(&bench);
    test_apple_index(&bench);
    test_round_closes_the_window(&bench);
    test_round_outside_a_window(&bench);
    return expect_done("test_contexts");
}
