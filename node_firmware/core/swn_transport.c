/* Fragmented data block transport; see swn_transport.h. */
#include "swn_transport.h"

#include <string.h>

#include "swn_cmac.h"
#include "swn_math.h"

enum {
    CID_VERSION = 0,
    CID_STATUS = 1,
    CID_SETUP = 2,
    CID_DELETE = 3,
    CID_BLOCK_RECEIVED = 4,
    CID_FRAGMENT = 8,
    FRAGMENT_HEADER = 3,
    SETUP_SIZE_V1 = 10,
    CELL_GROUP = 1, /* the mask of group 0 */
    /* Offsets in a FragSessionSetupReq behind its CID. */
    AT_COUNT = 1,
    AT_SIZE = 3,
    AT_CONTROL = 4,
    AT_PADDING = 5,
    AT_DESCRIPTOR = 6,
    AT_SESSION_CNT = 10,
    AT_MIC = 12,
    DESCRIPTOR_SIZE = 4,
    MIC_SIZE = 4,
    ALGORITHM_BITS = 0x38,
    ACK_RECEPTION = 0x40,
    ALGORITHM_UNSUPPORTED = 1,
    NO_MEMORY = 2,
    WRONG_DESCRIPTOR = 8,
    REPLAY = 16,
    STATUS_MEMORY = 1,
    STATUS_FORGED = 2,
    STATUS_NO_SESSION = 4,
    RECEIVED_FORGED = 4,
    KEY_LABEL = 0x30,
    MIC_LABEL = 0x49,
    READ_SIZE = 64,
    MISSING_MAX = 255
};

void swn_transport_key(const uint8_t root[SWN_AES_BLOCK], uint8_t key[SWN_AES_BLOCK])
{
    swn_aes_t aes;

    memset(key, 0, SWN_AES_BLOCK);
    key[0] = KEY_LABEL;
    swn_aes_init(&aes, root);
    swn_aes_encrypt(&aes, key, key);
}

void swn_transport_init(swn_transport_t *transport, const swn_transport_config_t *config,
                        const uint32_t *session_cnt_next)
{
    memset(transport, 0, sizeof *transport);
    transport->config = *config;
    transport->prng = swn_seed32(config->seed);
    if (session_cnt_next != NULL) {
        memcpy(transport->session_cnt_next, session_cnt_next, sizeof transport->session_cnt_next);
    }
}

static uint8_t index_of(const uint8_t *setup)
{
    return (uint8_t)(setup[0] >> 4 & 3u);
}

static uint32_t size_of(const uint8_t *setup)
{
    const uint32_t filled = (uint32_t)swn_get16(setup + AT_COUNT) * setup[AT_SIZE];

    return filled > setup[AT_PADDING] ? filled - setup[AT_PADDING] : 0;
}

uint32_t swn_transport_size(const swn_transport_t *transport)
{
    return transport->is_open ? size_of(transport->setup) : 0;
}

uint8_t swn_transport_is_alone(const swn_transport_t *transport)
{
    return (uint8_t)(transport->is_open && (transport->setup[0] & 0x0Fu) == 0);
}

const uint8_t *swn_transport_descriptor(const swn_transport_t *transport)
{
    return transport->setup + AT_DESCRIPTOR;
}

/* An offer says which version its session is in. */
static uint8_t version_of(const swn_transport_t *transport)
{
    return transport->is_open ? transport->erasure.version : transport->config.version;
}

static uint8_t is_session(const swn_transport_t *transport, uint8_t index)
{
    return (uint8_t)(transport->is_open && index_of(transport->setup) == index);
}

static void put(swn_transport_answer_t *answer, const uint8_t *data, uint8_t size)
{
    if (answer->size + size <= SWN_TRANSPORT_ANSWER_MAX) {
        memcpy(answer->data + answer->size, data, size);
        answer->size = (uint8_t)(answer->size + size);
    }
}

uint32_t swn_transport_span_us(const swn_transport_t *transport)
{
    return ((uint32_t)16 << (transport->setup[AT_CONTROL] & 7u)) * 1000000u;
}

/* Many nodes hear a multicast request, and all hear the last fragment: they answer at random times. */
static void delay(swn_transport_t *transport, swn_transport_answer_t *answer)
{
    answer->delay_us = (uint32_t)((uint64_t)swn_xorshift32(&transport->prng) * swn_transport_span_us(transport) >> 32);
}

