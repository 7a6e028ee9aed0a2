/* Remote multicast setup; see swn_groups.h. */
#include "swn_groups.h"

#include <string.h>

#include "swn_math.h"

enum {
    CID_VERSION = 0,
    CID_STATUS = 1,
    CID_SETUP = 2,
    CID_DELETE = 3,
    CID_CLASS_C = 4,
    CID_CLASS_B = 5,
    SETUP_SIZE = 29,
    SESSION_SIZE = 10,
    ADDRESS_SIZE = 4,
    DELETE_UNDEFINED = 4,
    SESSION_UNDEFINED = 16,
    SESSION_MISSED = 32,
    FREQUENCY_STEP_HZ = 100,
    ROOT_LABEL_1_1 = 0x20,
    APP_LABEL = 1,
    NWK_LABEL = 2
};

static const uint32_t HALF_CLOCK_S = 0x80000000u; /* a difference beyond it is in the past */
static const uint32_t START_MAX_S = 0xFFFFFFu;    /* what three bytes can say */

void swn_groups_key(const uint8_t root[SWN_AES_BLOCK], uint8_t version_1_1, uint8_t ke_key[SWN_AES_BLOCK])
{
    uint8_t key[SWN_AES_BLOCK];
    swn_aes_t aes;

    memset(key, 0, sizeof key);
    key[0] = version_1_1 ? ROOT_LABEL_1_1 : 0;
    swn_aes_init(&aes, root);
    swn_aes_encrypt(&aes, key, key);
    swn_aes_init(&aes, key);
    memset(ke_key, 0, SWN_AES_BLOCK);
    swn_aes_encrypt(&aes, ke_key, ke_key);
}

void swn_groups_init(swn_groups_t *groups, const uint8_t ke_key[SWN_AES_BLOCK], uint8_t version)
{
    memset(groups, 0, sizeof *groups);
    memcpy(groups->ke_key, ke_key, SWN_AES_BLOCK);
    groups->version = version;
}

static void put(swn_groups_answer_t *answer, const uint8_t *data, size_t size)
{
    if (answer->size + size <= SWN_GROUPS_ANSWER_MAX) {
        memcpy(answer->data + answer->size, data, size);
        answer->size = (uint8_t)(answer->size + size);
    }
}

static void session_key(const swn_aes_t *aes, uint8_t label, const uint8_t *address, uint8_t *key)
{
    memset(key, 0, SWN_AES_BLOCK);
    key[0] = label;
    memcpy(key + 1, address, ADDRESS_SIZE);
    swn_aes_encrypt(aes, key, key);
}

static void tell_status(const swn_groups_t *groups, uint8_t mask, swn_groups_answer_t *answer)
{
    uint8_t said[2 + SWN_GROUPS_MAX * (1 + ADDRESS_SIZE)] = {CID_STATUS, 0};
    size_t size = 2;
    unsigned total = 0;
    unsigned i;

    for (i = 0; i < SWN_GROUPS_MAX; i++) {
        const uint32_t address = groups->groups[i].address;
        unsigned byte;

        if (!groups->groups[i].is_set) {
            continue;
        }
        total++;
        if (mask >> i & 1) {
            said[1] = (uint8_t)(said[1] | 1u << i);
            said[size++] = (uint8_t)i;
            for (byte = 0; byte < ADDRESS_SIZE; byte++) {
                said[size++] = (uint8_t)(address >> 8 * byte & 0xFFu);
            }
        }
    }
    said[1] = (uint8_t)(said[1] | total << 4);
    put(answer, said, size);
}

static void set_up(swn_groups_t *groups, const uint8_t *body, swn_groups_answer_t *answer)
{
    const uint8_t id = body[0] & 3u;
    const uint8_t said[2] = {CID_SETUP, id};
    swn_group_t *group = &groups->groups[id];
    uint8_t key[SWN_AES_BLOCK];
    swn_aes_t aes;

    swn_aes_init(&aes, groups->ke_key);
    swn_aes_encrypt(&aes, body + 1 + ADDRESS_SIZE, key); /* the network decrypted it */
    swn_aes_init(&aes, key);
    memset(group, 0, sizeof *group);
    group->address = swn_get32(body + 1);
    group->f_cnt_min = swn_get32(body + 21);
    group->f_cnt_max = swn_get32(body + 25);
    session_key(&aes, NWK_LABEL, body + 1, group->nwk_s_key);
    session_key(&aes, APP_LABEL, body + 1, group->app_s_key);
    group->is_set = 1;
    put(answer, said, sizeof said);
}

static swn_groups_event_t delete_group(swn_groups_t *groups, uint8_t id, swn_groups_answer_t *answer)
{
    swn_group_t *group = &groups->groups[id];
    const uint8_t was_set = group->is_set;
    const uint8_t said[2] = {CID_DELETE, (uint8_t)(id | (was_set ? 0u : DELETE_UNDEFINED))};

    memset(group, 0, sizeof *group);
    put(answer, said, sizeof said);
    return was_set ? SWN_GROUPS_DELETED : SWN_GROUPS_NOTHING;
}

