/* The node's life, what it hears and what it says; see swn_node.h (sensing and inference: swn_sense.c). */
#include "swn_node.h"

#include <string.h>

#include "swn_math.h"
#include "swn_repair.h"

#define SECOND_US ((int64_t)1000000)

enum { STATUS_PERIOD_MIN_S = 60 };

/* Chance ------------------------------------------------------------------------------------------- */

/* The bias of 2^-32 * range does not matter here. */
int64_t swn_random_us(swn_node_t *node, uint32_t range_ms)
{
    return (int64_t)((uint64_t)swn_xorshift32(&node->prng) * range_ms >> 32) * 1000;
}

/* Life --------------------------------------------------------------------------------------------- */

int swn_init(swn_node_t *node, const swn_config_t *config, const swn_port_t *port, int64_t now_us)
{
    swn_own_t own;

    memset(node, 0, sizeof *node);
    if (config->model == NULL || config->context >= SWN_CONTEXT_MAX || config->payload_max < SWN_STATUS_SIZE ||
        config->payload_max > SWN_PAYLOAD_MAX || (config->mask != NULL && !swn_mask_valid(config->mask)) ||
        (config->receive != NULL && !swn_receive_is_set(config->receive)) || config->status_period_s < STATUS_PERIOD_MIN_S || port->tx == NULL || port->listen == NULL) {
        return -1;
    }
    node->config = *config;
    node->port = port;
    if (port->random32 != NULL) {
        node->config.seed ^= (uint64_t)port->random32(port->ctx) << 32;
        node->config.seed ^= port->random32(port->ctx);
    }
    node->prng = swn_seed32(node->config.seed);
    node->day = config->first_day;
    node->battery = 255;
    node->update_due_us = SWN_NEVER_US;
    node->busy_until_us = now_us;
    swn_listen_init(node, now_us);
    swn_receive_init(node, now_us);
    node->status_due_us = now_us + swn_status_delay_us(node);
    swn_history_init(&node->history);
    swn_borrow_init(&node->borrow);
    swn_learner_init(&node->learner);
    swn_parameters_init(&node->parameters, config->model);
    own = swn_node_own(node);
    swn_serve_init(&node->serve, &own);
    swn_plan_experts(node, now_us);
    return 0;
}

uint8_t swn_recall(swn_node_t *node, uint8_t key, const void *data, size_t size)
{
    if (key == SWN_NVM_PARAMETERS && size == sizeof node->parameters) {
        memcpy(&node->parameters, data, size);
        if (node->parameters.head_size == swn_head_size(node->config.model)) {
            return 1;
        }
        swn_parameters_init(&node->parameters, node->config.model);
        return 0;
    }
    if (key == SWN_NVM_MASKED && size == sizeof node->masked) {
        memcpy(&node->masked, data, size);
        return 1;
    }
    if (key == SWN_NVM_STORED) {
        return swn_receive_recall(node, data, size);
    }
    if (key == SWN_NVM_RESIDUAL && size == sizeof node->learner.residual) {
        memcpy(node->learner.residual, data, size);
        return 1;
    }
    if (key == SWN_NVM_SERVE && size == sizeof node->serve) {
        swn_serve_recall(&node->serve, data);
        return 1;
    }
    return 0;
}

void swn_set_battery(swn_node_t *node, uint8_t battery)
{
    node->battery = battery;
}

void swn_set_payload_max(swn_node_t *node, uint8_t payload_max)
{
    if (payload_max >= SWN_STATUS_SIZE && payload_max <= SWN_PAYLOAD_MAX) {
        node->config.payload_max = payload_max;
    }
}

/* Downlinks ---------------------------------------------------------------------------------------- */

static void forget_update(swn_node_t *node)
{
    if (node->update_due_us != SWN_NEVER_US) {
        node->dropped++;
        if (node->update_size > 0) {
            swn_learner_drop(&node->learner);
        }
    }
    node->update_due_us = SWN_NEVER_US;
    node->update_size = 0;
}