/* Whether the block in flash has the MIC that the request promised. */
static uint8_t is_genuine(const swn_transport_t *transport)
{
    const swn_flash_t *flash = transport->config.flash;
    const uint8_t *setup = transport->setup;
    const uint32_t size = size_of(setup);
    uint8_t bytes[READ_SIZE];
    swn_cmac_t cmac;
    uint32_t at;

    memset(bytes, 0, SWN_AES_BLOCK);
    bytes[0] = MIC_LABEL;
    memcpy(bytes + 1, setup + AT_SESSION_CNT, 2);
    bytes[3] = index_of(setup);
    memcpy(bytes + 4, setup + AT_DESCRIPTOR, DESCRIPTOR_SIZE);
    for (at = 0; at < 4; at++) {
        bytes[12 + at] = (uint8_t)(size >> 8 * at & 0xFFu);
    }
    swn_cmac_init(&cmac, transport->config.integrity_key);
    swn_cmac_update(&cmac, bytes, SWN_AES_BLOCK);
    for (at = 0; at < size; at += READ_SIZE) {
        const size_t part = size - at < READ_SIZE ? size - at : READ_SIZE;

        if (!flash->read(flash->user, at, bytes, part)) {
            return 0;
        }
        swn_cmac_update(&cmac, bytes, part);
    }
    swn_cmac_final(&cmac, bytes);
    return (uint8_t)(memcmp(bytes, setup + AT_MIC, MIC_SIZE) == 0);
}

static uint8_t setup_size(const swn_transport_t *transport)
{
    return transport->config.version < 2 ? SETUP_SIZE_V1 : SWN_TRANSPORT_SETUP_MAX;
}

static uint8_t is_kept(const swn_transport_t *transport, const uint8_t *setup)
{
    return (uint8_t)(transport->kept_size > 0 && transport->kept_size == size_of(setup) &&
                     memcmp(transport->kept, setup + AT_DESCRIPTOR, DESCRIPTOR_SIZE) == 0);
}

/* Why a request cannot be served, as its answer says it; 0 when the flash is open for the block, or has it. */
static uint8_t refusal(swn_transport_t *transport, const uint8_t *setup, uint8_t counted)
{
    const swn_flash_t *flash = transport->config.flash;
    const uint16_t count = swn_get16(setup + AT_COUNT);
    uint8_t why = 0;

    if (setup[AT_CONTROL] & ALGORITHM_BITS) {
        why |= ALGORITHM_UNSUPPORTED;
    }
    if (count > SWN_PIECES_MAX || setup[AT_SIZE] > SWN_PIECE_MAX || size_of(setup) == 0) {
        why |= NO_MEMORY;
    }
    if (counted && swn_get16(setup + AT_SESSION_CNT) < transport->session_cnt_next[index_of(setup)]) {
        why |= REPLAY;
    }
    if (why == 0 && !is_kept(transport, setup)) {
        switch (flash->open(flash->user, setup + AT_DESCRIPTOR, (uint32_t)count * setup[AT_SIZE])) {
        case SWN_OPEN_YES:
            transport->kept_size = 0;
            break;
        case SWN_OPEN_UNWANTED:
            why = WRONG_DESCRIPTOR;
            break;
        case SWN_OPEN_NO_ROOM:
        default:
            why = NO_MEMORY;
            break;
        }
    }
    return why;
}

/* Opens the session that `setup` asks for; why not, as its answer says it, or 0. */
static uint8_t open_session(swn_transport_t *transport, const uint8_t *setup, uint8_t version, uint8_t by_offer)
{
    const swn_transport_config_t *config = &transport->config;
    const uint8_t counted = (uint8_t)(version >= 2 && !by_offer);
    const uint8_t why = refusal(transport, setup, counted);

    if (why != 0) {
        return why;
    }
    memcpy(transport->setup, setup, SWN_TRANSPORT_SETUP_MAX);
    transport->is_open = 1;
    transport->is_forged = 0;
    transport->by_offer = by_offer;
    transport->received = 0;
    if (counted) {
        transport->session_cnt_next[index_of(setup)] = swn_get16(setup + AT_SESSION_CNT) + 1u;
    }
    swn_erasure_init(&transport->erasure, config->flash, config->memory, config->memory_size,
                     swn_get16(setup + AT_COUNT), setup[AT_SIZE], version);
    if (is_kept(transport, setup)) {
        swn_erasure_complete(&transport->erasure);
        transport->received = transport->erasure.count;
    }
    return 0;
}

