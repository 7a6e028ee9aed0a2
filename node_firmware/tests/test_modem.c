/* The serial modem's port: dialogues as the vendors' manuals write them, the node above it, and hostile lines.
 *
 *   test_modem IMAGE [LINES]     IMAGE: a model container; LINES: random ones
 *
 * A dialogue is a list of lines: ">" what the port has to say, "<" what the modem answers, "+" milliseconds that pass.
 */
#include <string.h>

#include "expect.h"
#include "swn_modem.h"

#define SECOND_US ((int64_t)1000000)
#define HOUR_US (3600 * SECOND_US)

typedef struct bench {
    swn_model_t model;
    swn_node_t node;
    swn_port_t port;
    swn_modem_t modem;
    int64_t now_us;
    unsigned nvm_writes;
    uint16_t nvm_size;
} bench_t;

static void keep(void *board, uint8_t key, const void *data, size_t size)
{
    bench_t *bench = board;

    (void)key;
    (void)data;
    bench->nvm_writes++;
    bench->nvm_size = (uint16_t)size;
}

static uint32_t dice(void *board)
{
    (void)board;
    return 4;
}

static swn_modem_config_t config_of(bench_t *bench, const swn_modem_dialect_t *dialect)
{
    static const uint8_t payload[SWN_MODEM_RATES] = {51, 51, 51, 115, 222, 222};
    swn_modem_config_t config;
    uint8_t i;

    memset(&config, 0, sizeof config);
    config.dialect = dialect;
    config.region = "eu868";
    for (i = 0; i < 16; i++) {
        config.dev_eui[i & 7] = i & 7;
        config.join_eui[i & 7] = (uint8_t)(0x70 + (i & 7));
        config.app_key[i] = (uint8_t)(0xA0 + i);
        config.nwk_s_key[i] = (uint8_t)(0xB0 + i);
        config.app_s_key[i] = (uint8_t)(0xC0 + i);
        config.mc_nwk_s_key[i] = (uint8_t)(0xD0 + i);
        config.mc_app_s_key[i] = (uint8_t)(0xE0 + i);
    }
    config.dev_addr = 0x01ABCDEF;
    config.mc_addr = 0x00FF1234;
    config.mc_frequency_hz = 869525000;
    config.mc_data_rate = 3;
    memcpy(config.payload_max, payload, sizeof payload);
    config.seed = 7;
    config.board = bench;
    config.random32 = dice;
    config.nvm_write = keep;
    return config;
}

static void begin_with(bench_t *bench, const swn_modem_config_t *modem)
{
    swn_config_t config;

    bench->now_us = HOUR_US;
    EXPECT_EQ(swn_modem_init(&bench->modem, modem, &bench->node, &bench->port, bench->now_us), 0);
    memset(&config, 0, sizeof config);
    config.model = &bench->model;
    config.seed = 5;
    config.status_period_s = 3600;
    config.node_index = 7;
    config.payload_max = 51;
    EXPECT_EQ(swn_init(&bench->node, &config, &bench->port, bench->now_us), 0);
    bench->now_us += SWN_MODEM_PAUSE_MIN_S * SECOND_US;
}

static void begin(bench_t *bench, const swn_modem_dialect_t *dialect)
{
    const swn_modem_config_t config = config_of(bench, dialect);

    begin_with(bench, &config);
}

/* What the port says next, without its line end; "" for nothing. Taken in pieces, as a UART does. */
static const char *said(bench_t *bench)
{
    static char line[SWN_MODEM_LINE_MAX + 1];
    size_t size = 0;
    size_t taken;

    (void)swn_modem_poll(&bench->modem, bench->now_us);
    do {
        taken = swn_modem_take(&bench->modem, (uint8_t *)line + size, 7);
        size += taken;
    } while (taken > 0 && size + 7 < sizeof line);
    EXPECT(size == 0 || (size > 2 && line[size - 2] == '\r' && line[size - 1] == '\n'));
    line[size > 2 ? size - 2 : 0] = '\0';
    return line;
}

