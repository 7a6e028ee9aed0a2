/* Judging together; see swn_ask.h. */
#include "swn_ask.h"

#include <string.h>

#include "swn_math.h"
#include "swn_node.h"

#define SECOND_US ((int64_t)1000000)

enum { EXPERTS_EVERY = 7, EXPERTS_FIRST_S = 3600, SEEN_MAX = 60000 };
enum { CHANGE_TOLD = 3, CHANGE_FIRST_S = 60, CHANGE_AGAIN_S = 600 }; /* an uplink may be lost, and a week is long */

static uint8_t best_of(const swn_node_t *node, const uint8_t *probabilities)
{
    uint8_t best = 0;
    uint8_t i;

    for (i = 1; i < node->config.model->classes; i++) {
        best = probabilities[i] > probabilities[best] ? i : best;
    }
    return best;
}

void swn_count_experts(swn_node_t *node, const uint8_t *picks)
{
    unsigned slot;
    unsigned i;

    for (slot = 0; slot < SWN_TOP_K; slot++) {
        uint16_t *seen = &node->experience.seen[picks[slot] < SWN_EXPERTS_MAX ? picks[slot] : 0];
        if (picks[slot] < SWN_EXPERTS_MAX && ++*seen > SEEN_MAX) {
            for (i = 0; i < SWN_EXPERTS_MAX; i++) {
                node->experience.seen[i] = (uint16_t)(node->experience.seen[i] / 2u);
            }
        }
    }
}

static uint8_t compose(swn_node_t *node, const swn_routing_t *routing, swn_ask_t *ask)
{
    const uint8_t label = best_of(node, ask->probabilities);
    swn_ask_message_t message;

    message.ask_id = ask->id;
    message.generation = node->config.model->generation;
    message.label = label;
    message.probability = ask->probabilities[label];
    message.routing = routing;
    return (uint8_t)(swn_frame_ask(&message, ask->frame, node->config.payload_max < SWN_ASK_SIZE
                                                             ? node->config.payload_max
                                                             : sizeof ask->frame) > 0);
}

static void tell(const swn_ask_t *ask, swn_judgement_t *out)
{
    memcpy(out->probabilities, ask->probabilities, sizeof out->probabilities);
    out->ask_id = ask->id;
    out->state = ask->state;
    out->missing = ask->missing;
}

void swn_judge(swn_node_t *node, int64_t now_us, uint8_t context, const int8_t *x, uint16_t deadline_s,
               swn_judgement_t *out)
{
    swn_ask_t *ask = &node->ask;
    const uint8_t rule = swn_rule_said(node, x);
    swn_routing_t routing;
    int8_t hidden[SWN_HIDDEN];

    memset(out, 0, sizeof *out);
    context = context < SWN_CONTEXT_MAX ? context : node->config.context;
    (void)swn_route(node->config.model, x, hidden, &routing);
    swn_count_experts(node, routing.picks);
    swn_infer_hidden(node, context, hidden, rule, out->probabilities);
    out->missing = routing.missing;
    out->state = SWN_JUDGED_ALONE;
    if (routing.missing == 0 || deadline_s == 0 || ask->state == SWN_JUDGED_ASKING ||
        out->probabilities[best_of(node, out->probabilities)] >= node->config.ask_below ||
        !swn_model_can_ask(node->config.model)) {
        return;
    }
    memset(ask->probabilities, 0, sizeof ask->probabilities);
    memcpy(ask->probabilities, out->probabilities, sizeof ask->probabilities);
    memcpy(ask->hidden, hidden, sizeof ask->hidden);
    ask->id++;
    ask->context = context;
    ask->rule = rule;
    ask->missing = routing.missing;
    ask->tries = 0;
    ask->retry_s = node->config.ask_retry_s > 0 ? node->config.ask_retry_s : SWN_ASK_RETRY_S;
    ask->due_us = now_us;
    ask->until_us = now_us + (int64_t)deadline_s * SECOND_US;
    ask->state = compose(node, &routing, ask) ? SWN_JUDGED_ASKING : SWN_JUDGED_ALONE;
    tell(ask, out);
}

void swn_judgement(const swn_node_t *node, swn_judgement_t *out)
{
    tell(&node->ask, out);
}

void swn_on_reply(swn_node_t *node, const swn_reply_t *reply)
{
    swn_ask_t *ask = &node->ask;
    const uint8_t supplied = reply->flags & ask->missing & SWN_REPLY_MISSING;
    int8_t contribution[SWN_HIDDEN];
    unsigned i;

    if (ask->state != SWN_JUDGED_ASKING || reply->ask_id != ask->id) {
        return; /* a late copy */
    }
    if (supplied == 0 || supplied != (reply->flags & SWN_REPLY_MISSING)) {
        ask->state = SWN_JUDGED_ALONE; /* nobody could help */
        return;
    }
    swn_coarse_get(reply->contribution, contribution);
    for (i = 0; i < SWN_HIDDEN; i++) {
        const int sum = ask->hidden[i] + contribution[i];
        ask->hidden[i] = (int8_t)(sum > INT8_MAX ? INT8_MAX : sum < INT8_MIN ? INT8_MIN : sum);
    }
    swn_infer_hidden(node, ask->context, ask->hidden, ask->rule, ask->probabilities);
    ask->missing = (uint8_t)(ask->missing & ~supplied);
    ask->state = SWN_JUDGED_TOGETHER;
}

