/* The interpreter of a checked model's program: trunk, gate, experts, projection, heads. */
#include "swn_model.h"

#include <string.h>

#include "swn_image.h"
#include "swn_kernels.h"
#include "swn_math.h"

typedef union arena {
    int32_t words[SWN_ARENA_MAX / 4];
    int8_t bytes[SWN_ARENA_MAX];
} arena_t;

static swn_matrix_t matrix(const swn_model_t *view, size_t tensor)
{
    tensor_t t = read_tensor(view, tensor);
    const uint8_t *bias = view->image + t.scale;
    swn_matrix_t m = { view->image + t.plane, bias, bias + 4u * t.rows, t.rows, t.cols, t.shift };
    return m;
}

/* The k largest logits, ties to the lower index, as pairs (index, weight); the weights are the softmax over
 * the chosen ones in Q8 and sum to 256. */
static void topk_gate(const int32_t *logits, size_t n, int32_t *picks, size_t k)
{
    int32_t sum = 0;
    for (size_t slot = 0; slot < k; slot++) {
        size_t best = n;
        for (size_t i = 0; i < n; i++) {
            int taken = 0;
            for (size_t s = 0; s < slot; s++) {
                taken |= picks[2u * s] == (int32_t)i;
            }
            if (!taken && (best == n || logits[i] > logits[best])) {
                best = i;
            }
        }
        picks[2u * slot] = (int32_t)best;
        picks[2u * slot + 1u] = swn_exp_neg_q15(logits[picks[0]] - logits[best]);
        sum += picks[2u * slot + 1u];
    }
    int32_t rest = 256;
    for (size_t slot = k - 1u; slot > 0u; slot--) {
        picks[2u * slot + 1u] = picks[2u * slot + 1u] * 256 / sum;
        rest -= picks[2u * slot + 1u];
    }
    picks[1] = rest;
}

static int is_withheld(const swn_model_t *view, size_t expert)
{
    return expert < SWN_EXPERTS_MAX && (view->withheld >> expert & 1u) != 0u;
}

static int holds(const swn_model_t *view, const op_t *op, size_t expert)
{
    return !is_withheld(view, expert) && is_present(view, op->tensor + expert);
}

/* One chosen expert, added to dst by its weight. Returns 1 when it is remote and was left out. */
static uint8_t run_expert(const swn_model_t *view, const op_t *op, arena_t *arena)
{
    const int32_t *pick = arena->words + op->src2 / 4u + op->aux * 2u;
    /* The pick lies in the arena, which another op may have overwritten: checked here, at run time. */
    if (pick[0] < 0 || pick[0] >= (int32_t)op->count || pick[1] < 0 || pick[1] > 256) {
        return 1;
    }
    if (!holds(view, op, (size_t)pick[0])) {
        return 1;
    }
    swn_matrix_t m = matrix(view, op->tensor + (size_t)pick[0]);
    swn_matvec4(&m, arena->bytes + op->src, arena->bytes + op->dst, SWN_OUT_RELU | SWN_OUT_ADD, pick[1]);
    return 0;
}

static void run_matvec8(const swn_model_t *view, const op_t *op, arena_t *arena)
{
    swn_matrix_t m = matrix(view, op->tensor);
    if (op->flags == FLAG_WIDE) {
        swn_matvec8_wide(&m, arena->bytes + op->src, arena->words + op->dst / 4u);
    } else {
        swn_matvec8(&m, arena->bytes + op->src, arena->bytes + op->dst, op->flags);
    }
}

static void relu(int8_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = values[i] < 0 ? 0 : values[i];
    }
}

static void note_picks(const op_t *op, const arena_t *arena, swn_routing_t *routing)
{
    const int32_t *picks = arena->words + op->dst / 4u;
    for (size_t slot = 0; slot < SWN_TOP_K && slot < op->aux; slot++) {
        routing->picks[slot] = (uint8_t)picks[2u * slot];
        routing->weights[slot] = (uint16_t)picks[2u * slot + 1u];
    }
}