static void hear(bench_t *bench, const char *line)
{
    size_t i;

    for (i = 0; i < strlen(line); i++) {
        swn_modem_feed(&bench->modem, bench->now_us, (const uint8_t *)line + i, 1);
    }
    swn_modem_feed(&bench->modem, bench->now_us, (const uint8_t *)"\r\n", 2);
}

static void talk(bench_t *bench, const char *const *dialogue)
{
    for (; *dialogue != NULL; dialogue++) {
        const char *line = *dialogue;

        if (line[0] == '>') {
            const char *got = said(bench);
            if (strcmp(got, line + 1) != 0) {
                printf("wanted \"%s\", got \"%s\"\n", line + 1, got);
                EXPECT(0);
            }
        } else if (line[0] == '<') {
            hear(bench, line + 1);
        } else {
            bench->now_us += (int64_t)strtol(line, NULL, 10) * 1000;
        }
    }
}

static const char *const RUI3_JOIN[] = {
    ">AT+NJM=1", "<", "<OK", ">AT+DEVEUI=0001020304050607", "<OK", ">AT+APPEUI=7071727374757677", "<OK",
    ">AT+APPKEY=A0A1A2A3A4A5A6A7A8A9AAABACADAEAF", "<OK", ">AT+BAND=4", "<OK", ">AT+DCS=1", "<AT_ERROR",
    ">AT+CFM=0", "<OK", ">AT+CLASS=A", "<OK", ">AT+ADR=1", "<OK", ">AT+DR=0", "<OK",
    ">AT+JOIN=1:0:8:1", "<OK", ">", "+6000", "<+EVT:JOINED",
    ">AT+RMVMULC=00FF1234", "<AT_PARAM_ERROR",
    ">AT+ADDMULC=C:00FF1234:D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF:E0E1E2E3E4E5E6E7E8E9EAEBECEDEEEF:869525000:3", "<OK",
    ">AT+DR=?", "<AT+DR=3", "<", "<OK", ">", NULL};

static const char *const RN2483_JOIN[] = {
    ">mac reset 868", "<ok", ">mac set deveui 0001020304050607", "<ok", ">mac set appeui 7071727374757677", "<ok",
    ">mac set appkey A0A1A2A3A4A5A6A7A8A9AAABACADAEAF", "<ok", ">mac set adr on", "<ok", ">mac set dr 0", "<ok",
    ">mac set mcastdevaddr 00FF1234", "<ok", ">mac set mcastnwkskey D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF", "<ok",
    ">mac set mcastappskey E0E1E2E3E4E5E6E7E8E9EAEBECEDEEEF", "<ok", ">mac set mcast on", "<ok",
    ">mac set rx2 3 869525000", "<ok", ">mac join otaa", "<ok", "+6000", "<accepted", ">mac set rx2 3 869525000", "<ok",
    ">mac get dr", "<5", ">", NULL};

