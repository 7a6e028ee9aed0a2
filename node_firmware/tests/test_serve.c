/* What a node answers with, as its labels and the fleet's heads come. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "swn_math.h"

enum { LOW = 0, HIGH = 2, NEW_CROP = 2, KNOWN_CROP = 0, STATUS_SERVES_AT = 16 };

/* A multicast block with one head, which says one class whatever it sees. */
static void push_head(bench_t *bench, unsigned version, uint8_t context, unsigned class)
{
    const unsigned head = swn_head_size(&bench->model);
    uint8_t frame[14 + 2 + 99];
    uint8_t *block = frame + 14;
    unsigned c;

    memset(frame, 0, sizeof frame);
    block[0] = context;
    for (c = 0; c < bench->model.classes; c++) {
        block[2 + c * SWN_HEAD_ROW + SWN_Z] = (uint8_t)(c == class ? 100 : 0x9C);
    }
    frame[0] = 3;
    put16(frame + 1, version);
    put16(frame + 3, SWN_NO_BASE);
    frame[5] = SWN_BLOCK_HEADS;
    put16(frame + 6, 2 + head);
    put32(frame + 8, swn_crc32(0, block, 2 + head));
    frame[13] = 1;
    receive(bench, version * HOUR_US, SWN_PORT_LEARNING, frame, sizeof frame);
    EXPECT_EQ(bench->node.parameters.model_version, version);
}

/* `count` more samples of random features, all labelled so. */
static void label(bench_t *bench, uint16_t *id, unsigned count, uint8_t class)
{
    uint32_t prng = 7u + *id;
    int8_t x[SWN_FEATURES_MAX];
    unsigned i;

    for (; count > 0; count--, (*id)++) {
        for (i = 0; i < bench->model.features; i++) {
            x[i] = (int8_t)(swn_xorshift32(&prng) >> 24);
        }
        swn_observe(&bench->node, *id * SECOND_US, *id, x);
        EXPECT_EQ(swn_label(&bench->node, *id, class), 1);
    }
}

static unsigned says(bench_t *bench)
{
    uint8_t p[SWN_CLASSES_MAX];
    unsigned best = 0;
    unsigned c;
    unsigned sum = 0;

    swn_infer_own(&bench->node, p);
    for (c = 0; c < bench->model.classes; c++) {
        best = p[c] > p[best] ? c : best;
        sum += p[c];
    }
    EXPECT_EQ(sum, 255);
    return best;
}

static void test_a_new_crop_follows_the_fleet_until_its_labels_object(bench_t *bench)
{
    swn_serve_t *serve = &bench->node.serve;
    uint16_t id = 1;

    start(bench, NEW_CROP, 1);
    label(bench, &id, 1, LOW);
    push_head(bench, 1, NEW_CROP, LOW);
    EXPECT_EQ(serve->choice, SWN_SERVE_GLOBAL);
    EXPECT_EQ(says(bench), LOW);
    label(bench, &id, 5, LOW);
    EXPECT_EQ(serve->choice, SWN_SERVE_GLOBAL);
    push_head(bench, 2, NEW_CROP, HIGH);
    EXPECT_EQ(serve->choice, SWN_SERVE_KEPT);
    EXPECT_EQ(serve->no_gain, 1);
    EXPECT_EQ(says(bench), LOW);
    push_head(bench, 3, NEW_CROP, LOW);
    EXPECT_EQ(serve->choice, SWN_SERVE_GLOBAL);
    EXPECT_EQ(serve->no_gain, 0);
}

static void test_a_known_crop_keeps_its_head_until_another_proves_better(bench_t *bench)
{
    swn_serve_t *serve = &bench->node.serve;
    uint16_t id = 1;
    unsigned shipped_says;

    start(bench, KNOWN_CROP, 2);
    label(bench, &id, 1, LOW);
    shipped_says = says(bench);
    push_head(bench, 1, KNOWN_CROP, (shipped_says + 1) % 3);
    EXPECT_EQ(serve->choice, SWN_SERVE_KEPT); /* one label proves nothing */
    EXPECT_EQ(serve->no_gain, 1);
    EXPECT_EQ(says(bench), shipped_says);
    label(bench, &id, 12, (uint8_t)((shipped_says + 1) % 3));
    EXPECT(serve->choice == SWN_SERVE_GLOBAL || serve->choice == SWN_SERVE_PERSONAL);
    EXPECT_EQ(says(bench), (shipped_says + 1) % 3);
    EXPECT_EQ(serve->no_gain, 0);
}