static uint8_t route_expert(const swn_model_t *view, const op_t *op, arena_t *arena, swn_routing_t *routing)
{
    uint8_t missing = run_expert(view, op, arena);
    if (missing && op->aux < SWN_TOP_K) {
        routing->missing = (uint8_t)(routing->missing | 1u << op->aux);
    }
    if (in_arena(view, op->src, SWN_HIDDEN)) {
        memcpy(routing->input, arena->bytes + op->src, SWN_HIDDEN);
    }
    return missing;
}

uint8_t swn_route(const swn_model_t *view, const int8_t *x, int8_t hidden[SWN_HIDDEN], swn_routing_t *routing)
{
    arena_t arena;
    uint8_t missing = 0;
    memset(&arena, 0, sizeof arena);
    memset(routing, 0, sizeof *routing);
    memset(routing->picks, SWN_NO_EXPERT, SWN_TOP_K);
    for (size_t i = 0; i < view->adapter_op; i++) {
        op_t op = read_op(view, i);
        int8_t *dst = arena.bytes + op.dst;
        swn_matrix_t m;
        switch (op.code) {
        case OP_INPUT:
            memcpy(dst, x, op.count); /* the arena is zero up to the padded size */
            break;
        case OP_DENSE4:
            m = matrix(view, op.tensor);
            swn_matvec4(&m, arena.bytes + op.src, dst, op.flags, 256);
            break;
        case OP_MATVEC8:
            run_matvec8(view, &op, &arena);
            break;
        case OP_RELU:
            relu(dst, op.count);
            break;
        case OP_COPY:
            memcpy(dst, arena.bytes + op.src, op.count);
            break;
        case OP_TOPK_GATE:
            topk_gate(arena.words + op.src / 4u, op.count, arena.words + op.dst / 4u, op.aux);
            note_picks(&op, &arena, routing);
            break;
        default: /* check_program lets only OP_EXPERT come here */
            missing = (uint8_t)(missing + route_expert(view, &op, &arena, routing));
            break;
        }
    }
    memcpy(hidden, arena.bytes + read_op(view, view->adapter_op).src, SWN_HIDDEN);
    return missing;
}

uint8_t swn_features_to_hidden(const swn_model_t *view, const int8_t *x,
                               int8_t hidden[SWN_HIDDEN], uint8_t top_experts[SWN_TOP_K])
{
    swn_routing_t routing;
    uint8_t missing = swn_route(view, x, hidden, &routing);
    memcpy(top_experts, routing.picks, SWN_TOP_K);
    return missing;
}

/* ---- experts, one by one ---- */

/* The index of the first EXPERT op; the ADAPTER op's where there is none. */
static size_t first_expert_op(const swn_model_t *view)
{
    size_t i = 0;
    while (i < view->adapter_op && read_op(view, i).code != OP_EXPERT) {
        i++;
    }
    return i;
}

uint8_t swn_model_can_ask(const swn_model_t *view)
{
    size_t first = first_expert_op(view);
    op_t adapter = read_op(view, view->adapter_op);
    op_t model = read_op(view, first);
    size_t gates = 0;
    for (size_t i = 0; i < first; i++) {
        op_t op = read_op(view, i);
        gates += op.code == OP_TOPK_GATE && op.aux == SWN_TOP_K;
    }
    for (size_t i = first; i < view->adapter_op; i++) {
        op_t op = read_op(view, i);
        if (op.code != OP_EXPERT || op.dst != adapter.src || op.src != model.src || op.tensor != model.tensor
            || op.count != model.count || op.aux != i - first) {
            return 0;
        }
    }
    for (size_t e = 0; e < model.count && first < view->adapter_op; e++) {
        tensor_t t = read_tensor(view, model.tensor + e);
        if (t.rows != SWN_HIDDEN || t.cols != SWN_HIDDEN) {
            return 0;
        }
    }
    return (uint8_t)(gates == 1u && view->adapter_op - first == SWN_TOP_K && model.count <= SWN_EXPERTS_MAX);
}

