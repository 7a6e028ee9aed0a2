/* A node on a Linux box: the core, and a LoRaWAN modem at a serial line.
 *
 *   modem_node DEVICE MODEL.swm [--baud 115200] [--state DIR] [--clock stdin]
 *
 * Readings and labels come in lines on the standard input, see swn_console.h; with --clock stdin, for replays and tests, the
 * time too: "at MICROSECONDS", answered by "until MICROSECONDS" when everything that is due was done. What happens is told
 * in lines on the standard output. DIR keeps what the node learned over a restart, and is its flash for large blocks.
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

#include "file_flash.h"
#include "swn_console.h"

enum { IMAGE_MAX = 1 << 20, INPUT_MAX = 160, WAIT_MAX_MS = 60000, PATH_SIZE = 512 };

typedef struct box {
    swn_console_t console;
    file_flash_t flash;
    const char *state; /* NULL: nothing is kept, and no large block is taken */
    int64_t now_us;
    int clock_from_input;
    int tty;
    int input_ended;
    size_t input_size;
    char input[INPUT_MAX];
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

    for (key = SWN_NVM_PARAMETERS; box->state != NULL && key <= SWN_NVM_LAST; key++) {
        char path[PATH_SIZE];
        FILE *file;

        name_of(box, key, "", path);
        file = fopen(path, "rb");
        if (file != NULL) {
            const size_t size = fread(bytes, 1, sizeof bytes, file);
            const uint8_t is_there = (uint8_t)(key != SWN_NVM_STORED || file_flash_holds(&box->flash, bytes, size));
            const uint8_t is_taken = (uint8_t)(is_there && swn_recall(&box->console.node, key, bytes, size));
            printf("recalled %u %s\n", (unsigned)key, is_taken ? "ok" : is_there ? "of another version" : "of a block that is not whole");
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
        swn_modem_feed(&box->console.modem, clock_us(box), bytes, (size_t)size);
        (void)swn_modem_poll(&box->console.modem, clock_us(box));
    }
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) {
        stop("the modem", "is gone; plug it in and start again");
    }
}

static void write_tty(box_t *box)
{
    uint8_t bytes[SWN_MODEM_LINE_MAX];
    size_t size;

    while ((size = swn_modem_take(&box->console.modem, bytes, sizeof bytes)) > 0) {
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

/* A block that is whole: its model is run if only its experts are others. */
static uint8_t look_at_flash(box_t *box)
{
    switch (file_flash_turn(&box->flash, &box->console.node, clock_us(box))) {
    case FILE_FLASH_TAKEN_UP:
        swn_console_tell_experts(&box->console);
        return 1;
    case FILE_FLASH_OTHER:
        printf("another model came: start with it in the place of MODEL.swm, and another --state\n");
        break;
    case FILE_FLASH_FAILED:
        stop(box->flash.model, strerror(errno));
        break;
    case FILE_FLASH_NOTHING:
        break;
    }
    return 0;
}

/* Everything that is due; when to come back. */
static int64_t turn(box_t *box)
{
    int64_t until_us;

    read_tty(box);
    until_us = swn_console_turn(&box->console, clock_us(box));
    if (box->state != NULL && look_at_flash(box)) {
        until_us = swn_console_turn(&box->console, clock_us(box)); /* it has something to say */
    }
    write_tty(box);
    return until_us;
}

/* The lines ---------------------------------------------------------------------------------------- */

static void print(void *board, const char *line, size_t size)
{
    (void)board;
    (void)fwrite(line, 1, size, stdout);
}

static uint8_t local_hour(void)
{
    const time_t now = time(NULL);
    struct tm local;

    return (uint8_t)(localtime_r(&now, &local) != NULL ? local.tm_hour : 0);
}

static void on_input(box_t *box, const char *line, size_t size)
{
    int64_t at_us;

    if (box->clock_from_input && swn_console_number(line, size, "at", &at_us)) {
        box->now_us = at_us > box->now_us ? at_us : box->now_us;
        printf("until %" PRId64 "\n", turn(box));
    } else {
        swn_console_line(&box->console, clock_us(box), line, size, local_hour());
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
        on_input(box, box->input, box->input_size);
        box->input_size = 0;
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
    const char *why;
    swn_console_config_t config = {NULL, 0, &box, print, keep, NULL};
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
    config.image = load(argv[2], &config.image_size);
    if (box.state != NULL) {
        why = file_flash_open(&box.flash, box.state);
        if (why != NULL) {
            stop(box.state, why);
        }
        config.image = file_flash_image(&box.flash, box.state, config.image, &config.image_size);
        config.receive = &box.flash.receive;
    }
    why = swn_console_init(&box.console, &config, clock_us(&box));
    if (why != NULL) {
        stop(argv[2], why);
    }
    box.tty = open_tty(argv[1], baud);
    recall(&box);
    printf("node %s, %s\n", swn_console_name(), argv[1]);
    fflush(stdout);
    run(&box);
    return 0;
}