static swn_transport_event_t set_up(swn_transport_t *transport, const uint8_t *request, swn_transport_answer_t *answer)
{
    const uint8_t version = transport->config.version;
    uint8_t setup[SWN_TRANSPORT_SETUP_MAX] = {0};
    uint8_t said[2] = {CID_SETUP, (uint8_t)(index_of(request) << 6)};

    memcpy(setup, request, setup_size(transport));
    /* Without a SessionCnt the same request may be about another block. */
    if (transport->is_open && !transport->by_offer && version >= 2 &&
        memcmp(setup, transport->setup, sizeof setup) == 0) {
        put(answer, said, sizeof said);
        return SWN_TRANSPORT_NOTHING;
    }
    said[1] = (uint8_t)(said[1] | open_session(transport, setup, version, 0));
    put(answer, said, sizeof said);
    return said[1] & 0x3Fu ? SWN_TRANSPORT_NOTHING : SWN_TRANSPORT_OPENED;
}

static void setup_of(const swn_offer_t *offer, uint8_t setup[SWN_TRANSPORT_SETUP_MAX])
{
    memset(setup, 0, SWN_TRANSPORT_SETUP_MAX);
    setup[0] = (uint8_t)((offer->index & 3u) << 4 | CELL_GROUP);
    setup[AT_COUNT] = (uint8_t)(offer->count & 0xFFu);
    setup[AT_COUNT + 1] = (uint8_t)(offer->count >> 8);
    setup[AT_SIZE] = offer->piece_size;
    setup[AT_CONTROL] = offer->ack_delay & 7u;
    setup[AT_PADDING] = offer->padding;
    memcpy(setup + AT_DESCRIPTOR, offer->descriptor, DESCRIPTOR_SIZE);
}

uint8_t swn_transport_offer(swn_transport_t *transport, const swn_offer_t *offer)
{
    uint8_t setup[SWN_TRANSPORT_SETUP_MAX];

    setup_of(offer, setup);
    return (uint8_t)(open_session(transport, setup, offer->version, 1) == 0);
}

uint8_t swn_transport_is_offered(const swn_transport_t *transport, const swn_offer_t *offer)
{
    const uint8_t *setup = transport->setup;
    uint8_t offered[SWN_TRANSPORT_SETUP_MAX];

    setup_of(offer, offered);
    return (uint8_t)(is_session(transport, offer->index) && transport->erasure.version == offer->version &&
                     (setup[0] & CELL_GROUP) && setup[AT_PADDING] == offer->padding &&
                     memcmp(setup + AT_COUNT, offered + AT_COUNT, AT_CONTROL - AT_COUNT) == 0 &&
                     memcmp(setup + AT_DESCRIPTOR, offered + AT_DESCRIPTOR, DESCRIPTOR_SIZE) == 0);
}

void swn_transport_keep(swn_transport_t *transport, const uint8_t descriptor[4], uint32_t size)
{
    memcpy(transport->kept, descriptor, DESCRIPTOR_SIZE);
    transport->kept_size = size;
}

void swn_transport_disown(swn_transport_t *transport, swn_transport_answer_t *answer)
{
    transport->is_forged = 1;
    if (answer->size == 2 && answer->data[0] == CID_BLOCK_RECEIVED) {
        answer->data[1] |= RECEIVED_FORGED;
    }
}

/* Without a session only version 2 has an answer, and a group hears none of it. */
static void tell_status(swn_transport_t *transport, uint8_t param, uint8_t group, swn_transport_answer_t *answer)
{
    const uint8_t index = (uint8_t)(param >> 1 & 3u);
    const uint8_t version = version_of(transport);
    const uint8_t exists = is_session(transport, index);
    const uint16_t missing = exists ? swn_erasure_missing(&transport->erasure) : 0;
    const unsigned received = exists ? transport->received : 0u;
    const uint8_t counted[3] = {
        (uint8_t)(received & 0xFFu),
        (uint8_t)(received >> 8 | (unsigned)index << 6),
        (uint8_t)(missing > MISSING_MAX ? MISSING_MAX : missing),
    };
    uint8_t said[5];
    uint8_t status = 0;

    if ((!exists && (version < 2 || group != SWN_UNICAST)) || (!(param & 1u) && missing == 0)) {
        return;
    }
    status = (uint8_t)(exists ? transport->erasure.memory_error && missing > 0 : STATUS_NO_SESSION);
    said[0] = CID_STATUS;
    if (version < 2) {
        memcpy(said + 1, counted, sizeof counted);
        said[4] = status & STATUS_MEMORY;
    } else {
        said[1] = (uint8_t)(status | (exists && transport->is_forged ? STATUS_FORGED : 0));
        memcpy(said + 2, counted, sizeof counted);
    }
    put(answer, said, sizeof said);
    if (group != SWN_UNICAST) {
        delay(transport, answer);
    }
}