/* What was answered before the label came is what counts: 1 for none right, 15 for all, 0 while too few are known. */
static void test_the_node_says_how_often_it_was_right(bench_t *bench)
{
    const swn_serve_t *serve = &bench->node.serve;
    uint16_t id = 1;

    start(bench, NEW_CROP, 6);
    push_head(bench, 1, NEW_CROP, LOW);
    label(bench, &id, SWN_RIGHT_TOLD_MIN - 1, HIGH);
    EXPECT_EQ(swn_serve_right(serve), 0);
    label(bench, &id, 1, HIGH);
    EXPECT_EQ(swn_serve_right(serve), 1);
    start(bench, NEW_CROP, 6);
    push_head(bench, 1, NEW_CROP, LOW);
    label(bench, &id, 70, LOW);
    EXPECT_EQ(swn_serve_right(serve), 15);
    EXPECT(serve->told >= SWN_RIGHT_TOLD_MAX / 2 && serve->told < SWN_RIGHT_TOLD_MAX);
}

/* All labels say what the fleet's head never says; no other candidate does either. */
static void test_the_personal_head_serves_when_held_out_labels_agree(bench_t *bench)
{
    uint16_t id = 1;

    start(bench, NEW_CROP, 3);
    push_head(bench, 1, NEW_CROP, LOW);
    label(bench, &id, 3, HIGH);
    push_head(bench, 2, NEW_CROP, LOW);
    label(bench, &id, 29, HIGH);
    EXPECT_EQ(says(bench), HIGH);
    EXPECT(bench->node.serve.has_personal);
}

/* Days labelled as the rule says them, too few for a personal head; the fleet's head always says high. */
static void test_the_rule_serves_where_it_is_right(bench_t *bench)
{
    static const unsigned DAYS = 8;
    swn_sample_t sample = {1500, 100, 0, 0};
    unsigned rule = 0;
    unsigned hour;
    unsigned days = 0;

    start(bench, NEW_CROP, 4);
    push_head(bench, 1, NEW_CROP, HIGH);
    for (hour = 1; hour <= 24 * DAYS; hour++) {
        sample.hour = (uint8_t)((hour + 12) % 24);
        sample.humidity_half = (uint8_t)(hour / 24 % 2 == 0 ? 198 : 90);
        if (swn_sense(&bench->node, hour * HOUR_US, &sample) && bench->node.day_sampled) {
            rule = bench->node.day_x[SWN_RULE_INPUT] ? 0 : bench->node.day_x[SWN_RULE_INPUT + 1] ? 1 : 2;
            days += swn_label(&bench->node, (uint16_t)(bench->node.day - 1), (uint8_t)rule);
        }
    }
    EXPECT(days >= 4 && days < SWN_PERSONAL_LABELS_MIN);
    EXPECT_EQ(bench->node.serve.choice, SWN_SERVE_RULE);
    EXPECT_EQ(bench->node.serve.no_gain, 1);
    EXPECT_EQ(says(bench), rule);
    (void)swn_poll(&bench->node, (24 * DAYS + 25) * HOUR_US);
    (void)swn_poll(&bench->node, (24 * DAYS + 49) * HOUR_US);
    EXPECT_EQ(bench->world.size[2], SWN_STATUS_SIZE + 1);
    EXPECT_EQ(bench->world.status[STATUS_SERVES_AT] & 15, SWN_STATUS_NO_GAIN | SWN_SERVE_RULE);
    EXPECT_EQ(bench->world.status[STATUS_SERVES_AT] >> SWN_STATUS_RIGHT_SHIFT, swn_serve_right(&bench->node.serve));
}

static void test_the_choice_survives_a_reset(bench_t *bench)
{
    static swn_serve_t kept;
    static swn_parameters_t parameters;
    uint16_t id = 1;

    start(bench, NEW_CROP, 5);
    push_head(bench, 1, NEW_CROP, LOW);
    label(bench, &id, 6, LOW);
    push_head(bench, 2, NEW_CROP, HIGH);
    kept = bench->node.serve;
    parameters = bench->node.parameters;
    start(bench, NEW_CROP, 5);
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_PARAMETERS, &parameters, sizeof parameters), 1);
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_SERVE, &kept, sizeof kept), 1);
    EXPECT_EQ(swn_recall(&bench->node, SWN_NVM_SERVE, &kept, sizeof kept - 1), 0);
    EXPECT_EQ(bench->node.serve.choice, SWN_SERVE_KEPT);
    EXPECT_EQ(says(bench), LOW);
    label(bench, &id, 2, HIGH); /* the old labels are gone: two new ones change nothing yet */
    EXPECT_EQ(says(bench), LOW);
    label(bench, &id, 4, HIGH);
    EXPECT_EQ(says(bench), HIGH);
}

int main(int argc, char **argv)
{
    static bench_t bench;

    if (open_model(&bench, argc > 1 ? argv[1] : NULL) != 0) {
        return EXIT_FAILURE;
    }
    test_a_new_crop_follows_the_fleet_until_its_labels_object(&bench);
    test_a_known_crop_keeps_its_head_until_another_proves_better(&bench);
    test_the_node_says_how_often_it_was_right(&bench);
    test_the_personal_head_serves_when_held_out_labels_agree(&bench);
    test_the_rule_serves_where_it_is_right(&bench);
    test_the_choice_survives_a_reset(&bench);
    return expect_done("test_serve");
}
