/* Which rounds of masked sums a node takes part in: each at most once, whatever is announced, by whom, and across resets. */
#include "bench.h"
#include "swn_repair.h"

enum { GROUP = 3, POSITION = 2, SIZE = 8, ROUND_FRAME = 32, FRAGMENT_TYPE = 3, SEEDS_TYPE = 9, REPAIR_TYPE = 4 };

/* What left the node, and what its memory holds. */
typedef struct rig {
    bench_t bench;
    swn_mask_t mask;
    swn_masked_memo_t memo;
    uint8_t vectors[65536]; /* by round */
    unsigned seeds;
    int64_t now_us;
} rig_t;

static int take(void *ctx, uint8_t f_port, const uint8_t *data, size_t size)
{
    rig_t *rig = ctx;

    if (f_port == SWN_PORT_LEARNING && data[0] == FRAGMENT_TYPE && data[4] == 0) {
        rig->vectors[swn_get16(data + 1)]++;
    }
    rig->seeds += f_port == SWN_PORT_LEARNING && data[0] == SEEDS_TYPE;
    return world_tx(&rig->bench.world, f_port, data, size);
}

static void never_listens(void *ctx, int64_t from_us, int64_t until_us)
{
    (void)ctx;
    (void)from_us;
    (void)until_us;
}

static void keep(void *ctx, uint8_t key, const void *data, size_t size)
{
    rig_t *rig = ctx;

    if (key == SWN_NVM_MASKED) {
        EXPECT_EQ(size, sizeof rig->memo);
        memcpy(&rig->memo, data, size);
    }
}

/* Power returns: what was in non-volatile memory is all that is left. */
static void wake_up(rig_t *rig)
{
    bench_t *bench = &rig->bench;

    bench->config.mask = &rig->mask;
    bench->config.payload_max = SWN_PAYLOAD_MAX;
    bench->port.ctx = rig;
    bench->port.tx = take;
    bench->port.listen = never_listens;
    bench->port.nvm_write = keep;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, rig->now_us), 0);
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_MASKED, &rig->memo, sizeof rig->memo), 1);
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_MASKED, &rig->memo, sizeof rig->memo - 1), 0);
}

static void set_up(rig_t *rig)
{
    unsigned peer;

    memset(&rig->memo, 0, sizeof rig->memo);
    memset(rig->vectors, 0, sizeof rig->vectors);
    memset(&rig->mask, 0, sizeof rig->mask);
    rig->mask.group = GROUP;
    rig->mask.position = POSITION;
    rig->mask.size = SIZE;
    for (peer = 0; peer < SIZE; peer++) {
        memset(rig->mask.keys[peer], (int)peer + 1, SWN_AES_BLOCK);
    }
    rig->seeds = 0;
    rig->now_us = 0;
    start(&rig->bench, 0, 5);
    wake_up(rig);
}

/* A round of an hour, until it is over. */
static void announced(rig_t *rig, unsigned round, uint8_t multicast)
{
    const int64_t end_us = rig->now_us + HOUR_US;
    uint8_t frame[ROUND_FRAME] = {1};

    put16(frame + 1, round);
    frame[5] = SWN_MODE_MASKED_SUMS;
    frame[6] = 255;
    put32(frame + 9, 3000);
    put32(frame + 13, 7200);
    put16(frame + 17, 30);
    frame[19] = 24; /* samples_max, */
    frame[20] = 12; /* bits */
    swn_rx(&rig->bench.node, rig->now_us, SWN_PORT_LEARNING, frame, sizeof frame, multicast, 0);
    while (rig->now_us < end_us) {
        rig->now_us = swn_poll(&rig->bench.node, rig->now_us);
    }
    rig->now_us = end_us;
}

static void told(rig_t *rig, unsigned round, uint8_t multicast)
{
    uint8_t frame[11] = {1};

    put32(frame + 1, 7200);
    put16(frame + 5, 30);
    put16(frame + 9, round);
    swn_rx(&rig->bench.node, rig->now_us, SWN_PORT_STATUS, frame, sizeof frame, multicast, 0);
}

static void repair(rig_t *rig, unsigned round, unsigned received)
{
    uint8_t frame[7] = {REPAIR_TYPE};
    unsigned turn;

    put16(frame + 1, round);
    put16(frame + 3, GROUP);
    put16(frame + 5, received);
    swn_rx(&rig->bench.node, rig->now_us, SWN_PORT_LEARNING, frame, sizeof frame, 0, 0);
    for (turn = 0; turn < 5; turn++) {
        rig->now_us += 10 * SECOND_US;
        (void)swn_poll(&rig->bench.node, rig->now_us);
    }
}

/* What the next STATUS says of wanting a SCHEDULE; a window is announced. */
static int asks(rig_t *rig)
{
    swn_node_t *node = &rig->bench.node;

    node->window_until_us = rig->now_us + DAY_US;
    node->status_due_us = rig->now_us;
    (void)swn_poll(node, rig->now_us);
    return rig->bench.world.status[8] & SWN_STATUS_WANTS_SCHEDULE;
}

