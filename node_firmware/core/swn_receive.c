/* Large blocks on a node; see swn_receive.h. */
#include "swn_receive.h"

#include <string.h>

#include "swn_node.h"

#define SECOND_US ((int64_t)1000000)
#define DAY_US (86400 * SECOND_US)
#define NEAR_US (2 * SECOND_US)

enum { ANSWER_LIFE_S = 600, ASK_MORE_S = 10, ASK_AGAIN_S = 30, ASKS_MAX = 3 };
enum { DESCRIPTOR_SIZE = 4, HALF_GENERATIONS = 0x8000 };

uint8_t swn_receive_is_set(const swn_receive_t *receive)
{
    return (uint8_t)(receive->config.flash != NULL && receive->config.lost_pieces != NULL);
}

void swn_receive_init(swn_node_t *node, int64_t now_us)
{
    swn_receive_t *receive = node->config.receive;
    swn_receive_config_t given;
    swn_transport_config_t config;

    if (receive == NULL) {
        return;
    }
    given = receive->config;
    memset(receive, 0, sizeof *receive);
    receive->config = given;
    memset(&config, 0, sizeof config);
    config.flash = given.flash;
    config.memory = given.lost_pieces;
    config.memory_size = given.lost_pieces_size;
    config.seed = node->config.seed;
    config.version = 2;
    config.no_key = (uint8_t)(given.block_key == NULL);
    if (given.block_key != NULL) {
        memcpy(config.integrity_key, given.block_key, sizeof config.integrity_key);
    }
    swn_transport_init(&receive->transport, &config, NULL);
    receive->answer_due_us = SWN_NEVER_US;
    receive->day_us = now_us - DAY_US;
    receive->tell_due_us = now_us - SWN_TELL_AGAIN_S * SECOND_US;
}

static uint8_t takes_blocks(const swn_node_t *node)
{
    return (uint8_t)(node->config.receive != NULL && node->config.signer != NULL);
}

/* What outlives a reset ---------------------------------------------------------------------------- */

static void remember(swn_node_t *node, uint32_t size)
{
    const swn_transport_t *transport = &node->config.receive->transport;
    swn_stored_t stored;

    if (node->port->nvm_write == NULL) {
        return;
    }
    memset(&stored, 0, sizeof stored);
    memcpy(stored.session_cnt_next, transport->session_cnt_next, sizeof stored.session_cnt_next);
    memcpy(stored.descriptor, transport->kept, sizeof stored.descriptor);
    stored.size = size;
    node->port->nvm_write(node->port->ctx, SWN_NVM_STORED, &stored, sizeof stored);
}

uint8_t swn_receive_recall(swn_node_t *node, const void *data, size_t size)
{
    swn_receive_t *receive = node->config.receive;
    swn_stored_t stored;

    if (receive == NULL || size != sizeof stored) {
        return 0;
    }
    memcpy(&stored, data, sizeof stored);
    memcpy(receive->transport.session_cnt_next, stored.session_cnt_next, sizeof stored.session_cnt_next);
    if (stored.size > 0) {
        swn_transport_keep(&receive->transport, stored.descriptor, stored.size);
        receive->state = SWN_WHOLE_AND_VERIFIED;
        swn_recall_experts(node);
    }
    return 1;
}

/* Sessions ----------------------------------------------------------------------------------------- */

/* The session's span ends now, if it is not over yet. */
static void close_session(swn_node_t *node, int64_t now_us)
{
    swn_interval_t *session = &node->listen.session;
    const int64_t end_us = session->until_us < now_us ? session->until_us : now_us;

    if (end_us > session->from_us) {
        node->config.receive->day_listened_us += end_us - session->from_us;
    }
    session->from_us = now_us;
    session->until_us = now_us;
}

static uint8_t is_near(int64_t a_us, int64_t b_us)
{
    return (uint8_t)(a_us - b_us > -NEAR_US && a_us - b_us < NEAR_US);
}

