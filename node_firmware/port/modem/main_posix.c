/* A node on a Linux box: the core, and a LoRaWAN modem at a serial line.
 *
 *   modem_node DEVICE MODEL.swm [--baud 115200] [--state DIR] [--clock stdin]
 *
 * Readings and labels come in lines on the standard input:
 *   reading TEMPERATURE HUMIDITY RAIN [HOUR]    degC, %, mm of the hour that ended; "-" for what is missing
 *   label DAY CLASS
 * and with --clock stdin, for replays and tests, the time too:
 *   at MICROSECONDS                             answered by "until MICROSECONDS", when everything that is due was done
 * What happens is told in lines on the standard output. DIR keeps what the node learned over a restart.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include SWN_IDENTITY
#include "swn_modem.h"
#include "swn_provisioned.h"

#ifndef SWN_DIALECT
#define SWN_DIALECT swn_modem_rui3
#endif

enum { IMAGE_MAX = 1 << 20, INPUT_MAX = 160, WAIT_MAX_MS = 60000, PATH_SIZE = 512 };

typedef struct box {
    swn_model_t model;
    swn_node_t node;
    swn_port_t port;
    swn_modem_t modem;
    const char *state; /* NULL: nothing is kept */
    int64_t now_us;
    int clock_from_input;
    int tty;
    int input_ended;
    size_t input_size;
    char input[INPUT_MAX];
    uint32_t told_sent;
    uint32_t told_received;
    uint32_t told_lost;
    uint8_t told_ready;
} box_t;

static void stop(const char *what, const char *why)
{
    fprintf(stderr, "modem_node: %s: %s\n", what, why);
    exit(2);
}

/* What outlives a restart --------------------------------------------------------------------------- */

static void name_of(const box_t *box, uint8_t key, const char *ending, char *path)
{
    if (snprintf(path, PATH_SIZE, "%s/nvm-%u%s", box->state, (unsigned)key, ending) >= PATH_SIZE) {
        stop("--state", "the name is too long");
    }
}

static void keep(void *board, uint8_t key, const void *data, size_t size)
{
    const box_t *box = board;
    char path[PATH_SIZE], fresh[PATH_SIZE];
    FILE *file;

    if (box->state == NULL) {
        return;
    }
    name_of(box, key, "", path);
    name_of(box, key, ".new", fresh);
    file = fopen(fresh, "wb");
    if (file == NULL || fwrite(data, 1, size, file) != size || fflush(file) != 0 || fsync(fileno(file)) != 0 ||
        fclose(file) != 0 || rename(fresh, path) != 0) {
        stop(fresh, strerror(errno)); /* going on would forget which masks are used up */
    }
}

static void recall(box_t *box)
{
    static uint8_t bytes[1 << 16];
    uint8_t key;

    for (key = SWN_NVM_PARAMETERS; box->state != NULL && key <= SWN_NVM_MASKED; key++) {
        char path[PATH_SIZE];
        FILE *file;

        name_of(box, key, "", path);
        file = fopen(path, "rb");
        if (file != NULL) {
            const size_t size = fread(bytes, 1, sizeof bytes, file);
            printf("recalled %u %s\n", (unsigned)key, swn_recall(&box->node, key, bytes, size) ? "ok" : "of another version");
            fclose(file);
        }
    }
}

/* The board ---------------------------------------------------------------------------------------- */

static int64_t clock_us(const box_t *box)
{
    struct timespec now;

    if (box->clock_from_input) {
        return box->now_us;
    }
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static speed_t speed_of(const char *baud)
{
    static const struct {
        const char *name;
        speed_t speed;
    } speeds[] = {{"9600", B9600}, {"57600", B57600}, {"115200", B115200}};
    size_t i;

    for (i = 0; i < sizeof speeds / sizeof speeds[0]; i++) {
        if (strcmp(speeds[i].name, baud) == 0) {
            return speeds[i].speed;
        }
    }
    stop(baud, "this speed is not known; use 9600, 57600 or 115200");
    return B0;
}

static int open_tty(const char *device, const char *baud)
{
    const int tty = open(device, O_RDWR | O_NOCTTY | O_NONBLOCK);
    struct termios line;

    if (tty < 0 || tcgetattr(tty, &line) != 0) {
        stop(device, strerror(errno));
    }
    cfmakeraw(&line);
    line.c_cflag |= CLOCAL;
    if (cfsetspeed(&line, speed_of(baud)) != 0 || tcsetattr(tty, TCSANOW, &line) != 0) {
        stop(device, strerror(errno));
    }
    return tty;
}

static void read_tty(box_t *box)
{
    uint8_t bytes[256];
    ssize_t size;

    while ((size = read(box->tty, bytes, sizeof bytes)) > 0) {
        swn_modem_feed(&box->modem, clock_us(box), bytes, (size_t)size);
        (void)swn_modem_poll(&box->modem, clock_us(box));
    }
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) {
        stop("the modem", "is gone; plug it in and start again");
    }
}

