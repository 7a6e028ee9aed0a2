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

int main(void)
{
    test_a_receiver_says_what_it_cannot();
    test_hostile_bytes();
    return expect_done("groups");
}
