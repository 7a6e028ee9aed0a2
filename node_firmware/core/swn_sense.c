/* The node's hours and days, and what it makes of them; see swn_node.h. */
#include "swn_node.h"

#include <string.h>

#define HOUR_US ((int64_t)3600 * 1000000)

enum { MISSED_HOURS_MAX = 72, RAIN_MAX = SWN_RAIN_MISSING - 1 };

static uint8_t knows(const swn_node_t *node, uint8_t context)
{
    int16_t head[SWN_HEAD_SIZE_MAX];

    return (uint8_t)(swn_model_head(node->config.model, context, head) != 0);
}

/* A crop that the model knows has its own published rule, if there is one. */
static uint8_t rule_of(const swn_node_t *node, uint8_t context)
{
    return context < SWN_CROPS && knows(node, context) ? context : SWN_GENERAL_RULE;
}

/* What the day looks like to the rules. A crop without a rule of its own gets the general one's class (TOM-CAST, a
 * plain table of temperature and wetness) and, as the index, how warm the last weeks were (the running sum of
 * Gubler-Thomas): what no window of 48 h can hold. What both mean for its disease is for the fleet to learn. */
static swn_verdict_t verdict_of(const swn_node_t *node, uint8_t context, const swn_day_t *day, swn_mildew_t mildew)
{
    const uint8_t rule = rule_of(node, context);
    swn_verdict_t verdict = swn_rule(rule, day, mildew);

    if (rule != context) {
        verdict.index = swn_rule(SWN_SEASON_RULE, day, mildew).index;
    }
    return verdict;
}

uint8_t swn_node_knows_crop(const swn_node_t *node)
{
    return knows(node, node->config.context);
}

/* Whether the model judges the inputs that swn_features() makes. */
static int is_weather(const swn_node_t *node)
{
    return node->config.model->features == SWN_WEATHER_FEATURES && node->config.model->classes == SWN_WEATHER_CLASSES;
}

const swn_history_t *swn_judged_history(const swn_node_t *node)
{
    return swn_borrow_in_use(&node->borrow) ? &node->borrow.lent : &node->history;
}

/* The class of the 24 hours at the end of a history, whose memory is that of the noon before. */
static uint8_t class_by(const swn_node_t *node, const swn_history_t *history)
{
    swn_day_t day;

    swn_history_day(history, &day);
    return verdict_of(node, node->config.context, &day,
                      swn_mildew_next(node->season_before.mildew, day.warm_run, day.hot)).risk;
}

/* What the inputs themselves say of the rule: they hold its class. */
uint8_t swn_rule_said(const swn_node_t *node, const int8_t *x)
{
    uint8_t risk;

    for (risk = 0; is_weather(node) && risk < SWN_WEATHER_CLASSES; risk++) {
        if (x[SWN_RULE_INPUT + risk] > 0) {
            return risk;
        }
    }
    return SWN_RULE_NONE;
}

/* Judges the day at the end of a history: the season's memory, day_x, and what the trunk makes of it. */
static void judge_day(swn_node_t *node, const swn_history_t *history, int8_t hidden[SWN_HIDDEN])
{
    swn_season_t *season = &node->season;
    uint8_t experts[SWN_TOP_K];
    swn_verdict_t verdict;
    swn_day_t day;
    const uint8_t rule = rule_of(node, node->config.context);
    uint8_t crop;

    swn_history_day(history, &day);
    season->mildew = swn_mildew_next(node->season_before.mildew, day.warm_run, day.hot);
    for (crop = 0; crop < SWN_CROPS; crop++) {
        season->yesterday[crop] = swn_rule(crop, &day, season->mildew).risk;
    }
    verdict = verdict_of(node, node->config.context, &day, season->mildew);
    node->day_sampled = (uint8_t)(is_weather(node) && swn_history_valid(history) >= SWN_VALID_HOURS_MIN);
    if (is_weather(node)) {
        swn_features(history, verdict, node->season_before.yesterday[rule], node->day_x);
    }
    if (node->day_sampled) {
        (void)swn_features_to_hidden(node->config.model, node->day_x, hidden, experts);
        swn_count_experts(node, experts);
    }
}

/* The class that the node answers with for a sample of its own. */
static uint8_t answer_to(const swn_node_t *node, const int8_t hidden[SWN_HIDDEN], uint8_t rule)
{
    uint8_t p[SWN_CLASSES_MAX];
    uint8_t best = 0;
    uint8_t c;

    swn_infer_hidden(node, node->config.context, hidden, rule, p);
    for (c = 1; c < node->config.model->classes; c++) {
        best = p[c] > p[best] ? c : best;
    }
    return best;
}

static void note_sample(swn_node_t *node, uint8_t slot, const int8_t hidden[SWN_HIDDEN], uint8_t rule)
{
    swn_serve_sample(&node->serve, slot, rule, answer_to(node, hidden, rule));
}

