/* A node on a bare Cortex-M, in QEMU: the same core and the same modem port as on a board, told by lines over the UART what it
 * senses and what its modem says.
 *
 *   now MICROSECONDS    the time of what follows
 *   hear HEX            bytes from the modem
 *   at MICROSECONDS     everything that is due is done: "say HEX" for the modem, then "until MICROSECONDS"
 *   quit                QEMU ends with status 0
 *
 * and the lines of swn_console.h. The machine has 64 KB of RAM; the model is read in flash.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "swn_console.h"

enum { INPUT_MAX = 2048 };

/* The CMSDK UART 0 of the MPS2 boards. */
typedef struct uart {
    volatile uint32_t data;
    volatile uint32_t state;
    volatile uint32_t control;
    volatile uint32_t interrupts;
    volatile uint32_t baud_divider;
} uart_t;
#define UART ((uart_t *)0x40004000u)
enum { UART_TX_FULL = 1, UART_RX_FULL = 2, UART_ON = 3 };

extern const uint8_t model_begin[];
extern const uint8_t model_end[];
__asm__(".section .rodata\n.balign 16\nmodel_begin:\n.incbin \"" SWN_IMAGE "\"\nmodel_end:\n.balign 4\n.text\n");

extern uint32_t stack_top[];
extern uint32_t bss_begin[];
extern uint32_t bss_end[];
void reset(void);

/* The first two words of a Cortex-M's memory. */
typedef struct vectors {
    uint32_t *stack;
    void (*reset)(void);
} vectors_t;
__attribute__((section(".vectors"), used)) static const vectors_t VECTORS = {stack_top, reset};

static swn_console_t console;
static char input[INPUT_MAX];

static void put(const char *text, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        while (UART->state & UART_TX_FULL) {
        }
        UART->data = (uint8_t)text[i];
    }
}

static void put_text(const char *text)
{
    put(text, strlen(text));
}

static void print(void *board, const char *line, size_t size)
{
    (void)board;
    put(line, size);
}

static size_t get_line(void)
{
    size_t size = 0;

    for (;;) {
        char c;

        while (!(UART->state & UART_RX_FULL)) {
        }
        c = (char)UART->data;
        if (c == '\n') {
            return size;
        }
        input[size] = c;
        size += size + 1 < sizeof input;
    }
}

/* Semihosting: SYS_EXIT, the application ended as it should. */
static void leave(void)
{
    register uint32_t operation __asm__("r0") = 0x18;
    register uint32_t reason __asm__("r1") = 0x20026;

    __asm__ volatile("bkpt 0xAB" : : "r"(operation), "r"(reason) : "memory");
}

static void say_until(int64_t until_us)
{
    char digits[24];
    size_t at = sizeof digits;

    digits[--at] = '\0';
    digits[--at] = '\n';
    do {
        digits[--at] = (char)('0' + until_us % 10);
        until_us /= 10;
    } while (until_us > 0);
    put_text("until ");
    put_text(digits + at);
}

static void turn(int64_t now_us)
{
    const int64_t until_us = swn_console_turn(&console, now_us);
    uint8_t bytes[64];
    size_t size;

    while ((size = swn_modem_take(&console.modem, bytes, sizeof bytes)) > 0) {
        swn_modem_text_t *out = &console.out;

        swn_modem_say(out, "say ");
        swn_modem_say_hex(out, bytes, size);
        swn_modem_say(out, "\n");
        put(out->text, out->size);
        out->size = 0;
    }
    say_until(until_us);
}

/* A line in hex may be longer than a downlink: it is given on in pieces. */
static void hear(int64_t now_us, const char *hex, size_t size)
{
    size_t at;

    for (at = 0; at + 1 < size; at += 2) {
        size_t begin = 0;
        uint8_t byte;
        uint8_t count;

        if (swn_modem_hex(hex + at, 2, &begin, &byte, 1, &count)) {
            swn_modem_feed(&console.modem, now_us, &byte, 1);
            (void)swn_modem_poll(&console.modem, now_us);
        }
    }
}

static void live(void)
{
    int64_t now_us = 0;
    int64_t at_us;

    for (;;) {
        const size_t size = get_line();

        if (swn_console_number(input, size, "now", &now_us)) {
            continue;
        }
        if (swn_console_number(input, size, "at", &at_us)) {
            now_us = at_us;
            turn(now_us);
        } else if (swn_modem_starts(input, size, "hear ")) {
            hear(now_us, input + 5, size - 5);
        } else if (swn_modem_is(input, size, "quit")) {
            leave();
        } else {
            swn_console_line(&console, now_us, input, size, 0);
        }
    }
}

void reset(void)
{
    const swn_console_config_t config = {model_begin, (size_t)(model_end - model_begin), NULL, print, NULL, NULL};
    const char *why;

    memset(bss_begin, 0, (size_t)((uint8_t *)bss_end - (uint8_t *)bss_begin));
    UART->baud_divider = 16;
    UART->control = UART_ON;
    why = swn_console_init(&console, &config, 0);
    if (why != NULL) {
        put_text(why);
        put_text("\n");
        leave();
    }
    put_text("node ");
    put_text(swn_console_name());
    put_text("\n");
    live();
}