static void test_rui3_day(bench_t *bench)
{
    static const uint8_t payload[3] = {1, 2, 0xFF};
    const char *sending[] = {">AT+SEND=12:0102FF", "<OK", ">", "+2100", "<+EVT:TX_DONE",
                             "<+EVT:RX_1:-70:-8:UNICAST:12:01100E00003C001E00", ">AT+DR=?", "<AT+DR=5", "<OK", ">", NULL};
    const char *window[] = {">", "+3600000", ">AT+CLASS=C", "<OK", ">",
                            "<+EVT:RX_C:-101:12:MULTICAST:10:0101000000000000000000000000000000000000", "+60000",
                            ">AT+CLASS=A", "<OK", ">", NULL};

    begin(bench, &swn_modem_rui3);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 3), SWN_MODEM_BUSY_S); /* not joined yet */
    talk(bench, RUI3_JOIN);
    EXPECT_EQ(bench->node.config.payload_max, 115);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 0), -1);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 3), 0);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 3), -1); /* one at a time */
    talk(bench, sending);
    EXPECT_EQ(bench->modem.sent, 1);
    EXPECT_EQ(bench->node.snr_db, -8);
    EXPECT_EQ(bench->node.multicast_received, 0);
    EXPECT_EQ(bench->node.config.payload_max, 222);
    EXPECT_EQ(bench->node.config.status_period_s, 1800); /* the SCHEDULE was heard, and its window is kept */
    EXPECT_EQ(swn_modem_poll(&bench->modem, bench->now_us), bench->node.window_from_us);
    bench->modem.next_from_us = bench->now_us + HOUR_US;
    bench->modem.next_until_us = bench->modem.next_from_us + 60 * SECOND_US;
    talk(bench, window);
    EXPECT_EQ(bench->node.multicast_received, 1);
    EXPECT_EQ(bench->node.snr_db, 12);
    EXPECT_EQ(bench->modem.noise, 0);
    EXPECT_EQ(bench->modem.lost, 0);
}

static void test_rui3_abp(bench_t *bench)
{
    swn_modem_config_t config = config_of(bench, &swn_modem_rui3);
    const char *const dialogue[] = {">AT+NJM=0", "<OK", ">AT+DEVEUI=0001020304050607", "<OK", ">AT+DEVADDR=01ABCDEF", "<OK",
                                    ">AT+NWKSKEY=B0B1B2B3B4B5B6B7B8B9BABBBCBDBEBF", "<OK",
                                    ">AT+APPSKEY=C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF", "<OK", ">AT+BAND=4", "<OK", NULL};

    config.abp = 1;
    begin_with(bench, &config);
    talk(bench, dialogue);
    config.region = "nowhere";
    EXPECT_EQ(swn_modem_init(&bench->modem, &config, &bench->node, &bench->port, 0), -1);
    config.region = "eu868";
    config.dialect = &swn_modem_rn2483; /* would repeat its counters */
    EXPECT_EQ(swn_modem_init(&bench->modem, &config, &bench->node, &bench->port, 0), -1);
}

static void test_duty_cycle(bench_t *bench)
{
    static const uint8_t payload[1] = {9};
    const char *busy[] = {">AT+SEND=10:09", "<Restricted_Wait_95000_ms", "<AT_BUSY_ERROR", ">", "+94000", ">", "+1001",
                          ">AT+SEND=10:09", "<AT_DUTYCYCLE_RESTRICTED", "+9999", ">", "+2", ">AT+SEND=10:09", "<OK",
                          "<+EVT:TX_DONE", ">AT+DR=?", "<AT+DR=0", "<OK", ">", NULL};
    const char *spent[] = {">AT+SEND=10:09", "<Restricted_Wait_99000000_ms", "<AT_BUSY_ERROR", ">", NULL};
    const char *window[] = {">AT+CLASS=C", "<OK", ">", "+599000", ">", "+2000", ">", NULL};

    begin(bench, &swn_modem_rui3);
    talk(bench, RUI3_JOIN);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 10, payload, 1), 0);
    talk(bench, busy);
    EXPECT_EQ(bench->modem.sent, 1);
    /* A window opens although the frame may not go out for a day; the frame is given up after ten minutes. */
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 10, payload, 1), 0);
    talk(bench, spent);
    bench->port.listen(bench->port.ctx, bench->now_us, bench->now_us + HOUR_US);
    talk(bench, window);
    EXPECT_EQ(bench->modem.lost, 1);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 10, payload, 1), 86400 - 601 + 1);
    /* "The programme is over" closes it early. */
    bench->port.listen(bench->port.ctx, bench->now_us, bench->now_us);
    EXPECT_EQ(strcmp(said(bench), "AT+CLASS=A"), 0);
}