void swn_transport_tell(swn_transport_t *transport, swn_transport_answer_t *answer)
{
    answer->size = 0;
    answer->delay_us = 0;
    if (transport->is_open) {
        tell_status(transport, (uint8_t)((unsigned)index_of(transport->setup) << 1 | 1u), 0, answer);
    }
}

static swn_transport_event_t delete_session(swn_transport_t *transport, uint8_t param, swn_transport_answer_t *answer)
{
    const uint8_t index = param & 3u;
    const uint8_t exists = is_session(transport, index);
    const uint8_t said[2] = {CID_DELETE, (uint8_t)(index | (exists ? 0u : STATUS_NO_SESSION))};

    put(answer, said, sizeof said);
    if (exists) {
        transport->is_open = 0;
    }
    return exists ? SWN_TRANSPORT_CLOSED : SWN_TRANSPORT_NOTHING;
}

static swn_transport_event_t take_fragment(swn_transport_t *transport, const uint8_t *payload, size_t size,
                                           uint8_t group, swn_transport_answer_t *answer)
{
    uint8_t said[2] = {CID_BLOCK_RECEIVED, 0};
    uint16_t counted;

    if (size < FRAGMENT_HEADER) {
        return SWN_TRANSPORT_NOTHING;
    }
    counted = swn_get16(payload + 1);
    if (!is_session(transport, (uint8_t)(counted >> 14)) || size - FRAGMENT_HEADER != transport->setup[AT_SIZE] ||
        (group != SWN_UNICAST && !((unsigned)transport->setup[0] >> (group & 3u) & 1u)) || (counted & SWN_PARITY_MAX) == 0 ||
        swn_erasure_missing(&transport->erasure) == 0) {
        return SWN_TRANSPORT_NOTHING;
    }
    transport->received = (uint16_t)(transport->received + (transport->received < SWN_PARITY_MAX));
    if (!swn_erasure_take(&transport->erasure, counted & SWN_PARITY_MAX, payload + FRAGMENT_HEADER)) {
        return SWN_TRANSPORT_PIECE;
    }
    transport->is_forged = (uint8_t)(version_of(transport) >= 2 && !transport->by_offer && !transport->config.no_key &&
                                     !is_genuine(transport));
    if (version_of(transport) >= 2 && transport->setup[AT_CONTROL] & ACK_RECEPTION) {
        said[1] = (uint8_t)(counted >> 14 | (transport->is_forged ? RECEIVED_FORGED : 0u));
        put(answer, said, sizeof said);
        delay(transport, answer);
    }
    return transport->is_forged ? SWN_TRANSPORT_FORGED : SWN_TRANSPORT_WHOLE;
}

/* Bytes of a command with its CID; 0 for unknown ones. */
static size_t command_size(const swn_transport_t *transport, uint8_t cid)
{
    switch (cid) {
    case CID_VERSION:
        return 1;
    case CID_STATUS:
    case CID_DELETE:
    case CID_BLOCK_RECEIVED:
        return 2;
    case CID_SETUP:
        return 1u + setup_size(transport);
    default:
        return 0;
    }
}

swn_transport_event_t swn_transport_rx(swn_transport_t *transport, const uint8_t *payload, size_t size, uint8_t group,
                                       swn_transport_answer_t *answer)
{
    const uint8_t version[3] = {CID_VERSION, SWN_TRANSPORT_PACKAGE, transport->config.version};
    swn_transport_event_t event = SWN_TRANSPORT_NOTHING;

    answer->size = 0;
    answer->delay_us = 0;
    if (size > 0 && payload[0] == CID_FRAGMENT) {
        return take_fragment(transport, payload, size, group, answer);
    }
    while (size > 0) {
        const size_t used = command_size(transport, payload[0]);
        swn_transport_event_t happened = SWN_TRANSPORT_NOTHING;

        if (used == 0 || used > size) {
            break;
        }
        if (payload[0] == CID_STATUS) {
            tell_status(transport, payload[1], group, answer);
        } else if (group != SWN_UNICAST) {
            /* A group may ask for the status alone. */
        } else if (payload[0] == CID_VERSION) {
            put(answer, version, sizeof version);
        } else if (payload[0] == CID_SETUP) {
            happened = set_up(transport, payload + 1, answer);
        } else if (payload[0] == CID_DELETE) {
            happened = delete_session(transport, payload[1], answer);
        }
        event = happened != SWN_TRANSPORT_NOTHING ? happened : event;
        payload += used;
        size -= used;
    }
    return event;
}