static void on_round(swn_node_t *node, int64_t now_us, const swn_round_t *round, uint8_t multicast)
{
    uint32_t spread_s = round->spread_s;

    if (round->mode == SWN_MODE_MASKED_SUMS) {
        swn_masked_heard(node, round->round, multicast);
    }

    /* ROUND is the last frame of a window's programme: the receiver need not wait for the window's end. */
    swn_close_window(node, now_us);
    swn_plan_window(node, now_us, round->next_window_s, round->window_s);
    if (node->round_known && node->round == round->round) {
        return;
    }
    forget_update(node);
    node->round = round->round;
    node->round_known = 1;
    node->repair_missing = 0;
    if (round->mode == SWN_MODE_NONE || ((unsigned)node->config.refuses >> round->mode & 1u) || round->close_in_s <= SWN_UPDATE_GUARD_S ||
        (round->new_contexts && swn_node_knows_crop(node)) || swn_hash8(node->config.node_index, round->round) > round->cohort ||
        (round->mode == SWN_MODE_MASKED_SUMS && !swn_masked_allowed(node, round))) {
        return;
    }
    if (spread_s > round->close_in_s - SWN_UPDATE_GUARD_S) {
        spread_s = round->close_in_s - SWN_UPDATE_GUARD_S;
    }
    node->update_mode = round->mode;
    node->update_heads_only = round->new_contexts;
    node->sums = round->sums;
    node->update_due_us = now_us + SWN_UPDATE_GUARD_S * SECOND_US + swn_random_us(node, spread_s * 1000u);
    node->update_close_us = now_us + (int64_t)round->close_in_s * SECOND_US;
}

static void on_ack(swn_node_t *node, const swn_ack_t *ack)
{
    const uint8_t changes = swn_change_any(&node->learner.pending);

    if (!swn_ack_has(ack, node->config.node_index) || !swn_learner_acknowledge(&node->learner, ack->round)) {
        return;
    }
    if (changes && node->port->nvm_write != NULL) {
        node->port->nvm_write(node->port->ctx, SWN_NVM_RESIDUAL, node->learner.residual, sizeof node->learner.residual);
    }
}

static void on_block(swn_node_t *node, const swn_piece_t *piece)
{
    const swn_signer_t signer = {node->config.signer, node->port->verify, node->port->ctx};
    swn_own_t own;

    switch (swn_block_take(&node->block, piece, &node->parameters, &signer)) {
    case SWN_BLOCK_APPLIED:
        own = swn_node_own(node);
        swn_serve_block(&node->serve, &own);
        swn_node_keep_choice(node);
        if (node->port->nvm_write != NULL) {
            node->port->nvm_write(node->port->ctx, SWN_NVM_PARAMETERS, &node->parameters, sizeof node->parameters);
        }
        break;
    case SWN_BLOCK_REFUSED:
        node->refused++;
        break;
    case SWN_PIECE_IGNORED:
    case SWN_PIECE_STORED:
        break;
    }
}

swn_pending_answer_t *swn_answer_slot(swn_node_t *node, uint16_t query_id)
{
    swn_pending_answer_t *free_slot = NULL;
    unsigned i;

    for (i = 0; i < SWN_ANSWERS_MAX; i++) {
        swn_pending_answer_t *slot = &node->answers[i];
        if (slot->waiting && slot->query_id == query_id) {
            return NULL; /* the same question again */
        }
        if (!slot->waiting) {
            free_slot = slot;
        }
    }
    node->dropped += free_slot == NULL;
    return free_slot;
}