static void test_refusals(bench_t *bench)
{
    static const uint8_t payload[60] = {1};
    const char *denied[] = {">AT+JOIN=1:0:8:1", "<Restricted_Wait_30000_ms", "<AT_BUSY_ERROR", "+29999", ">", "+2",
                            ">AT+JOIN=1:0:8:1", "<OK", "+8000", "<+EVT:JOIN_FAILED_RX_TIMEOUT", ">", "+9999", ">", "+10001",
                            ">AT+JOIN=1:0:8:1", "<OK", "+8000", "<+EVT:JOIN_FAILED_RX_TIMEOUT", "+19999", ">", "+20001",
                            ">AT+JOIN=1:0:8:1", "<+EVT:JOINED", ">AT+RMVMULC=00FF1234", NULL};
    const char *too_long[] = {"<AT_PARAM_ERROR", ">AT+DR=?", "<AT+DR=0", "<OK", ">", NULL};
    const char *forgotten[] = {">AT+SEND=10:01", "<AT_NO_NETWORK_JOINED", ">", "+20001", ">AT+NJM=1", NULL};

    begin(bench, &swn_modem_rui3);
    while (strcmp(said(bench), "AT+DR=0") != 0) {
        hear(bench, "OK");
    }
    hear(bench, "AT_PARAM_ERROR"); /* some versions keep the rate to ADR */
    talk(bench, denied);
    EXPECT_EQ(bench->modem.restarts, 0);
    hear(bench, "OK");
    (void)said(bench);
    hear(bench, "AT_PARAM_ERROR"); /* no group, no rounds: the script begins anew, after a pause */
    EXPECT_EQ(bench->modem.restarts, 1);
    EXPECT_EQ(said(bench)[0], '\0');
    begin(bench, &swn_modem_rui3);
    talk(bench, RUI3_JOIN);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 10, payload, sizeof payload), 0);
    EXPECT_EQ(strlen(said(bench)), 8 + 3 + 120);
    talk(bench, too_long);
    EXPECT_EQ(bench->modem.lost, 1);
    EXPECT_EQ(bench->node.config.payload_max, 51);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 10, payload, 1), 0);
    talk(bench, forgotten);
    EXPECT_EQ(bench->modem.frame_waits, 1);
    EXPECT_EQ(bench->modem.lost, 1);
}

static void test_silence_and_restart(bench_t *bench)
{
    static const uint8_t payload[1] = {1};
    const char *dead[] = {">AT+NJM=1", "+2999", ">", "+2", ">AT+NJM=1", "+3001", ">AT+NJM=1", "+3001", ">", "+20001",
                          ">AT+NJM=1", "<OK", ">AT+DEVEUI=0001020304050607", NULL};
    const char *lost[] = {">AT+SEND=10:01", "<OK", "+29999", ">", "+2", ">AT+DR=?", NULL};
    const char *reset[] = {"<RAKwireless RAK3172-H Device", "<Current Work Mode: LoRaWAN.", ">AT+NJM=1", NULL};

    begin(bench, &swn_modem_rui3);
    talk(bench, dead);
    EXPECT_EQ(bench->modem.silences, 3);
    EXPECT_EQ(bench->modem.restarts, 1);
    EXPECT_EQ(bench->modem.mute, 0); /* it has answered since */
    begin(bench, &swn_modem_rui3);
    talk(bench, RUI3_JOIN);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 10, payload, 1), 0);
    talk(bench, lost);
    EXPECT_EQ(bench->modem.lost, 1);
    talk(bench, reset);
    EXPECT_EQ(bench->modem.ready, 0);
    EXPECT_EQ(bench->modem.noise, 1); /* the banner's first line */
}

