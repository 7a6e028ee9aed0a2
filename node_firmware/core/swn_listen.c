/* Windows and sessions, one receiver; see swn_listen.h. */
#include "swn_node.h"

#define SECOND_US ((int64_t)1000000)

enum { SPANS = 3 };

/* How long the receiver stays on that is on at `at_us`. */
static int64_t on_until(const swn_interval_t *spans, int64_t at_us)
{
    unsigned pass;
    unsigned i;

    for (pass = 0; pass < SPANS; pass++) {
        for (i = 0; i < SPANS; i++) {
            if (spans[i].from_us <= at_us && spans[i].until_us > at_us) {
                at_us = spans[i].until_us;
            }
        }
    }
    return at_us;
}

static swn_interval_t next_behind(const swn_interval_t *spans, int64_t on_us)
{
    swn_interval_t next = {SWN_NEVER_US, SWN_NEVER_US};
    unsigned i;

    for (i = 0; i < SPANS; i++) {
        if (spans[i].from_us > on_us && spans[i].until_us > spans[i].from_us && spans[i].from_us < next.from_us) {
            next.from_us = spans[i].from_us;
        }
    }
    if (next.from_us != SWN_NEVER_US) {
        next.until_us = on_until(spans, next.from_us);
    }
    return next;
}

void swn_listen_update(swn_node_t *node, int64_t now_us)
{
    swn_listen_t *listen = &node->listen;
    const swn_interval_t spans[SPANS] = {
        {now_us, listen->held_until_us},
        {node->window_from_us - node->config.guard_us, node->window_until_us},
        listen->session,
    };
    const int64_t on_us = on_until(spans, now_us);
    const swn_interval_t next = next_behind(spans, on_us);

    if (listen->next.from_us <= now_us) { /* it has begun by itself */
        listen->on_until_us = listen->next.until_us;
        listen->next.from_us = SWN_NEVER_US;
        listen->next.until_us = SWN_NEVER_US;
    }
    if (listen->on_until_us < now_us) {
        listen->on_until_us = now_us;
    }
    if (on_us != listen->on_until_us) {
        listen->on_until_us = on_us;
        node->port->listen(node->port->ctx, now_us, on_us);
    }
    if (next.from_us != SWN_NEVER_US &&
        (next.from_us != listen->next.from_us || next.until_us != listen->next.until_us)) {
        listen->next = next;
        node->port->listen(node->port->ctx, next.from_us, next.until_us);
    }
    listen->is_stale = (uint8_t)(listen->next.from_us != next.from_us);
}

void swn_listen_poll(swn_node_t *node, int64_t now_us)
{
    if (node->listen.session.until_us > now_us || node->listen.is_stale) {
        swn_listen_update(node, now_us);
    }
}

int64_t swn_listen_due_us(const swn_node_t *node, int64_t now_us)
{
    return node->listen.session.until_us > now_us || node->listen.is_stale ? node->listen.next.from_us : SWN_NEVER_US;
}

void swn_listen_init(swn_node_t *node, int64_t now_us)
{
    swn_listen_t *listen = &node->listen;

    node->window_from_us = now_us;
    node->window_until_us = now_us;
    listen->session.from_us = now_us;
    listen->session.until_us = now_us;
    listen->held_until_us = now_us;
    listen->on_until_us = now_us;
    listen->next.from_us = SWN_NEVER_US;
    listen->next.until_us = SWN_NEVER_US;
    listen->is_stale = 0;
}

static uint8_t is_open(const swn_node_t *node, int64_t now_us)
{
    return (uint8_t)(node->window_from_us - node->config.guard_us <= now_us && now_us < node->window_until_us);
}

void swn_plan_window(swn_node_t *node, int64_t now_us, uint32_t next_window_s, uint16_t window_s)
{
    const int64_t from_us = now_us + (int64_t)next_window_s * SECOND_US;
    const int64_t until_us = from_us + (int64_t)window_s * SECOND_US;
    const int64_t moved_us = from_us - node->window_from_us;

    if (window_s == 0 || next_window_s > SWN_WINDOW_FAR_S) {
        return;
    }
    /* Repeated announcements say the same within their own rounding to seconds. */
    if (until_us - node->window_until_us == moved_us && moved_us > -2 * SECOND_US && moved_us < 2 * SECOND_US) {
        return;
    }
    if (is_open(node, now_us) && node->window_until_us > node->listen.held_until_us) {
        node->listen.held_until_us = node->window_until_us;
    }
    node->window_from_us = from_us;
    node->window_until_us = until_us;
    swn_listen_update(node, now_us);
}

void swn_close_window(swn_node_t *node, int64_t now_us)
{
    if (is_open(node, now_us)) {
        node->window_until_us = now_us;
    }
    node->listen.held_until_us = now_us;
    swn_listen_update(node, now_us);
}