/* One ROUND of the highest number, by somebody who has the group's key. */
static void test_a_forged_number_ends_nothing(rig_t *rig)
{
    unsigned round;

    set_up(rig);
    announced(rig, 1, 1);
    EXPECT_EQ(rig->vectors[1], 1);
    EXPECT_EQ(asks(rig), 0);
    announced(rig, 65535, 1);
    EXPECT_EQ(rig->vectors[65535], 0);
    EXPECT(asks(rig));
    announced(rig, 100, 1); /* near enough to be true: it costs this number's masks, and no other's */
    EXPECT_EQ(rig->vectors[100], 1);
    wake_up(rig);
    for (round = 1; round <= 110; round++) {
        announced(rig, round, 1);
        EXPECT_EQ(rig->vectors[round], 1);
    }
    announced(rig, 1 + SWN_MASKED_AHEAD, 1); /* nobody told it a number yet */
    EXPECT_EQ(rig->vectors[1 + SWN_MASKED_AHEAD], 0);
}

static void test_only_the_gateway_moves_what_is_over(rig_t *rig)
{
    set_up(rig);
    told(rig, 65535, 1); /* by the group's session, which every node has */
    announced(rig, 1, 1);
    EXPECT_EQ(rig->vectors[1], 1);
    announced(rig, 5000, 1);
    EXPECT_EQ(rig->vectors[5000], 0);
    EXPECT(asks(rig));
    told(rig, 5000, 0);
    EXPECT_EQ(asks(rig), 0);
    announced(rig, 4999, 1);
    EXPECT_EQ(rig->vectors[4999], 0);
    announced(rig, 5000, 1); /* the running one */
    EXPECT_EQ(rig->vectors[5000], 1);
    announced(rig, 5001, 1);
    EXPECT_EQ(rig->vectors[5001], 1);
    told(rig, 4000, 0); /* a gateway that was restored */
    announced(rig, 4500, 1);
    EXPECT_EQ(rig->vectors[4500], 0);
    announced(rig, 6000, 0); /* by unicast: that is the gateway itself */
    EXPECT_EQ(rig->vectors[6000], 1);
    announced(rig, 5002, 1);
    EXPECT_EQ(rig->vectors[5002], 0);
    told(rig, 65535, 0);
    announced(rig, 65535, 1);
    EXPECT_EQ(rig->vectors[65535], 1);
    announced(rig, 0, 1); /* numbers begin anew: these masks are used up for good */
    announced(rig, 1, 0);
    EXPECT_EQ(rig->vectors[0], 0);
    EXPECT_EQ(rig->vectors[1], 1);
}

/* Any sequence of announcements, numbers and resets: no masks twice, and what was not used and is not over counts. */
static void test_no_masks_twice(rig_t *rig)
{
    uint32_t prng = 77;
    unsigned true_round = 1;
    unsigned step;

    set_up(rig);
    for (step = 0; step < 20000; step++) {
        const uint32_t draw = swn_xorshift32(&prng);
        const unsigned near = true_round + (draw >> 8) % 200;
        const unsigned number = draw % 5 == 0 ? draw >> 16 : near < 65536 ? near : 65535;
        uint8_t before;

        switch (draw % 16) {
        case 0:
            wake_up(rig);
            break;
        case 1:
            told(rig, true_round, 0);
            break;
        case 2:
            told(rig, number, 1);
            break;
        case 3:
        case 4:
            true_round++;
            before = rig->vectors[true_round];
            told(rig, true_round - 1, 0);
            announced(rig, true_round, 1);
            EXPECT_EQ(rig->vectors[true_round], 1); /* now, or when somebody forged this number */
            EXPECT(before <= 1);
            break;
        default:
            announced(rig, number, 1);
            break;
        }
        EXPECT(rig->vectors[number] <= 1);
        EXPECT(rig->bench.node.masked.over <= true_round);
    }
    EXPECT(true_round > 1000);
}

/* Seeds of a round are told for one set of members, whatever is announced between two requests. */
static void test_seeds_for_one_set(rig_t *rig)
{
    set_up(rig);
    announced(rig, 1, 1);
    repair(rig, 1, 0x7F);
    EXPECT_EQ(rig->seeds, 1);
    announced(rig, 65535, 1);
    announced(rig, 1, 1);
    repair(rig, 1, 0xBF);
    EXPECT_EQ(rig->seeds, 1);
    repair(rig, 1, 0x7F);
    EXPECT_EQ(rig->seeds, 2); /* the same set once more: the frame was lost */
    EXPECT_EQ(rig->vectors[1], 1);
}

int main(int argc, char **argv)
{
    static rig_t rig;

    if (open_model(&rig.bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_a_forged_number_ends_nothing(&rig);
    test_only_the_gateway_moves_what_is_over(&rig);
    test_no_masks_twice(&rig);
    test_seeds_for_one_set(&rig);
    return expect_done("test_masked");
}