static void begin_day(swn_receive_t *receive, int64_t now_us)
{
    if (now_us - receive->day_us >= DAY_US) {
        receive->day_us = now_us;
        receive->day_listened_us = 0;
        receive->day_sessions = 0;
    }
}

/* The span of an offer, as far as the day has listening left. Of a session that runs only the end moves. */
static void listen_for(swn_node_t *node, int64_t now_us, const swn_offer_t *offer)
{
    const int64_t start_us = now_us + offer->start_in_s * SECOND_US;
    swn_interval_t *session = &node->listen.session;
    int64_t left_us;

    begin_day(node->config.receive, now_us);
    if (session->until_us <= now_us) {
        close_session(node, now_us); /* what the same offer had opened before counts too */
    }
    left_us = SWN_SESSION_DAY_S * SECOND_US - node->config.receive->day_listened_us;
    const uint8_t runs = (uint8_t)(session->from_us <= now_us && now_us < session->until_us);
    const int64_t from_us = runs ? session->from_us : offer->start_in_s > 0 ? start_us - node->config.guard_us : now_us;
    int64_t until_us = start_us + offer->length_s * SECOND_US;

    if (until_us - from_us > left_us) {
        until_us = from_us + left_us;
    }
    /* Repeated offers say the same within their own rounding to seconds. */
    if (session->until_us > now_us && is_near(from_us, session->from_us) && is_near(until_us, session->until_us)) {
        return;
    }
    session->from_us = from_us;
    session->until_us = until_us;
    swn_listen_update(node, now_us);
}

static uint8_t may_open(swn_receive_t *receive, int64_t now_us)
{
    begin_day(receive, now_us);
    if (receive->day_sessions >= SWN_SESSIONS_A_DAY) {
        return 0;
    }
    receive->day_sessions++;
    return 1;
}

/* It is whole, genuine or not: the node says so by itself. */
static void plan_telling(swn_node_t *node, int64_t now_us)
{
    node->config.receive->tells = SWN_WHOLE_TOLD;
    node->config.receive->tell_due_us = now_us + swn_random_us(node, swn_transport_span_us(&node->config.receive->transport) / 1000u);
}

/* A session is open: its flash is erased, or has the block already. */
static void opened(swn_node_t *node, int64_t now_us)
{
    swn_receive_t *receive = node->config.receive;

    receive->tells = 0;
    receive->asks = 0;
    receive->answer.size = 0;
    if (swn_erasure_missing(&receive->transport.erasure) == 0) {
        receive->state = SWN_WHOLE_AND_VERIFIED;
        plan_telling(node, now_us);
    } else {
        receive->state = SWN_RECEIVING;
    }
    remember(node, receive->transport.kept_size);
}

void swn_on_offer(swn_node_t *node, int64_t now_us, const swn_offer_t *offer)
{
    swn_receive_t *receive = node->config.receive;

    if (!takes_blocks(node)) {
        return;
    }
    if (swn_transport_is_offered(&receive->transport, offer)) {
        if (receive->state == SWN_RECEIVING) {
            listen_for(node, now_us, offer);
            return;
        }
        if (receive->state == SWN_WHOLE_AND_VERIFIED) {
            if (receive->tells == 0 && now_us - receive->tell_due_us >= SWN_TELL_AGAIN_S * SECOND_US) {
                plan_telling(node, now_us);
            }
            return;
        }
        if (now_us < receive->forged_until_us) {
            return; /* what spoiled it would spoil it again */
        }
    }
    if ((uint32_t)offer->count * offer->piece_size - offer->padding <= SWN_SIGNATURE_SIZE || !may_open(receive, now_us) ||
        !swn_transport_offer(&receive->transport, offer)) {
        node->refused++;
        return;
    }
    close_session(node, now_us);
    opened(node, now_us);
    if (receive->state == SWN_RECEIVING) {
        listen_for(node, now_us, offer);
    }
    swn_listen_update(node, now_us);
}

/* The whole block ---------------------------------------------------------------------------------- */