static void close_day(swn_node_t *node)
{
    int8_t hidden[SWN_HIDDEN];

    node->season_before = node->season;
    judge_day(node, swn_judged_history(node), hidden);
    if (node->day_sampled) {
        note_sample(node, node->learner.next, hidden, swn_rule_said(node, node->day_x));
        swn_learner_add(&node->learner, node->day, hidden);
    }
    node->borrow.served = 0;
    swn_borrow_judged(&node->borrow, node->day, class_by(node, &node->history), class_by(node, swn_judged_history(node)));
    node->day++;
    node->days_closed++;
    node->hours_in_day = 0;
}

void swn_amend_day(swn_node_t *node)
{
    const uint16_t day = (uint16_t)(node->day - 1u);
    int8_t hidden[SWN_HIDDEN];
    swn_day_verdict_t *verdict = &node->borrow.verdicts[day % SWN_VERDICT_DAYS];

    swn_borrow_judged(&node->borrow, day, verdict->own, class_by(node, &node->borrow.noon));
    if (!swn_borrow_in_use(&node->borrow)) {
        return; /* the own readings were right more often: the loan only goes on being compared */
    }
    judge_day(node, &node->borrow.noon, hidden);
    if (node->day_sampled) {
        const uint8_t newest = (uint8_t)((node->learner.next + SWN_SAMPLES_MAX - 1u) % SWN_SAMPLES_MAX);
        if (node->learner.used > 0 && node->learner.samples[newest].id == day) {
            note_sample(node, newest, hidden, swn_rule_said(node, node->day_x));
        }
        swn_learner_amend(&node->learner, day, hidden);
    }
}

static uint8_t hours_of_same(uint8_t count, int same)
{
    return (uint8_t)(!same ? 0 : count < UINT8_MAX ? count + 1 : count);
}

/* Compares with the reading before: a sensor that never moves is suspected. */
static void watch_sensors(swn_node_t *node, const swn_sample_t *sample)
{
    const swn_history_t *history = &node->history;
    const unsigned last = (history->next + SWN_HISTORY_HOURS - 1u) % SWN_HISTORY_HOURS;
    const int missing = sample->temperature_centi == SWN_TEMPERATURE_MISSING;
    const int still = !missing && sample->temperature_centi == history->temperature_centi[last];
    /* Saturated air may rest at 100 % for days. */
    const int stuck = sample->humidity_half < SWN_HUMIDITY_MAX && sample->humidity_half == history->humidity_half[last];

    node->flat_temperature = hours_of_same(node->flat_temperature, still);
    node->flat_humidity = hours_of_same(node->flat_humidity, stuck);
    node->absent = hours_of_same(node->absent, missing);
}

static uint8_t take_hour(swn_node_t *node, const swn_sample_t *sample)
{
    watch_sensors(node, sample);
    swn_history_add(&node->history, sample);
    swn_borrow_hour(&node->borrow, sample, node->flat_humidity >= SWN_FLAT_HUMIDITY_HOURS);
    node->hours_in_day = (uint8_t)(node->hours_in_day < UINT8_MAX ? node->hours_in_day + 1 : UINT8_MAX);
    if (sample->hour != SWN_NOON_HOUR) {
        return 0;
    }
    close_day(node);
    return 1;
}

/* Hours between the last reading and this one pass as missing, so that days keep their count. */
static uint8_t pass_missed_hours(swn_node_t *node, int64_t now_us, uint8_t hour)
{
    const int64_t since_us = now_us - node->sensed_us;
    int64_t missed = (since_us + HOUR_US / 2) / HOUR_US - 1;
    uint8_t closed = 0;
    swn_sample_t none;

    if (missed > MISSED_HOURS_MAX) {
        const int64_t days = (missed - MISSED_HOURS_MAX + 23) / 24;
        node->day = (uint16_t)(node->day + (uint64_t)days);
        missed -= 24 * days;
    }
    memset(&none, 0, sizeof none);
    none.temperature_centi = SWN_TEMPERATURE_MISSING;
    none.humidity_half = SWN_HUMIDITY_MISSING;
    none.rain_tenth = SWN_RAIN_MISSING;
    for (; missed > 0; missed--) {
        none.hour = (uint8_t)((hour + 96 - missed) % 24);
        closed |= take_hour(node, &none);
    }
    return closed;
}

uint8_t swn_sense(swn_node_t *node, int64_t now_us, const swn_sample_t *sample)
{
    swn_sample_t reading = *sample;
    uint8_t closed = 0;

    reading.hour = (uint8_t)(reading.hour % 24);
    if (node->config.flags & SWN_NO_HUMIDITY_SENSOR) {
        reading.humidity_half = SWN_HUMIDITY_MISSING;
    }
    if (node->config.flags & SWN_NO_RAIN_SENSOR) {
        reading.rain_tenth = SWN_RAIN_MISSING;
    }
    if (node->readings > 0) {
        closed = pass_missed_hours(node, now_us, reading.hour);
    }
    closed |= take_hour(node, &reading);
    if (reading.rain_tenth != SWN_RAIN_MISSING) {
        node->rain_tenth += reading.rain_tenth;
        node->rain_tenth = node->rain_tenth > RAIN_MAX ? RAIN_MAX : node->rain_tenth;
        node->rain_seen = 1;
    }
    if (reading.temperature_centi != SWN_TEMPERATURE_MISSING) {
        node->valid_us = now_us;
    }
    node->sensed_us = now_us;
    node->readings++;
    if (closed) {
        swn_borrow_noon(&node->borrow, now_us - (int64_t)node->hours_in_day * HOUR_US, &node->prng);
    }
    return closed;
}