/* A holder: what its experts add waits and goes like an answer. */
void swn_on_expert_query(swn_node_t *node, int64_t now_us, const swn_expert_query_t *query)
{
    int8_t contribution[SWN_HIDDEN];
    swn_pending_answer_t *slot;
    const uint8_t done = query->generation == node->config.model->generation
                             ? swn_contribute(node->config.model, &query->routing, contribution)
                             : 0;

    if (done == 0) {
        node->refused++;
        return;
    }
    slot = swn_answer_slot(node, query->query_id);
    if (slot == NULL) {
        return;
    }
    slot->size = (uint8_t)swn_frame_output(query->query_id, query->generation, done, contribution, slot->frame,
                                           sizeof slot->frame);
    slot->waiting = (uint8_t)(slot->size > 0 && slot->size <= node->config.payload_max);
    slot->query_id = query->query_id;
    slot->due_us = now_us + swn_random_us(node, query->reply_in_s * 1000u);
    slot->until_us = slot->due_us + SWN_ANSWER_LIFE_S * SECOND_US;
}

void swn_send_ask(swn_node_t *node, int64_t now_us)
{
    swn_ask_t *ask = &node->ask;

    if (ask->state != SWN_JUDGED_ASKING) {
        return;
    }
    if (ask->until_us <= now_us) {
        ask->state = SWN_JUDGED_ALONE;
        return;
    }
    if (ask->due_us > now_us || node->busy_until_us > now_us ||
        !swn_transmit(node, now_us, SWN_PORT_ASKING, ask->frame, SWN_ASK_SIZE)) {
        return;
    }
    ask->tries++;
    ask->due_us = ask->tries < SWN_ASK_TRIES ? now_us + (int64_t)ask->retry_s * SECOND_US : ask->until_us;
    ask->retry_s *= 2;
}

void swn_plan_experts(swn_node_t *node, int64_t now_us)
{
    const swn_model_t *model = node->config.model;
    const uint8_t count = swn_model_experts(model);
    const uint16_t all = (uint16_t)((1ul << count) - 1ul);
    const uint8_t asked_to = node->config.flags & (SWN_ALWAYS_ON | SWN_HOLDER);

    node->experience.due_us = SWN_NEVER_US;
    if (count > 0 && swn_model_can_ask(model) && (asked_to || swn_model_held(model) != all)) {
        const uint32_t first_s = node->config.status_period_s < EXPERTS_FIRST_S ? node->config.status_period_s
                                                                                : EXPERTS_FIRST_S;
        node->experience.due_us = now_us + (int64_t)((uint64_t)swn_xorshift32(&node->prng) * first_s >> 32) * SECOND_US;
    }
}

void swn_recall_experts(swn_node_t *node)
{
    const swn_model_t *model = node->config.model;

    if (node->experience.due_us == SWN_NEVER_US && swn_model_experts(model) > 0 && swn_model_can_ask(model)) {
        node->experience.due_us = node->status_due_us + swn_random_us(node, EXPERTS_FIRST_S * 1000u);
    }
}

void swn_send_experts(swn_node_t *node, int64_t now_us)
{
    const swn_model_t *model = node->config.model;
    swn_experts_message_t message;
    uint8_t frame[SWN_EXPERTS_SIZE_MAX];
    size_t size;

    if (node->experience.due_us > now_us || node->busy_until_us > now_us) {
        return;
    }
    message.generation = model->generation;
    message.held = swn_model_held(model);
    message.flags = node->config.flags & SWN_ALWAYS_ON ? SWN_EXPERTS_ALWAYS_ON : 0;
    message.count = swn_model_experts(model);
    message.seen = node->experience.seen;
    size = swn_frame_experts(&message, frame, sizeof frame);
    if (size > node->config.payload_max || swn_transmit(node, now_us, SWN_PORT_STATUS, frame, size)) {
        const int64_t period_s = (int64_t)node->config.status_period_s * EXPERTS_EVERY;

        node->experience.tells = (uint8_t)(node->experience.tells > 0 ? node->experience.tells - 1 : 0);
        node->experience.due_us = now_us + (node->experience.tells > 0 ? CHANGE_AGAIN_S : period_s) * SECOND_US;
        if (node->experience.tells > 0) { /* two that changed at once must not meet again */
            node->experience.due_us += swn_random_us(node, CHANGE_AGAIN_S * 1000u);
        }
    }
}

void swn_take_up(swn_node_t *node, int64_t now_us, const swn_model_t *model)
{
    node->config.model = model;
    if (swn_model_experts(model) > 0 && swn_model_can_ask(model)) {
        node->experience.tells = CHANGE_TOLD;
        node->experience.due_us = now_us + swn_random_us(node, CHANGE_FIRST_S * 1000u);
    }
}