uint8_t swn_model_experts(const swn_model_t *view)
{
    size_t first = first_expert_op(view);
    uint16_t count = first < view->adapter_op ? read_op(view, first).count : 0;
    return (uint8_t)(count <= SWN_EXPERTS_MAX ? count : 0);
}

uint16_t swn_model_held(const swn_model_t *view)
{
    op_t op = read_op(view, first_expert_op(view));
    uint16_t held = 0;
    for (size_t e = 0; e < swn_model_experts(view); e++) {
        held = (uint16_t)(holds(view, &op, e) ? held | 1u << e : held);
    }
    return held;
}

uint8_t swn_contribute(const swn_model_t *view, const swn_routing_t *routing, int8_t contribution[SWN_HIDDEN])
{
    op_t op = read_op(view, first_expert_op(view));
    uint8_t done = 0;
    memset(contribution, 0, SWN_HIDDEN);
    for (size_t slot = 0; slot < SWN_TOP_K && swn_model_can_ask(view); slot++) {
        uint8_t expert = routing->picks[slot];
        if ((routing->missing >> slot & 1u) == 0u || expert >= op.count || !holds(view, &op, expert)
            || routing->weights[slot] > 256u) {
            continue;
        }
        swn_matrix_t m = matrix(view, op.tensor + (size_t)expert);
        swn_matvec4(&m, routing->input, contribution, SWN_OUT_RELU | SWN_OUT_ADD, routing->weights[slot]);
        done = (uint8_t)(done | 1u << slot);
    }
    return done;
}

swn_matrix_t swn_model_projection(const swn_model_t *view)
{
    return matrix(view, read_op(view, view->project_op).tensor);
}

void swn_hidden_to_z(const swn_model_t *view, const int16_t *adapter, const int8_t hidden[SWN_HIDDEN],
                     int8_t z[SWN_Z])
{
    swn_matrix_t m = swn_model_projection(view);
    int8_t adapted[SWN_HIDDEN];
    if (adapter == NULL) {
        swn_matvec8(&m, hidden, z, 0);
        return;
    }
    int16_t low[SWN_RANK];
    swn_adapter_down(adapter, hidden, low);
    swn_adapter_up(adapter, low, hidden, adapted);
    swn_matvec8(&m, adapted, z, 0);
}

/* ---- heads ---- */

static void copy_int16(const uint8_t *bytes, int16_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = swn_signed16(swn_get16(bytes + 2u * i));
    }
}

int swn_model_head(const swn_model_t *view, uint8_t context, int16_t *out)
{
    op_t op = read_op(view, view->head_op);
    size_t chosen = op.tensor + (size_t)op.aux;
    int known = 0;
    for (size_t i = 0; i < op.count && context != CONTEXT_SHARED; i++) {
        if (read_tensor(view, op.tensor + i).context == context) {
            chosen = op.tensor + i;
            known = 1;
        }
    }
    copy_int16(view->image + read_tensor(view, chosen).plane, out, swn_head_size(view));
    return known;
}

void swn_model_adapter(const swn_model_t *view, int16_t out[SWN_ADAPTER_SIZE])
{
    tensor_t t = read_tensor(view, read_op(view, view->adapter_op).tensor);
    copy_int16(view->image + t.plane, out, SWN_ADAPTER_SIZE);
}

int swn_model_prior(const swn_model_t *view, uint8_t context, int8_t mean[SWN_CLASSES_MAX][SWN_Z],
                    uint32_t count[SWN_CLASSES_MAX])
{
    for (size_t i = 0; i < view->n_tensors; i++) {
        tensor_t t = read_tensor(view, i);
        if (t.role == ROLE_PRIOR && t.context == context && is_present(view, i)) {
            memcpy(mean, view->image + t.plane, (size_t)t.rows * SWN_Z);
            for (size_t c = 0; c < t.rows; c++) {
                count[c] = swn_get32(view->image + t.scale + 4u * c);
            }
            return 1;
        }
    }
    return 0;
}
