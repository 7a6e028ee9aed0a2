/* A node on a bench: a port that records, a virtual clock, some weather, and the downlinks of a gateway. */
#ifndef BENCH_H
#define BENCH_H

#include <string.h>

#include "expect.h"
#include "swn_node.h"

#define SECOND_US ((int64_t)1000000)
#define HOUR_US (3600 * SECOND_US)
#define DAY_US (24 * HOUR_US)

/* What the port saw; `answer` is what tx says. */
typedef struct world {
    int answer;
    unsigned sent;
    unsigned listens;            /* windows asked for, and */
    unsigned closings;           /* open ones closed */
    unsigned nvm_writes;
    uint8_t f_port;              /* of the last message */
    size_t size[3];              /* of the last one on ports 10, 11, 12 */
    uint8_t learning[SWN_PAYLOAD_MAX];
    uint8_t asking[SWN_PAYLOAD_MAX];
    uint8_t status[SWN_PAYLOAD_MAX];
    int64_t from_us;             /* of the last window */
    int64_t until_us;
    int64_t closed_us;
} world_t;

static inline int world_tx(void *ctx, uint8_t f_port, const uint8_t *data, size_t size)
{
    world_t *world = ctx;

    EXPECT(size >= 1 && size <= SWN_PAYLOAD_MAX);
    if (world->answer != 0) {
        return world->answer;
    }
    EXPECT(f_port >= SWN_PORT_LEARNING && f_port <= SWN_PORT_STATUS);
    world->sent++;
    world->f_port = f_port;
    world->size[f_port - SWN_PORT_LEARNING] = size;
    memcpy(f_port == SWN_PORT_LEARNING ? world->learning : f_port == SWN_PORT_ASKING ? world->asking : world->status,
           data, size);
    return 0;
}

static inline void world_listen(void *ctx, int64_t from_us, int64_t until_us)
{
    world_t *world = ctx;

    if (until_us <= from_us) {
        EXPECT_EQ(until_us, from_us);
        world->closings++;
        world->closed_us = until_us;
        return;
    }
    world->listens++;
    world->from_us = from_us;
    world->until_us = until_us;
}

static inline void world_nvm(void *ctx, uint8_t key, const void *data, size_t size)
{
    world_t *world = ctx;

    EXPECT(data != NULL && size > 0 && key >= SWN_NVM_PARAMETERS && key <= SWN_NVM_SERVE);
    world->nvm_writes += key != SWN_NVM_SERVE ? 1 : 0; /* that comes with every label */
}

typedef struct bench {
    swn_model_t model;
    swn_config_t config;
    swn_port_t port;
    world_t world;
    swn_node_t node;
} bench_t;

static inline void start(bench_t *bench, uint8_t context, uint64_t seed)
{
    memset(&bench->world, 0, sizeof bench->world);
    memset(&bench->config, 0, sizeof bench->config);
    bench->config.model = &bench->model;
    bench->config.seed = seed;
    bench->config.status_period_s = 86400;
    bench->config.guard_us = 50000;
    bench->config.node_index = 7;
    bench->config.context = context;
    bench->config.payload_max = 51;
    bench->port.ctx = &bench->world;
    bench->port.tx = world_tx;
    bench->port.listen = world_listen;
    bench->port.nvm_write = world_nvm;
    bench->port.verify = NULL;
    EXPECT_EQ(swn_init(&bench->node, &bench->config, &bench->port, 0), 0);
}

/* `days` days of changing weather from noon on, each labelled; returns the time of the last reading. */
static inline int64_t live(bench_t *bench, unsigned days)
{
    int64_t now_us = 0;
    unsigned hour;

    for (hour = 1; hour <= 24 * days; hour++) {
        swn_sample_t sample;

        now_us = hour * HOUR_US;
        sample.hour = (uint8_t)((hour + 12) % 24);
        sample.temperature_centi = (int16_t)(1200 + 100 * (hour / 24 % 7) + 10 * (hour % 24));
        sample.humidity_half = (uint8_t)(hour % 24 > 10 && hour / 24 % 3 == 0 ? 190 : 120 + hour % 24);
        sample.rain_tenth = (uint16_t)(hour % 48 == 20 ? 12 : 0);
        if (swn_sense(&bench->node, now_us, &sample)) {
            const uint16_t day = (uint16_t)(bench->node.day - 1);
            (void)swn_label(&bench->node, day, (uint8_t)(day % 3 == 0 ? SWN_HIGH : SWN_LOW));
        }
    }
    return now_us;
}

static inline void put16(uint8_t *out, unsigned value)
{
    out[0] = (uint8_t)(value & 255u);
    out[1] = (uint8_t)(value >> 8 & 255u);
}

static inline void put32(uint8_t *out, uint32_t value)
{
    put16(out, value & 0xFFFFu);
    put16(out + 2, value >> 16);
}

static inline void receive(bench_t *bench, int64_t now_us, uint8_t f_port, const uint8_t *data, size_t size)
{
    swn_rx(&bench->node, now_us, f_port, data, size, f_port == SWN_PORT_LEARNING, -3);
}

/* `next_s`, `window_s`: the next window. */
static inline void announce_window(bench_t *bench, int64_t now_us, unsigned round, unsigned mode, unsigned spread_s,
                                   unsigned close_s, unsigned next_s, unsigned window_s)
{
    uint8_t frame[19];

    frame[0] = 1;
    put16(frame + 1, round);
    put16(frame + 3, bench->node.parameters.model_version);
    frame[5] = (uint8_t)mode;
    frame[6] = 255;
    put16(frame + 7, spread_s);
    put32(frame + 9, close_s);
    put32(frame + 13, next_s);
    put16(frame + 17, window_s);
    receive(bench, now_us, SWN_PORT_LEARNING, frame, sizeof frame);
}

static inline void announce(bench_t *bench, int64_t now_us, unsigned round, unsigned mode, unsigned spread_s, unsigned close_s)
{
    announce_window(bench, now_us, round, mode, spread_s, close_s, 7200, 60);
}

static inline void acknowledge(bench_t *bench, int64_t now_us, unsigned round, uint8_t bits)
{
    uint8_t frame[6] = {2, 0, 0, 0, 0, bits};

    put16(frame + 1, round);
    receive(bench, now_us, SWN_PORT_LEARNING, frame, sizeof frame);
}

/* Reads and opens the model; 0, or -1 with a line that says why. */
static inline int open_model(bench_t *bench, const char *path)
{
    size_t size = 0;
    const uint8_t *image = path != NULL ? expect_load(path, &size) : NULL;

    if (image == NULL || swn_model_open(&bench->model, image, size) != SWN_OK) {
        printf("the first argument must be a valid model container\n");
        return -1;
    }
    return 0;
}

#endif