static void write_tty(box_t *box)
{
    uint8_t bytes[SWN_MODEM_LINE_MAX];
    size_t size;

    while ((size = swn_modem_take(&box->modem, bytes, sizeof bytes)) > 0) {
        size_t done = 0;

        while (done < size) {
            const ssize_t wrote = write(box->tty, bytes + done, size - done);
            struct pollfd ready = {box->tty, POLLOUT, 0};

            if (wrote < 0 && errno != EAGAIN && errno != EINTR) {
                stop("the modem", strerror(errno));
            }
            done += wrote > 0 ? (size_t)wrote : 0;
            if (wrote < 0) {
                (void)poll(&ready, 1, WAIT_MAX_MS);
            }
        }
    }
}

static void tell(box_t *box)
{
    const swn_modem_t *modem = &box->modem;

    if (modem->ready != box->told_ready) {
        printf(modem->ready ? "joined, payload %u\n" : "not joined, payload %u\n", (unsigned)box->node.config.payload_max);
    }
    if (modem->sent != box->told_sent || modem->received != box->told_received || modem->lost != box->told_lost) {
        printf("sent %" PRIu32 ", received %" PRIu32 ", lost %" PRIu32 ", round %u, model %u\n", modem->sent, modem->received,
               modem->lost, (unsigned)(box->node.round_known ? box->node.round : 0),
               (unsigned)box->node.parameters.model_version);
    }
    box->told_ready = modem->ready;
    box->told_sent = modem->sent;
    box->told_received = modem->received;
    box->told_lost = modem->lost;
}

/* Everything that is due; when to come back. */
static int64_t turn(box_t *box)
{
    const int64_t now_us = clock_us(box);
    int64_t modem_us, node_us;

    read_tty(box);
    (void)swn_modem_poll(&box->modem, now_us);
    node_us = swn_poll(&box->node, now_us);
    modem_us = swn_modem_poll(&box->modem, now_us);
    write_tty(box);
    tell(box);
    return modem_us < node_us ? modem_us : node_us;
}

/* The lines ---------------------------------------------------------------------------------------- */

static double number_or(const char *text, double scale, double missing)
{
    char *end;
    const double value = strtod(text, &end);

    return end == text || *end != '\0' ? missing : value * scale + (value < 0 ? -0.5 : 0.5);
}

static void on_reading(box_t *box, const char *temperature, const char *humidity, const char *rain, int hour)
{
    uint8_t risk[SWN_CLASSES_MAX];
    swn_sample_t sample;
    const double t = number_or(temperature, 100, SWN_TEMPERATURE_MISSING), h = number_or(humidity, 2, SWN_HUMIDITY_MISSING),
                 r = number_or(rain, 10, SWN_RAIN_MISSING);
    unsigned i;

    sample.temperature_centi = (int16_t)(t > -9000 && t < 9000 ? t : SWN_TEMPERATURE_MISSING);
    sample.humidity_half = (uint8_t)(h >= 0 && h <= SWN_HUMIDITY_MAX ? h : SWN_HUMIDITY_MISSING);
    sample.rain_tenth = (uint16_t)(r >= 0 && r < 5000 ? r : SWN_RAIN_MISSING);
    sample.hour = (uint8_t)hour;
    (void)swn_sense(&box->node, clock_us(box), &sample);
    swn_infer_own(&box->node, risk);
    printf("risk");
    for (i = 0; i < box->model.classes; i++) {
        printf(" %u%%", (risk[i] * 100u + 127u) / 255u);
    }
    printf("\n");
}

static int local_hour(void)
{
    const time_t now = time(NULL);
    struct tm local;

    return localtime_r(&now, &local) != NULL ? local.tm_hour : 0;
}

static void on_input(box_t *box, const char *line)
{
    char temperature[24], humidity[24], rain[24];
    int hour = local_hour();
    unsigned day, class;
    int64_t at_us;

    if (box->clock_from_input && sscanf(line, "at %" SCNd64, &at_us) == 1) {
        box->now_us = at_us > box->now_us ? at_us : box->now_us;
        printf("until %" PRId64 "\n", turn(box));
    } else if (sscanf(line, "reading %23s %23s %23s %d", temperature, humidity, rain, &hour) >= 3 && hour >= 0 && hour < 24) {
        on_reading(box, temperature, humidity, rain, hour);
    } else if (sscanf(line, "label %u %u", &day, &class) == 2 && day <= UINT16_MAX && class < SWN_CLASSES_MAX) {
        printf(swn_label(&box->node, (uint16_t)day, (uint8_t)class) ? "label taken\n" : "label of no day that waits for one\n");
    } else {
        printf("not understood: %s\n", line);
    }
}

