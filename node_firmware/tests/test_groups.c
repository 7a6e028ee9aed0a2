/* Multicast setup and clock: the channel that a receiver cannot do, and hostile bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"
#include "swn_clock.h"
#include "swn_groups.h"

enum { HOSTILE = 200000, NOW_S = 1000 };

static uint8_t only_869525(void *user, uint32_t frequency_hz, uint8_t data_rate)
{
    ++*(unsigned *)user;
    return (uint8_t)((frequency_hz == 869525000u ? SWN_CHANNEL_OK : SWN_CHANNEL_BAD_FREQUENCY) |
                     (data_rate <= 5 ? SWN_CHANNEL_OK : SWN_CHANNEL_BAD_RATE));
}

static void test_a_receiver_says_what_it_cannot(void)
{
    /* McClassCSessionReq of group 1 at 2000 s for 2^8 s: frequency, data rate, and what the answer says. */
    static const struct {
        uint8_t request[11];
        uint8_t answer;
        uint8_t size;
    } CASES[] = {
        {{4, 1, 0xD0, 7, 0, 0, 8, 0xD2, 0xAD, 0x84, 3}, 1, 5},
        {{4, 1, 0xD0, 7, 0, 0, 8, 0xD2, 0xAD, 0x84, 6}, 1 | 4, 2},
        {{4, 1, 0xD0, 7, 0, 0, 8, 0xD3, 0xAD, 0x84, 3}, 1 | 8, 2},
        {{4, 0, 0xD0, 7, 0, 0, 8, 0xD3, 0xAD, 0x84, 6}, 0 | 4 | 8 | 16, 2},
    };
    swn_groups_t groups;
    swn_groups_answer_t answer;
    uint8_t setup[30] = {2, 1};
    unsigned asked = 0;
    size_t i;

    swn_groups_init(&groups, setup, 2);
    EXPECT_EQ(swn_groups_rx(&groups, NOW_S, setup, sizeof setup, only_869525, &asked, &answer), SWN_GROUPS_SET);
    EXPECT_EQ(answer.which, 1);
    for (i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const swn_groups_event_t event = swn_groups_rx(&groups, NOW_S, CASES[i].request, sizeof CASES[i].request,
                                                       only_869525, &asked, &answer);
        EXPECT_EQ(event, CASES[i].size == 5 ? SWN_GROUPS_SESSION : SWN_GROUPS_NOTHING);
        EXPECT_EQ(answer.size, CASES[i].size);
        EXPECT_EQ(answer.data[1], CASES[i].answer);
    }
    EXPECT_EQ(asked, 4);
    EXPECT_EQ(groups.groups[1].session_frequency_hz, 869525000);
}

static void test_hostile_bytes(void)
{
    static swn_groups_t groups;
    swn_groups_answer_t answer;
    swn_clock_t clock;
    swn_clock_message_t message;
    uint32_t prng = 3;
    unsigned asked = 0;
    unsigned i;

    memset(&groups, 0, sizeof groups);
    groups.version = 2;
    swn_clock_init(&clock, 0, 1, 1);
    for (i = 0; i < HOSTILE; i++) {
        const size_t size = swn_xorshift32(&prng) % 64u;
        uint8_t *bytes = malloc(size + 1); /* exact, so that a sanitizer sees a read behind the last byte */
        size_t j;

        if (bytes == NULL) {
            abort();
        }
        for (j = 0; j < size; j++) {
            const uint32_t word = swn_xorshift32(&prng);
            bytes[1 + j] = (uint8_t)(word % 3 ? word >> 8 & 7u : word >> 8 & 0xFFu);
        }
        (void)swn_groups_rx(&groups, i, bytes + 1, size, only_869525, &asked, &answer);
        EXPECT(answer.size <= SWN_GROUPS_ANSWER_MAX);
        (void)swn_clock_rx(&clock, i, bytes + 1, size, (uint8_t)(i % 2), &message);
        EXPECT(message.size <= SWN_CLOCK_ANSWER_MAX);
        (void)swn_clock_poll(&clock, i, &message);
        EXPECT(message.size == 0 || message.size == 6);
        free(bytes);
    }
}

/* Valid commands, several in a payload, with bits turned and ends cut off. A group is only what a whole set-up made it. */
static void test_mutated_commands(void)
{
    static const uint8_t SIZES[6] = {1, 2, 30, 2, 11, 11};
    static const uint8_t KEY[SWN_AES_BLOCK] = {1, 2, 3};
    swn_groups_t groups;
    swn_groups_answer_t answer;
    uint32_t prng = 17;
    unsigned asked = 0;
    unsigned events[4] = {0, 0, 0, 0};
    unsigned i;

    for (i = 0; i < HOSTILE; i++) {
        uint8_t valid[255];
        const uint32_t draw = swn_xorshift32(&prng);
        size_t size = 0;
        size_t j;
        uint8_t *bytes;
        swn_groups_event_t event;

        if (i % 512 == 0) {
            swn_groups_init(&groups, KEY, (uint8_t)(1 + i / 512 % 2));
        }
        for (j = 0; j < 1 + draw % 5; j++) {
            const uint8_t cid = (uint8_t)(swn_xorshift32(&prng) % 6);
            size_t k;

            valid[size] = cid;
            for (k = 1; k < SIZES[cid]; k++) {
                valid[size + k] = (uint8_t)(swn_xorshift32(&prng) >> 24);
            }
            if (cid == 4 && swn_xorshift32(&prng) % 2) { /* a session soon, where this receiver can listen */
                static const uint8_t WHERE[4] = {0xD2, 0xAD, 0x84, 3};
                valid[size + 2] = (uint8_t)((i + 5) & 0xFFu);
                valid[size + 3] = (uint8_t)(i >> 8 & 0xFFu);
                valid[size + 4] = (uint8_t)(i >> 16);
                valid[size + 5] = 0;
                memcpy(valid + size + 7, WHERE, sizeof WHERE);
            }
            size += SIZES[cid];
        }
        if (draw >> 3 & 1u) {
            valid[swn_xorshift32(&prng) % size] ^= (uint8_t)(1u << (draw >> 4 & 7u));
        }
        size = draw >> 7 & 7u ? size : (draw >> 10) % size;
        bytes = malloc(size + 1);
        if (bytes == NULL) {
            abort();
        }
        memcpy(bytes, valid, size);
        event = swn_groups_rx(&groups, i, bytes, size, draw >> 20 & 1u ? only_869525 : NULL, &asked, &answer);
        free(bytes);
        events[event]++;
        EXPECT(answer.size <= SWN_GROUPS_ANSWER_MAX && answer.which < SWN_GROUPS_MAX);
        for (j = 0; j < SWN_GROUPS_MAX; j++) {
            const swn_group_t *group = &groups.groups[j];
            EXPECT(group->is_set <= 1 && group->has_session <= group->is_set);
            EXPECT(!group->has_session || group->session_length_s <= 1u << 15);
        }
    }
    printf("test_groups: %d mutated payloads, %u set, %u deleted, %u sessions\n", HOSTILE, events[SWN_GROUPS_SET],
           events[SWN_GROUPS_DELETED], events[SWN_GROUPS_SESSION]);
    EXPECT(events[SWN_GROUPS_SET] > HOSTILE / 20 && events[SWN_GROUPS_DELETED] > HOSTILE / 100);
    EXPECT(events[SWN_GROUPS_SESSION] > HOSTILE / 100 && asked > HOSTILE / 20);
}

int main(void)
{
    test_a_receiver_says_what_it_cannot();
    test_hostile_bytes();
    test_mutated_commands();
    return expect_done("groups");
}