static void test_rn2483(bench_t *bench)
{
    static const uint8_t payload[2] = {0x0A, 0x0B};
    const char *plain[] = {">mac tx uncnf 12 0A0B", "<ok", "+2500", "<mac_tx_ok", ">mac get dr", "<0", ">", NULL};
    const char *answered[] = {">mac tx uncnf 12 0A0B", "<ok", "+1500", "<mac_rx 12 01100E00003C001E00", ">mac get dr", "<0", ">",
                              NULL};
    const char *busy[] = {">mac tx uncnf 12 0A0B", "<no_free_ch", ">", "+10001", ">mac tx uncnf 12 0A0B", "<ok", "<invalid_data_len",
                          ">mac get dr", "<0", ">", NULL};
    const char *group[] = {"+1", ">mac set class c", "<ok", ">", "<mac_rx 10 01", ">", NULL};

    begin(bench, &swn_modem_rn2483);
    talk(bench, RN2483_JOIN);
    EXPECT_EQ(bench->node.config.payload_max, 222);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 2), 0);
    talk(bench, plain);
    EXPECT_EQ(bench->node.config.payload_max, 51);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 2), 0);
    talk(bench, answered);
    EXPECT_EQ(bench->node.config.status_period_s, 1800);
    EXPECT_EQ(bench->node.multicast_received, 0);
    EXPECT_EQ(bench->port.tx(bench->port.ctx, 12, payload, 2), 0);
    talk(bench, busy);
    EXPECT_EQ(bench->modem.sent, 2);
    EXPECT_EQ(bench->modem.lost, 1);
    bench->port.listen(bench->port.ctx, bench->now_us, bench->now_us + HOUR_US);
    talk(bench, group);
    EXPECT_EQ(bench->node.multicast_received, 1);
    EXPECT_EQ(bench->modem.noise, 0);
}

static void test_a_line_without_end(bench_t *bench)
{
    const char *still_there[] = {"<OK", ">AT+DEVEUI=0001020304050607", NULL};
    static char endless[3 * SWN_MODEM_LINE_MAX];

    memset(endless, 'O', sizeof endless - 1);
    begin(bench, &swn_modem_rui3);
    EXPECT_EQ(strcmp(said(bench), "AT+NJM=1"), 0);
    hear(bench, endless);
    EXPECT_EQ(bench->modem.overflows, 1);
    talk(bench, still_there);
    EXPECT_EQ(bench->modem.noise, 0);
}