void swn_observe(swn_node_t *node, int64_t now_us, uint16_t id, const int8_t *x)
{
    int8_t hidden[SWN_HIDDEN];
    uint8_t experts[SWN_TOP_K];

    memcpy(node->day_x, x, node->config.model->features);
    (void)swn_features_to_hidden(node->config.model, x, hidden, experts);
    swn_count_experts(node, experts);
    note_sample(node, node->learner.next, hidden, SWN_RULE_NONE);
    swn_learner_add(&node->learner, id, hidden);
    node->observed = 1;
    node->valid_us = now_us;
}

uint8_t swn_label(swn_node_t *node, uint16_t id, uint8_t label)
{
    swn_own_t own;

    if (label >= node->config.model->classes || !swn_learner_label(&node->learner, id, label)) {
        return 0;
    }
    swn_borrow_label(&node->borrow, id, label);
    own = swn_node_own(node);
    swn_serve_label(&node->serve, &own, id);
    swn_node_keep_choice(node);
    return 1;
}

void swn_on_label(swn_node_t *node, const swn_told_t *told)
{
    /* To the nearest noon: clocks and time zones of who tells may be half a day wrong. */
    const int32_t hours = (int32_t)told->value + SWN_NOON_HOUR - node->hours_in_day;
    const uint16_t day = (uint16_t)(node->day - 1 - hours / 24);

    if (told->by_id) {
        (void)swn_label(node, told->value, told->label);
    } else if (hours >= 0) {
        (void)swn_label(node, day, told->label);
    }
}

void swn_node_keep_choice(swn_node_t *node)
{
    if (node->port->nvm_write != NULL) {
        node->port->nvm_write(node->port->ctx, SWN_NVM_SERVE, &node->serve, sizeof node->serve);
    }
}

swn_own_t swn_node_own(const swn_node_t *node)
{
    swn_own_t own;

    own.model = node->config.model;
    own.parameters = &node->parameters;
    own.learner = &node->learner;
    own.seed = node->config.seed;
    own.context = node->config.context;
    return own;
}

/* Inference ---------------------------------------------------------------------------------------- */

/* Between two noons "the day" is the last 24 h; the memory it continues is that of the nearer noon. */
swn_verdict_t swn_own_features(const swn_node_t *node, uint8_t context, int8_t *x)
{
    const swn_season_t *season = node->hours_in_day < 12 ? &node->season_before : &node->season;
    const swn_history_t *history = swn_judged_history(node);
    const uint8_t rule = rule_of(node, context);
    swn_verdict_t verdict = {SWN_LOW, 0};
    swn_day_t day;

    if (node->observed || !is_weather(node)) {
        memcpy(x, node->day_x, node->config.model->features);
        return verdict;
    }
    swn_history_day(history, &day);
    verdict = verdict_of(node, context, &day, swn_mildew_next(season->mildew, day.warm_run, day.hot));
    swn_features(history, verdict, season->yesterday[rule], x);
    return verdict;
}

void swn_infer_hidden(const swn_node_t *node, uint8_t context, const int8_t hidden[SWN_HIDDEN], uint8_t rule,
                      uint8_t *probabilities)
{
    int8_t z[SWN_Z];
    int32_t logits[SWN_CLASSES_MAX];

    swn_hidden_to_z(node->config.model, node->parameters.adapter, hidden, z);
    if (context == node->config.context) {
        const swn_own_t own = swn_node_own(node);
        swn_serve_infer(&node->serve, &own, z, rule, probabilities);
        return;
    }
    swn_head_logits(node->parameters.heads[context], node->config.model->classes, z, logits);
    swn_softmax(logits, node->config.model->classes, probabilities);
}

void swn_infer_context(const swn_node_t *node, uint8_t context, const int8_t *x, uint8_t *probabilities)
{
    int8_t hidden[SWN_HIDDEN];
    uint8_t experts[SWN_TOP_K];

    (void)swn_features_to_hidden(node->config.model, x, hidden, experts);
    swn_infer_hidden(node, context, hidden, swn_rule_said(node, x), probabilities);
}

void swn_infer(const swn_node_t *node, const int8_t *x, uint8_t *probabilities)
{
    swn_infer_context(node, node->config.context, x, probabilities);
}

void swn_infer_own(const swn_node_t *node, uint8_t *probabilities)
{
    int8_t x[SWN_FEATURES_MAX];

    (void)swn_own_features(node, node->config.context, x);
    swn_infer(node, x, probabilities);
}
