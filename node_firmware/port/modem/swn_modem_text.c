/* Text for and from modems, without stdio: see swn_modem.h. */
#include <string.h>

#include "swn_modem.h"

void swn_modem_say(swn_modem_text_t *out, const char *text)
{
    const size_t size = strlen(text);

    if (size > sizeof out->text - out->size) {
        out->full = 1;
        return;
    }
    memcpy(out->text + out->size, text, size);
    out->size += size;
}

void swn_modem_say_number(swn_modem_text_t *out, uint32_t value)
{
    char digits[11];
    size_t at = sizeof digits - 1;

    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value > 0);
    swn_modem_say(out, digits + at);
}

void swn_modem_say_hex(swn_modem_text_t *out, const uint8_t *bytes, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t i;

    for (i = 0; i < size; i++) {
        const char pair[3] = {digits[bytes[i] >> 4], digits[bytes[i] & 15u], '\0'};
        swn_modem_say(out, pair);
    }
}

void swn_modem_say_setting(swn_modem_text_t *out, const char *name, const uint8_t *bytes, size_t size)
{
    swn_modem_say(out, name);
    swn_modem_say_hex(out, bytes, size);
}

void swn_modem_say_address(swn_modem_text_t *out, uint32_t address)
{
    const uint8_t bytes[4] = {(uint8_t)(address >> 24), (uint8_t)(address >> 16), (uint8_t)(address >> 8), (uint8_t)address};

    swn_modem_say_hex(out, bytes, sizeof bytes);
}

uint8_t swn_modem_starts(const char *line, size_t size, const char *prefix)
{
    const size_t length = strlen(prefix);

    return (uint8_t)(size >= length && memcmp(line, prefix, length) == 0);
}

uint8_t swn_modem_is(const char *line, size_t size, const char *text)
{
    return (uint8_t)(size == strlen(text) && swn_modem_starts(line, size, text));
}

uint8_t swn_modem_number(const char *line, size_t size, size_t *at, uint8_t *minus, uint32_t *value)
{
    const size_t digits_max = 9;
    size_t begin;

    if (minus != NULL) {
        *minus = (uint8_t)(*at < size && line[*at] == '-');
        *at += *minus;
    }
    *value = 0;
    for (begin = *at; *at < size && line[*at] >= '0' && line[*at] <= '9'; (*at)++) {
        if (*at - begin == digits_max) {
            return 0;
        }
        *value = *value * 10u + (uint32_t)(line[*at] - '0');
    }
    return (uint8_t)(*at > begin);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

uint8_t swn_modem_hex(const char *line, size_t size, size_t *at, uint8_t *bytes, size_t bytes_max, uint8_t *count)
{
    *count = 0;
    while (*at < size) {
        const int high = hex_digit(line[*at]);
        const int low = *at + 1 < size ? hex_digit(line[*at + 1]) : -1;

        if (high < 0 || low < 0 || *count == bytes_max) {
            return 0;
        }
        bytes[(*count)++] = (uint8_t)(high << 4 | low);
        *at += 2;
    }
    return (uint8_t)(*count > 0);
}