/* The node itself, above a modem that takes everything: its status comes out as a command. */
static void test_node_above(bench_t *bench)
{
    swn_sample_t sample = {1520, 160, 0, 9};
    int64_t wake_us;

    begin(bench, &swn_modem_rui3);
    talk(bench, RUI3_JOIN);
    (void)swn_sense(&bench->node, bench->now_us, &sample);
    wake_us = swn_poll(&bench->node, bench->now_us);
    EXPECT(wake_us <= bench->now_us + HOUR_US);
    bench->now_us = wake_us;
    (void)swn_modem_poll(&bench->modem, bench->now_us);
    (void)swn_poll(&bench->node, bench->now_us);
    EXPECT_EQ(bench->node.sent, 1);
    EXPECT_EQ(strncmp(said(bench), "AT+SEND=12:01010000", 19), 0);
    EXPECT_EQ(bench->nvm_writes, 0);
    bench->port.nvm_write(bench->port.ctx, SWN_NVM_SERVE, &sample, sizeof sample);
    EXPECT_EQ(bench->nvm_size, sizeof sample);
    EXPECT_EQ(bench->port.random32(bench->port.ctx), 4);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* What a modem that works would say now. */
static const char *fitting(const bench_t *bench)
{
    const uint8_t rui3 = bench->modem.config.dialect == &swn_modem_rui3;

    switch (bench->modem.command) {
    case SWN_MODEM_JOINING:
        return rui3 ? "+EVT:JOINED" : "accepted";
    case SWN_MODEM_SENDING:
        return rui3 ? "+EVT:TX_DONE" : "mac_tx_ok";
    case SWN_MODEM_ASK_RATE:
        return rui3 ? "OK" : "3";
    default:
        return rui3 ? "OK" : "ok";
    }
}

/* Lines of the grammar with bytes changed, cut, repeated and run together: nothing is read or written outside, counters of
 * frames stay right, and the port still answers. */
static void test_hostile(bench_t *bench, const swn_modem_dialect_t *dialect, unsigned lines)
{
    static const char *const grammar[] = {
        "OK", "ok", "AT_BUSY_ERROR", "no_free_ch", "AT_PARAM_ERROR", "invalid_param", "AT_NO_NETWORK_JOINED", "not_joined",
        "+EVT:JOINED", "accepted", "+EVT:JOIN_FAILED_RX_TIMEOUT", "denied", "+EVT:TX_DONE", "mac_tx_ok", "mac_err",
        "Restricted_Wait_4553_ms", "AT+DR=3", "15", "+EVT:RX_1:-70:8:UNICAST:12:01100E00003C001E00",
        "+EVT:RX_C:-999999999:-128:MULTICAST:255:00", "mac_rx 10 0102030405", "mac_rx 999 01", "Current Work Mode: LoRaWAN.",
        "RN2483 1.0.5 Oct 31 2018 15:06:52", "+EVT:RX_", "AT+DR=", "mac_rx "};
    static const uint8_t payload[4] = {1, 2, 3, 4};
    uint32_t state = 99;
    unsigned i;
    unsigned taken = 0;

    begin(bench, dialect);
    for (i = 0; i < lines; i++) {
        uint8_t line[700];
        const char *any = grammar[next_random(&state) % (sizeof grammar / sizeof grammar[0])];
        const char *text = next_random(&state) % 8 != 0 ? fitting(bench) : any;
        size_t size = strlen(text);
        unsigned changes = next_random(&state) % 16 == 0 ? next_random(&state) % 5 : 0;

        memset(line, '7', sizeof line);
        memcpy(line, text, size);
        while (changes-- > 0) {
            line[next_random(&state) % size] = (uint8_t)next_random(&state);
        }
        size = next_random(&state) % 64 == 0 ? next_random(&state) % sizeof line : size;
        swn_modem_feed(&bench->modem, bench->now_us, line, size);
        swn_modem_feed(&bench->modem, bench->now_us, (const uint8_t *)"\r\n", next_random(&state) % 32 == 0 ? 0 : 2);
        bench->now_us += (bench->modem.ready ? 1000 : 8000) * (int64_t)(next_random(&state) % 1000);
        EXPECT(swn_modem_poll(&bench->modem, bench->now_us) > bench->now_us);
        (void)swn_modem_take(&bench->modem, line, sizeof line);
        taken += bench->port.tx(bench->port.ctx, 10, payload, sizeof payload) == 0;
        EXPECT_EQ(bench->modem.sent + bench->modem.lost + bench->modem.frame_waits, taken);
        if (next_random(&state) % 64 == 0) {
            bench->port.listen(bench->port.ctx, bench->now_us + SECOND_US, bench->now_us + 9 * SECOND_US);
        }
    }
    EXPECT(taken > lines / 200 && bench->modem.sent > lines / 400);
    EXPECT(bench->modem.overflows > lines / 2000 && bench->modem.received > lines / 2000);
    EXPECT(bench->modem.out.full == 0);
}

int main(int argc, char **argv)
{
    static bench_t bench;
    const unsigned lines = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 200000u;
    size_t size = 0;
    const uint8_t *image = argc > 1 ? expect_load(argv[1], &size) : NULL;

    if (image == NULL || swn_model_open(&bench.model, image, size) != SWN_OK) {
        return EXIT_FAILURE;
    }
    test_rui3_day(&bench);
    test_rui3_abp(&bench);
    test_duty_cycle(&bench);
    test_refusals(&bench);
    test_silence_and_restart(&bench);
    test_rn2483(&bench);
    test_a_line_without_end(&bench);
    test_node_above(&bench);
    test_hostile(&bench, &swn_modem_rui3, lines);
    test_hostile(&bench, &swn_modem_rn2483, lines);
    return expect_done("modem");
}