static void on_query(swn_node_t *node, int64_t now_us, const swn_query_t *query)
{
    swn_pending_answer_t *slot;
    swn_answer_t answer;
    int8_t x[SWN_FEATURES_MAX];

    if (query->features != NULL && query->features_size != node->config.model->features) {
        node->refused++;
        return;
    }
    slot = swn_answer_slot(node, query->query_id);
    if (slot == NULL) {
        return;
    }
    memset(&answer, 0, sizeof answer);
    answer.query_id = query->query_id;
    answer.context = query->context == SWN_CONTEXT_OWN ? node->config.context : query->context;
    answer.head_version = node->parameters.model_version;
    answer.classes = (uint8_t)node->config.model->classes;
    if (query->features != NULL) {
        memcpy(x, query->features, query->features_size);
        answer.age = SWN_AGE_UNKNOWN;
    } else {
        (void)swn_own_features(node, answer.context, x);
        answer.age = swn_age_of_readings(node, now_us);
        answer.flags = SWN_ANSWER_OWN_READINGS;
        if (!node->observed) {
            answer.flags = (uint8_t)(answer.flags |
                                     (swn_history_no_humidity(swn_judged_history(node)) ? SWN_ANSWER_NO_HUMIDITY : 0) |
                                     (swn_history_no_rain(swn_judged_history(node)) ? SWN_ANSWER_NO_RAIN : 0) |
                                     (swn_judged_history(node) != &node->history ? SWN_ANSWER_BORROWED : 0));
        }
    }
    swn_infer_context(node, answer.context, x, answer.probabilities);
    slot->size = (uint8_t)swn_frame_answer(&answer, slot->frame, sizeof slot->frame);
    slot->waiting = (uint8_t)(slot->size > 0);
    slot->query_id = query->query_id;
    slot->due_us = now_us + swn_random_us(node, query->reply_in_s * 1000u);
    slot->until_us = slot->due_us + SWN_ANSWER_LIFE_S * SECOND_US;
}

static void on_schedule(swn_node_t *node, int64_t now_us, const swn_schedule_t *schedule)
{
    swn_plan_window(node, now_us, schedule->next_window_s, schedule->window_s);
    if (schedule->status_period_min > 0 && schedule->status_period_min * 60u != node->config.status_period_s) {
        node->config.status_period_s = schedule->status_period_min * 60u;
        node->status_due_us = now_us + swn_status_delay_us(node);
    }
}

void swn_rx(swn_node_t *node, int64_t now_us, uint8_t f_port, const uint8_t *data, size_t size, uint8_t multicast,
            int8_t snr_db)
{
    swn_downlink_t message;

    node->snr_db = snr_db;
    node->multicast_received = (uint8_t)(node->multicast_received + (multicast ? 1u : 0u));
    if (f_port == SWN_PORT_TRANSPORT && swn_on_transport(node, now_us, data, size, multicast)) {
        return;
    }
    switch (swn_frame_read(f_port, data, size, &message)) {
    case SWN_DOWNLINK_ROUND:
        on_round(node, now_us, &message.round, multicast);
        break;
    case SWN_DOWNLINK_ACK:
        on_ack(node, &message.ack);
        break;
    case SWN_DOWNLINK_BLOCK:
        on_block(node, &message.block);
        break;
    case SWN_DOWNLINK_REPAIR:
        if (swn_repair_asked(node, now_us, &message.repair)) {
            forget_update(node);
            swn_learner_drop(&node->learner);
        }
        break;
    case SWN_DOWNLINK_OFFER:
        swn_on_offer(node, now_us, &message.offer);
        break;
    case SWN_DOWNLINK_QUERY:
        on_query(node, now_us, &message.query);
        break;
    case SWN_DOWNLINK_SCHEDULE:
        on_schedule(node, now_us, &message.schedule);
        if (!multicast && message.schedule.round > 0) {
            swn_masked_told(node, message.schedule.round);
        }
        break;
    case SWN_DOWNLINK_REPLY:
        swn_on_reply(node, &message.reply);
        break;
    case SWN_DOWNLINK_EXPERT_QUERY:
        swn_on_expert_query(node, now_us, &message.expert_query);
        break;
    case SWN_DOWNLINK_READINGS:
        if (swn_borrow_take(&node->borrow, &message.readings, node->hours_in_day)) {
            swn_amend_day(node);
        }
        break;
    case SWN_DOWNLINK_SHARE:
        swn_borrow_share(&node->borrow, &message.share, &node->history);
        break;
    case SWN_DOWNLINK_LABEL:
        swn_on_label(node, &message.told);
        break;
    case SWN_DOWNLINK_MALFORMED:
        node->refused++;
        break;
    }
}