static void read_input(box_t *box)
{
    char bytes[256];
    const ssize_t size = read(STDIN_FILENO, bytes, sizeof bytes);
    ssize_t i;

    box->input_ended = size == 0 || (size < 0 && errno != EINTR);
    for (i = 0; i < size; i++) {
        if (bytes[i] != '\n') {
            box->input[box->input_size] = bytes[i];
            box->input_size += box->input_size + 1 < sizeof box->input;
            continue;
        }
        box->input[box->input_size] = '\0';
        box->input_size = 0;
        on_input(box, box->input);
    }
    fflush(stdout);
}

static void run(box_t *box)
{
    while (!(box->input_ended && box->clock_from_input)) {
        struct pollfd inputs[2] = {{box->tty, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        int wait_ms = -1;

        if (!box->clock_from_input) {
            const int64_t wait_us = turn(box) - clock_us(box);
            wait_ms = wait_us > (int64_t)WAIT_MAX_MS * 1000 ? WAIT_MAX_MS : wait_us > 0 ? (int)(wait_us / 1000) + 1 : 0;
            fflush(stdout);
        }
        /* The input's clock decides when the modem is listened to; without input the modem alone wakes us. */
        inputs[0].fd = box->clock_from_input ? -1 : box->tty;
        inputs[1].fd = box->input_ended ? -1 : STDIN_FILENO;
        if (poll(inputs, 2, wait_ms) > 0 && (inputs[1].revents & (POLLIN | POLLHUP)) != 0) {
            read_input(box);
        }
    }
}

static void modem_config(box_t *box, swn_modem_config_t *config)
{
    static const swn_modem_config_t fixed = {
        .dialect = &SWN_DIALECT,
        .region = SWN_REGION,
        .dev_eui = SWN_DEV_EUI,
        .join_eui = SWN_JOIN_EUI,
#ifdef SWN_ACTIVATION_ABP
        .abp = 1,
        .dev_addr = SWN_DEV_ADDR,
        .nwk_s_key = SWN_NWK_S_KEY,
        .app_s_key = SWN_APP_S_KEY,
#else
        .app_key = SWN_APP_KEY,
#endif
        .mc_addr = SWN_MC_ADDR,
        .mc_nwk_s_key = SWN_MC_NWK_S_KEY,
        .mc_app_s_key = SWN_MC_APP_S_KEY,
        .mc_frequency_hz = SWN_MC_FREQUENCY_HZ,
        .mc_data_rate = SWN_MC_DATA_RATE,
        .data_rate = SWN_SLOWEST_DATA_RATE,
        .payload_max = SWN_PAYLOAD_MAX_AT_RATE,
        .always_on = (SWN_FLAGS & SWN_ALWAYS_ON) != 0,
        .seed = (uint32_t)(SWN_SEED ^ SWN_SEED >> 32),
    };

    *config = fixed;
    config->board = box;
    config->nvm_write = keep;
}

static const uint8_t *load(const char *path, size_t *size)
{
    static union {
        uint32_t aligned;
        uint8_t bytes[IMAGE_MAX];
    } image;
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        stop(path, strerror(errno));
    } else {
        *size = fread(image.bytes, 1, sizeof image.bytes, file);
        fclose(file);
    }
    return image.bytes;
}

int main(int argc, char **argv)
{
    static box_t box;
    const char *baud = "115200";
    swn_modem_config_t modem;
    swn_config_t config;
    const uint8_t *image;
    size_t size;
    int i;

    if (argc < 3 || (argc - 3) % 2 != 0) {
        stop("usage", "modem_node DEVICE MODEL.swm [--baud 115200] [--state DIR] [--clock stdin]");
    }
    for (i = 3; i < argc; i += 2) {
        if (strcmp(argv[i], "--baud") == 0) {
            baud = argv[i + 1];
        } else if (strcmp(argv[i], "--state") == 0) {
            box.state = argv[i + 1];
        } else if (strcmp(argv[i], "--clock") == 0 && strcmp(argv[i + 1], "stdin") == 0) {
            box.clock_from_input = 1;
        } else {
            stop(argv[i], "is not known; --baud, --state and --clock are");
        }
    }
    image = load(argv[2], &size);
    if (swn_model_open(&box.model, image, size) != SWN_OK) {
        stop(argv[2], "is no model container that this node can run");
    }
    box.tty = open_tty(argv[1], baud);
    modem_config(&box, &modem);
    swn_provisioned_node(&config);
    config.model = &box.model;
    if (swn_modem_init(&box.modem, &modem, &box.node, &box.port, clock_us(&box)) != 0) {
        stop(SWN_REGION, "this modem does not know the region, or cannot do ABP");
    }
    if (swn_init(&box.node, &config, &box.port, clock_us(&box)) != 0) {
        stop(SWN_NODE_NAME, "its header is out of range; provision it again");
    }
    recall(&box);
    printf("node %s, %s\n", SWN_NODE_NAME, argv[1]);
    fflush(stdout);
    run(&box);
    return 0;
}