/* A class C session, or why not. Version 1 has no word for a session that is over: its group is then undefined. */
static swn_groups_event_t open_session(swn_groups_t *groups, uint32_t gps_now_s, const uint8_t *body, uint8_t wrong,
                                       swn_groups_answer_t *answer)
{
    const uint8_t id = body[0] & 3u;
    const uint32_t start_s = swn_get32(body + 1);
    const uint32_t length_s = (uint32_t)1 << (body[5] & 15u);
    const uint32_t late_s = gps_now_s - start_s;
    const uint8_t has_begun = (uint8_t)(late_s != 0 && late_s < HALF_CLOCK_S);
    swn_group_t *group = &groups->groups[id];
    uint32_t wait_s = has_begun ? 0 : start_s - gps_now_s;
    uint8_t said[5] = {CID_CLASS_C, (uint8_t)(id | wrong), 0, 0, 0};

    if (!group->is_set) {
        said[1] |= SESSION_UNDEFINED;
    }
    if (has_begun && groups->version >= 2) {
        said[1] |= SESSION_MISSED;
    } else if (has_begun && late_s >= length_s) {
        said[1] |= SESSION_UNDEFINED;
    }
    if (said[1] != id) {
        put(answer, said, 2);
        return SWN_GROUPS_NOTHING;
    }
    group->session_start_s = start_s;
    group->session_length_s = length_s;
    group->session_frequency_hz = ((uint32_t)swn_get16(body + 6) | (uint32_t)body[8] << 16) * FREQUENCY_STEP_HZ;
    group->session_rate = body[9];
    group->has_session = 1;
    wait_s = wait_s > START_MAX_S ? START_MAX_S : wait_s;
    said[2] = (uint8_t)(wait_s & 0xFFu);
    said[3] = (uint8_t)(wait_s >> 8 & 0xFFu);
    said[4] = (uint8_t)(wait_s >> 16);
    put(answer, said, sizeof said);
    answer->which = id;
    return SWN_GROUPS_SESSION;
}

/* Bytes of a command behind its CID; SIZE_MAX for unknown ones. */
static size_t body_size(uint8_t cid)
{
    switch (cid) {
    case CID_VERSION:
        return 0;
    case CID_STATUS:
    case CID_DELETE:
        return 1;
    case CID_SETUP:
        return SETUP_SIZE;
    case CID_CLASS_C:
    case CID_CLASS_B:
        return SESSION_SIZE;
    default:
        return SIZE_MAX;
    }
}

static swn_groups_event_t obey(swn_groups_t *groups, uint32_t gps_now_s, uint8_t cid, const uint8_t *body,
                               uint8_t wrong, swn_groups_answer_t *answer)
{
    const uint8_t version[3] = {CID_VERSION, SWN_GROUPS_PACKAGE, groups->version};
    uint8_t no_class_b[2] = {CID_CLASS_B, SWN_CHANNEL_BAD_RATE | SWN_CHANNEL_BAD_FREQUENCY};

    switch (cid) {
    case CID_VERSION:
        put(answer, version, sizeof version);
        return SWN_GROUPS_NOTHING;
    case CID_STATUS:
        tell_status(groups, body[0], answer);
        return SWN_GROUPS_NOTHING;
    case CID_SETUP:
        answer->which = body[0] & 3u;
        set_up(groups, body, answer);
        return SWN_GROUPS_SET;
    case CID_DELETE:
        answer->which = body[0] & 3u;
        return delete_group(groups, body[0] & 3u, answer);
    case CID_CLASS_C:
        return open_session(groups, gps_now_s, body, wrong, answer);
    default:
        no_class_b[1] = (uint8_t)(no_class_b[1] | (body[0] & 3u));
        put(answer, no_class_b, sizeof no_class_b);
        return SWN_GROUPS_NOTHING;
    }
}

swn_groups_event_t swn_groups_rx(swn_groups_t *groups, uint32_t gps_now_s, const uint8_t *payload, size_t size,
                                 swn_channel_t channel, void *user, swn_groups_answer_t *answer)
{
    swn_groups_event_t event = SWN_GROUPS_NOTHING;

    answer->size = 0;
    answer->which = 0;
    while (size > 0) {
        const uint8_t cid = payload[0];
        const size_t body = body_size(cid);
        swn_groups_event_t happened;
        uint8_t wrong = SWN_CHANNEL_OK;

        if (body > size - 1) {
            break;
        }
        if (cid == CID_CLASS_C && channel != NULL) {
            const uint32_t steps = (uint32_t)swn_get16(payload + 7) | (uint32_t)payload[9] << 16;
            wrong = channel(user, steps * FREQUENCY_STEP_HZ, payload[10]) &
                    (SWN_CHANNEL_BAD_RATE | SWN_CHANNEL_BAD_FREQUENCY);
        }
        happened = obey(groups, gps_now_s, cid, payload + 1, wrong, answer);
        event = happened != SWN_GROUPS_NOTHING ? happened : event;
        payload += 1 + body;
        size -= 1 + body;
    }
    return event;
}
