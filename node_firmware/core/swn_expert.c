/* Bytes of expert questions; see swn_expert.h. */
#include "swn_expert.h"

#include <string.h>

#include "swn_math.h"

enum { REPLY_SIZE = 4 + SWN_COARSE_SIZE, QUERY_SIZE = 10 + SWN_COARSE_SIZE };
enum { WEIGHT_ONE = 256, NIBBLE_MAX = 15, PER_HUNDRED_PERCENT = 255 };

static void put16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)(value & 0xFFu);
    out[1] = (uint8_t)(value >> 8);
}

void swn_coarse_put(const int8_t values[SWN_HIDDEN], uint8_t out[SWN_COARSE_SIZE])
{
    int low = values[0];
    int high = values[0];
    int step;
    unsigned i;

    for (i = 1; i < SWN_HIDDEN; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    step = (high - low + NIBBLE_MAX - 1) / NIBBLE_MAX;
    step = step < 1 ? 1 : step;
    out[0] = (uint8_t)low;
    out[1] = (uint8_t)step;
    for (i = 0; i < SWN_HIDDEN; i += 2) {
        const int even = (values[i] - low + step / 2) / step;
        const int odd = (values[i + 1] - low + step / 2) / step;
        out[2 + i / 2] = (uint8_t)(even | odd << 4);
    }
}

void swn_coarse_get(const uint8_t coarse[SWN_COARSE_SIZE], int8_t values[SWN_HIDDEN])
{
    const int low = coarse[0] < 128 ? coarse[0] : coarse[0] - 256;
    unsigned i;

    for (i = 0; i < SWN_HIDDEN; i++) {
        const int value = low + coarse[1] * (coarse[2 + i / 2] >> (i % 2 * 4) & 15);
        values[i] = (int8_t)(value > INT8_MAX ? INT8_MAX : value);
    }
}

size_t swn_frame_ask(const swn_ask_message_t *message, uint8_t *out, size_t room)
{
    const swn_routing_t *routing = message->routing;

    if (room < SWN_ASK_SIZE || routing->missing == 0 || routing->missing > 3 ||
        routing->picks[0] >= SWN_EXPERTS_MAX || routing->picks[1] >= SWN_EXPERTS_MAX) {
        return 0;
    }
    out[0] = 2;
    put16(out + 1, message->ask_id);
    put16(out + 3, message->generation);
    out[5] = routing->picks[0];
    out[6] = routing->picks[1];
    out[7] = (uint8_t)routing->weights[1];
    out[8] = routing->missing;
    out[9] = message->label;
    out[10] = message->probability;
    swn_coarse_put(routing->input, out + 11);
    return SWN_ASK_SIZE;
}

size_t swn_frame_output(uint16_t query_id, uint16_t generation, uint8_t done, const int8_t contribution[SWN_HIDDEN],
                        uint8_t *out, size_t room)
{
    if (room < SWN_OUTPUT_SIZE || done == 0 || done > 3) {
        return 0;
    }
    out[0] = 3;
    put16(out + 1, query_id);
    put16(out + 3, generation);
    out[5] = done;
    swn_coarse_put(contribution, out + 6);
    return SWN_OUTPUT_SIZE;
}

size_t swn_frame_experts(const swn_experts_message_t *message, uint8_t *out, size_t room)
{
    uint32_t total = 0;
    unsigned i;

    if (message->count == 0 || message->count > SWN_EXPERTS_MAX || room < SWN_EXPERTS_HEADER + (size_t)message->count ||
        message->held >> message->count != 0) {
        return 0;
    }
    out[0] = 4;
    put16(out + 1, message->generation);
    out[3] = message->flags;
    put16(out + 4, message->held);
    out[6] = message->count;
    for (i = 0; i < message->count; i++) {
        total += message->seen[i];
    }
    for (i = 0; i < message->count; i++) {
        const uint32_t share = total == 0 ? 0 : message->seen[i] * (uint32_t)PER_HUNDRED_PERCENT / total;
        out[SWN_EXPERTS_HEADER + i] = (uint8_t)share;
    }
    return SWN_EXPERTS_HEADER + (size_t)message->count;
}

uint8_t swn_read_reply(const uint8_t *data, size_t size, swn_reply_t *out)
{
    if (size != REPLY_SIZE) {
        return 0;
    }
    out->ask_id = swn_get16(data + 1);
    out->flags = data[3];
    out->contribution = data + 4;
    return 1;
}

uint8_t swn_read_expert_query(const uint8_t *data, size_t size, swn_expert_query_t *out)
{
    if (size != QUERY_SIZE || data[5] >= SWN_EXPERTS_MAX || data[6] >= SWN_EXPERTS_MAX || data[5] == data[6] ||
        data[7] > WEIGHT_ONE / 2 || data[8] == 0 || data[8] > 3) {
        return 0;
    }
    out->query_id = swn_get16(data + 1);
    out->generation = swn_get16(data + 3);
    out->routing.picks[0] = data[5];
    out->routing.picks[1] = data[6];
    out->routing.weights[0] = (uint16_t)(WEIGHT_ONE - data[7]);
    out->routing.weights[1] = data[7];
    out->routing.missing = data[8];
    out->reply_in_s = data[9];
    swn_coarse_get(data + 10, out->routing.input);
    return 1;
}