/* Whether the last bytes of the block in flash are the signer's signature of those before them, and all of it what the
 * descriptor of an offer says: another block of the signer, an older one, must not pass for it. */
static uint8_t is_signed(const swn_node_t *node, uint32_t size)
{
    static const uint8_t HEAD[1] = {SWN_SIGNED_KIND};
    const swn_signer_t signer = {node->config.signer, node->port->verify, node->port->ctx};
    const swn_transport_t *transport = &node->config.receive->transport;
    const swn_flash_t *flash = node->config.receive->config.flash;
    const uint32_t body = size - SWN_SIGNATURE_SIZE;
    uint8_t bytes[SWN_SHA512_SIZE];
    swn_ed25519_t check;
    swn_sha512_t hash;
    uint32_t at;

    if (!flash->read(flash->user, body, bytes, SWN_SIGNATURE_SIZE)) {
        return 0;
    }
    swn_signer_begin(&signer, &check, bytes);
    swn_ed25519_update(&check, HEAD, sizeof HEAD);
    swn_sha512_init(&hash);
    for (at = 0; at < size; at += sizeof bytes) {
        const uint32_t part = size - at < sizeof bytes ? size - at : sizeof bytes;

        if (!flash->read(flash->user, at, bytes, part)) {
            return 0;
        }
        swn_sha512_update(&hash, bytes, part);
        if (at < body) {
            swn_ed25519_update(&check, bytes, body - at < part ? body - at : part);
        }
    }
    swn_sha512_final(&hash, bytes);
    if (transport->by_offer && memcmp(bytes, swn_transport_descriptor(transport), DESCRIPTOR_SIZE) != 0) {
        return 0;
    }
    return swn_signer_final(&signer, &check);
}

/* Whether the engine runs it, and it is not older than the model that runs; a flash that is no memory is asked at the
 * installing. */
static uint8_t is_container(const swn_node_t *node, uint32_t size)
{
    const swn_flash_t *flash = node->config.receive->config.flash;
    const uint8_t *image = flash->map != NULL ? flash->map(flash->user) : NULL;
    swn_model_t view;

    if (image == NULL) {
        return 1;
    }
    return (uint8_t)(swn_model_open(&view, image, size) == SWN_OK &&
                     (uint16_t)(view.generation - node->config.model->generation) < HALF_GENERATIONS);
}

static void judge(swn_node_t *node, int64_t now_us)
{
    swn_receive_t *receive = node->config.receive;
    swn_transport_t *transport = &receive->transport;
    const uint32_t size = swn_transport_size(transport);

    if (!transport->is_forged && size > SWN_SIGNATURE_SIZE && is_signed(node, size) &&
        is_container(node, size - SWN_SIGNATURE_SIZE)) {
        receive->state = SWN_WHOLE_AND_VERIFIED;
        swn_transport_keep(transport, swn_transport_descriptor(transport), size);
        remember(node, size);
    } else {
        receive->state = SWN_FORGED;
        receive->forged_until_us = node->listen.session.until_us;
        node->refused++;
    }
    if (receive->asks > 0) { /* it would ask for more */
        receive->asks = 0;
        receive->answer.size = 0;
    }
    plan_telling(node, now_us);
    close_session(node, now_us);
    swn_listen_update(node, now_us);
}

