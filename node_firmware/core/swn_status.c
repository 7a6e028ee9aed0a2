/* What a node reports of itself, and when; see swn_node.h. */
#include "swn_node.h"

#include "swn_math.h"

#define SECOND_US ((int64_t)1000000)

enum {
    FLAT_TEMPERATURE_HOURS = 12,
    ABSENT_HOURS = 6,
    AGE_STEP_S = 600,
    AGE_MAX = 254,
    RISK_CLASS_MAX = 3 /* two bits: also says every class above */
};

/* Whether there is anything of its own that the node can judge. */
static uint8_t has_readings(const swn_node_t *node)
{
    return (uint8_t)(node->observed || swn_history_valid(&node->history) > 0);
}

uint8_t swn_age_of_readings(const swn_node_t *node, int64_t now_us)
{
    int64_t steps;

    if (!has_readings(node)) {
        return SWN_AGE_UNKNOWN;
    }
    steps = (now_us - node->valid_us) / (AGE_STEP_S * SECOND_US);
    return (uint8_t)(steps < 0 ? 0 : steps > AGE_MAX ? AGE_MAX : steps);
}

int64_t swn_status_delay_us(swn_node_t *node)
{
    const int64_t seconds = swn_random_us(node, node->config.status_period_s) / 1000;

    return seconds * SECOND_US + swn_random_us(node, 1000);
}

static uint8_t suspects_fault(const swn_node_t *node)
{
    return (uint8_t)(node->flat_temperature >= FLAT_TEMPERATURE_HOURS || node->flat_humidity >= SWN_FLAT_HUMIDITY_HOURS ||
                     node->absent >= ABSENT_HOURS);
}

static uint8_t risk_byte(const swn_node_t *node)
{
    uint8_t p[SWN_CLASSES_MAX];
    unsigned best = 0;
    unsigned i;

    if (!has_readings(node)) {
        return 0; /* class low with probability 0: nothing is known */
    }
    swn_infer_own(node, p);
    for (i = 1; i < node->config.model->classes; i++) {
        best = p[i] > p[best] ? i : best;
    }
    return (uint8_t)((best < RISK_CLASS_MAX ? best : RISK_CLASS_MAX) << 6 | p[best] >> 2);
}

/* The first of the node's own phases after now. */
static int64_t next_phase(int64_t due_us, int64_t now_us, int64_t period_us)
{
    return due_us + ((now_us - due_us) / period_us + 1) * period_us;
}

void swn_send_status(swn_node_t *node, int64_t now_us)
{
    const swn_history_t *history = &node->history;
    const unsigned last = (history->next + SWN_HISTORY_HOURS - 1u) % SWN_HISTORY_HOURS;
    const int64_t period_us = (int64_t)node->config.status_period_s * SECOND_US;
    uint8_t frame[SWN_STATUS_SIZE + 1];
    swn_report_t report;
    size_t size;

    if (now_us - node->status_due_us >= period_us) {
        /* Nobody called for a whole period: after a common silence all nodes would speak at once. */
        node->status_due_us = next_phase(node->status_due_us, now_us, period_us);
        return;
    }
    report.model_version = node->parameters.model_version;
    report.model_id = (uint16_t)(swn_model_crc32(node->config.model) & 0xFFFFu);
    report.temperature_centi = history->temperature_centi[last];
    report.humidity_half = history->humidity_half[last];
    report.rain_tenth = (uint16_t)(node->rain_seen ? node->rain_tenth : SWN_RAIN_MISSING);
    report.battery = node->battery;
    report.labelled = node->learner.labelled;
    report.flags = (uint8_t)((node->config.flags & SWN_NO_HUMIDITY_SENSOR ? SWN_STATUS_NO_HUMIDITY : 0) |
                             (node->config.flags & SWN_NO_RAIN_SENSOR ? SWN_STATUS_NO_RAIN : 0) |
                             (node->window_until_us <= now_us || node->masked_asks ? SWN_STATUS_WANTS_SCHEDULE : 0) |
                             (suspects_fault(node) ? SWN_STATUS_FAULT : 0) |
                             node->borrow.share.id << SWN_STATUS_SHARE_SHIFT);
    report.risk = risk_byte(node);
    report.multicast_received = node->multicast_received;
    report.serves = (uint8_t)(node->serve.choice | (node->serve.no_gain ? SWN_STATUS_NO_GAIN : 0) |
                              swn_serve_right(&node->serve) << SWN_STATUS_RIGHT_SHIFT);
    if (node->config.payload_max == SWN_STATUS_SIZE) {
        report.serves = 0; /* no room to say so */
    }
    size = swn_frame_status(&report, frame, sizeof frame);
    if (swn_transmit(node, now_us, SWN_PORT_STATUS, frame, size)) {
        node->rain_tenth = 0;
        node->rain_seen = 0;
        node->status_due_us = next_phase(node->status_due_us, now_us, period_us);
    }
}