/* Uplinks ------------------------------------------------------------------------------------------ */

uint8_t swn_transmit(swn_node_t *node, int64_t now_us, uint8_t f_port, const uint8_t *data, size_t size)
{
    const int result = node->port->tx(node->port->ctx, f_port, data, size);

    if (result == 0) {
        node->sent++;
        return 1;
    }
    node->busy_until_us = now_us + (result > 0 ? result : SWN_RETRY_S) * SECOND_US + swn_random_us(node, SWN_RETRY_S * 1000u);
    return 0;
}

static void send_answers(swn_node_t *node, int64_t now_us)
{
    unsigned i;

    for (i = 0; i < SWN_ANSWERS_MAX && node->busy_until_us <= now_us; i++) {
        swn_pending_answer_t *slot = &node->answers[i];
        if (slot->waiting && slot->due_us <= now_us &&
            swn_transmit(node, now_us, SWN_PORT_ASKING, slot->frame, slot->size)) {
            slot->waiting = 0;
        }
    }
}

static void give_up_late(swn_node_t *node, int64_t now_us)
{
    unsigned i;

    for (i = 0; i < SWN_ANSWERS_MAX; i++) {
        if (node->answers[i].waiting && node->answers[i].until_us < now_us) {
            node->answers[i].waiting = 0;
            node->dropped++;
        }
    }
    if (node->update_due_us != SWN_NEVER_US && node->update_close_us < now_us) {
        forget_update(node);
    }
}

static void compose_update(swn_node_t *node)
{
    swn_update_t update;

    memset(&update, 0, sizeof update);
    update.model = node->config.model;
    update.parameters = &node->parameters;
    update.seed = node->config.seed + (uint64_t)node->round * 0x9E3779B97F4A7C15u;
    update.round = node->round;
    update.node_index = node->config.node_index;
    update.mode = node->update_mode;
    update.heads_only = node->update_heads_only;
    update.context = node->config.context;
    update.payload_max = node->config.payload_max;
    update.epochs = node->config.epochs;
    if (node->update_mode == SWN_MODE_MASKED_SUMS) {
        update.mask = node->config.mask;
        update.sums = node->sums;
        swn_masked_draw_key(node, update.noise_key);
        swn_masked_use(node);
    }
    node->update_size = (uint16_t)swn_learner_compose(&node->learner, &update, node->update);
    node->update_slice = (uint8_t)(node->config.payload_max - SWN_FRAGMENT_HEADER);
    node->update_fragment = 0;
}

/* The next frame of the update: all of it where it fits, else a fragment; 0 when it cannot be said at this data rate. */
static size_t next_frame(const swn_node_t *node, uint8_t *out)
{
    const size_t begin = (size_t)node->update_fragment * node->update_slice;
    const size_t count = (node->update_size + node->update_slice - 1u) / node->update_slice;
    swn_fragment_t fragment;

    if (node->update_fragment == 0 && node->update_size <= node->config.payload_max) {
        memcpy(out, node->update, node->update_size);
        return node->update_size;
    }
    if (count > SWN_FRAGMENTS_MAX) {
        return 0;
    }
    fragment.round = node->round;
    fragment.mode = node->update_mode;
    fragment.index = node->update_fragment;
    fragment.count = (uint8_t)count;
    fragment.slice = node->update + begin;
    fragment.slice_size = node->update_size - begin < node->update_slice ? node->update_size - begin : node->update_slice;
    return swn_frame_fragment(&fragment, out, node->config.payload_max);
}