uint8_t swn_on_transport(swn_node_t *node, int64_t now_us, const uint8_t *data, size_t size, uint8_t multicast)
{
    swn_receive_t *receive = node->config.receive;
    swn_transport_answer_t answer;
    uint8_t asks = 0;

    if (!takes_blocks(node)) {
        return 0;
    }
    switch (swn_transport_rx(&receive->transport, data, size, multicast ? 0 : SWN_UNICAST, &answer)) {
    case SWN_TRANSPORT_OPENED:
        close_session(node, now_us);
        opened(node, now_us);
        asks = swn_transport_is_alone(&receive->transport) ? ASKS_MAX : 0;
        swn_listen_update(node, now_us);
        break;
    case SWN_TRANSPORT_CLOSED:
        receive->state = receive->transport.kept_size > 0 ? SWN_WHOLE_AND_VERIFIED : SWN_NO_BLOCK;
        close_session(node, now_us);
        swn_listen_update(node, now_us);
        break;
    case SWN_TRANSPORT_WHOLE:
    case SWN_TRANSPORT_FORGED:
        judge(node, now_us);
        if (receive->state == SWN_FORGED) {
            swn_transport_disown(&receive->transport, &answer);
        }
        break;
    case SWN_TRANSPORT_PIECE:
        if (!multicast) { /* who helps this node alone can send the next one behind its uplink */
            swn_transport_tell(&receive->transport, &answer);
            answer.delay_us = (uint32_t)(ASK_MORE_S * SECOND_US + swn_random_us(node, ASK_MORE_S * 1000u));
            asks = ASKS_MAX;
        }
        break;
    case SWN_TRANSPORT_NOTHING:
        asks = receive->asks;
        break;
    }
    if (answer.size > 0) { /* the newest one says it all */
        receive->answer = answer;
        receive->asks = asks;
        receive->answer_due_us = now_us + answer.delay_us;
        receive->answer_until_us = receive->answer_due_us + ANSWER_LIFE_S * SECOND_US;
    }
    return 1;
}

/* What is sent ------------------------------------------------------------------------------------- */

static void send_answer(swn_node_t *node, int64_t now_us)
{
    swn_receive_t *receive = node->config.receive;

    if (receive->answer_until_us < now_us) {
        node->dropped++;
        receive->answer.size = 0;
    } else if (receive->answer_due_us <= now_us && node->busy_until_us <= now_us &&
               swn_transmit(node, now_us, SWN_PORT_TRANSPORT, receive->answer.data, receive->answer.size)) {
        /* 30 s, then twice and four times that, and as much again at random: who sends may have had no airtime. */
        const uint32_t wait_s = (uint32_t)ASK_AGAIN_S << (ASKS_MAX - receive->asks);

        if (receive->asks == 0) {
            receive->answer.size = 0;
            return;
        }
        receive->asks--;
        receive->answer_due_us = now_us + wait_s * SECOND_US + swn_random_us(node, wait_s * 1000u);
        receive->answer_until_us = receive->answer_due_us + ANSWER_LIFE_S * SECOND_US;
    }
}

static void send_telling(swn_node_t *node, int64_t now_us)
{
    swn_receive_t *receive = node->config.receive;
    const uint32_t span_us = swn_transport_span_us(&receive->transport);
    swn_transport_answer_t status;

    if (receive->tell_due_us > now_us || node->busy_until_us > now_us) {
        return;
    }
    swn_transport_tell(&receive->transport, &status);
    if (status.size == 0) {
        receive->tells = 0;
    } else if (swn_transmit(node, now_us, SWN_PORT_TRANSPORT, status.data, status.size)) {
        receive->tells--;
        receive->tell_due_us = receive->tells > 0 ? now_us + span_us / 2u + swn_random_us(node, span_us / 1000u) : now_us;
    }
}

void swn_send_transport(swn_node_t *node, int64_t now_us)
{
    if (node->config.receive == NULL) {
        return;
    }
    if (node->config.receive->answer.size > 0) {
        send_answer(node, now_us);
    }
    if (node->config.receive->tells > 0) {
        send_telling(node, now_us);
    }
}

int64_t swn_receive_due_us(const swn_node_t *node)
{
    const swn_receive_t *receive = node->config.receive;
    int64_t due_us = SWN_NEVER_US;

    if (receive == NULL) {
        return due_us;
    }
    if (receive->answer.size > 0 && receive->answer_due_us < due_us) {
        due_us = receive->answer_due_us;
    }
    if (receive->tells > 0 && receive->tell_due_us < due_us) {
        due_us = receive->tell_due_us;
    }
    return due_us;
}