static void send_update(swn_node_t *node, int64_t now_us)
{
    uint8_t frame[SWN_PAYLOAD_MAX];
    size_t size;

    if (node->update_size == 0) {
        compose_update(node);
    }
    if (node->update_size == 0) {
        node->update_due_us = SWN_NEVER_US;
        return;
    }
    size = next_frame(node, frame);
    if (size == 0) {
        forget_update(node);
        return;
    }
    if (!swn_transmit(node, now_us, SWN_PORT_LEARNING, frame, size)) {
        return;
    }
    node->update_fragment++;
    if (size < node->update_size && (size_t)node->update_fragment * node->update_slice < node->update_size) {
        /* Two nodes whose fragments met once should not meet again. */
        node->update_due_us = now_us + SWN_FRAGMENT_GAP_S * SECOND_US + swn_random_us(node, SWN_RETRY_S * 1000u);
        return;
    }
    node->update_due_us = SWN_NEVER_US;
    node->update_size = 0;
}

static void send_readings(swn_node_t *node, int64_t now_us)
{
    uint8_t frame[SWN_READINGS_SIZE_MAX];
    const size_t size = swn_borrow_readings(&node->borrow, &node->history, node->hours_in_day, now_us, frame,
                                            node->config.payload_max);

    if (size == 0 || swn_transmit(node, now_us, SWN_PORT_STATUS, frame, size)) {
        node->borrow.readings_due_us = SWN_NEVER_US;
    }
}

static void send_request(swn_node_t *node, int64_t now_us)
{
    uint8_t frame[SWN_STATUS_SIZE];
    const size_t size = swn_borrow_request(&node->borrow, now_us, frame, sizeof frame);

    if (swn_transmit(node, now_us, SWN_PORT_STATUS, frame, size)) {
        swn_borrow_asked(&node->borrow, now_us, &node->prng);
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t swn_poll(swn_node_t *node, int64_t now_us)
{
    int64_t next_us;
    unsigned i;

    give_up_late(node, now_us);
    swn_send_ask(node, now_us);
    send_answers(node, now_us);
    if (node->update_due_us <= now_us && node->busy_until_us <= now_us) {
        send_update(node, now_us);
    }
    if (node->borrow.readings_due_us <= now_us && node->busy_until_us <= now_us) {
        send_readings(node, now_us);
    }
    if (node->borrow.request_due_us <= now_us && node->busy_until_us <= now_us) {
        send_request(node, now_us);
    }
    if (node->repair_missing != 0 && node->repair_due_us <= now_us && node->busy_until_us <= now_us) {
        swn_repair_send(node, now_us);
    }
    if (node->status_due_us <= now_us && node->busy_until_us <= now_us) {
        swn_send_status(node, now_us);
    }
    swn_send_experts(node, now_us);
    swn_send_transport(node, now_us);
    swn_listen_poll(node, now_us);
    next_us = earlier(earlier(node->status_due_us, node->update_due_us), node->experience.due_us);
    if (node->ask.state == SWN_JUDGED_ASKING) {
        next_us = earlier(next_us, node->ask.due_us);
    }
    next_us = earlier(next_us, earlier(node->borrow.readings_due_us, node->borrow.request_due_us));
    for (i = 0; i < SWN_ANSWERS_MAX; i++) {
        if (node->answers[i].waiting) {
            next_us = earlier(next_us, node->answers[i].due_us);
        }
    }
    if (node->repair_missing != 0) {
        next_us = earlier(next_us, node->repair_due_us);
    }
    next_us = earlier(next_us, earlier(swn_receive_due_us(node), swn_listen_due_us(node, now_us)));
    next_us = next_us < node->busy_until_us ? node->busy_until_us : next_us;
    return next_us > now_us ? next_us : now_us + 1;
}
