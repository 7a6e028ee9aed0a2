/* The model container: proof that an image is sound, then the interpreter of its program. */
#include "swn_model.h"

#include <string.h>

#include "swn_kernels.h"
#include "swn_math.h"

#define HEADER_SIZE 64u
#define OP_SIZE 16u
#define TENSOR_SIZE 20u
#define FRAGMENT_SIZE 20u
#define FORMAT_VERSION 1u
#define IMAGE_MAX 1048576u
#define TABLE_MAX 64u
#define FRAGMENT_NONE 0xFFFFu

enum op_code {
    OP_INPUT = 1,
    OP_DENSE4 = 2,
    OP_MATVEC8 = 3,
    OP_RELU = 4,
    OP_COPY = 5,
    OP_TOPK_GATE = 6,
    OP_EXPERT = 7,
    OP_ADAPTER = 8,
    OP_PROJECT = 9,
    OP_HEAD = 10,
    OP_END = 11
};
#define ENGINE_ISA 0x00000FFEu          /* bit n: op n is built in */
#define FLAG_WIDE 4u                    /* MATVEC8: 32-bit results */

enum tensor_type { TYPE_INT4 = 1, TYPE_INT8 = 2, TYPE_INT16 = 3 };
enum tensor_role { ROLE_WEIGHT = 1, ROLE_ADAPTER = 2, ROLE_HEAD = 3, ROLE_PRIOR = 4 };
enum fragment_state { STATE_PRESENT = 1, STATE_REMOTE = 2 };
#define KIND_EXPERT 4u
#define CONTEXT_SHARED 255u

typedef struct op {
    uint8_t code, flags, aux;
    uint16_t dst, src, src2, tensor, count;
} op_t;

typedef struct tensor {
    uint8_t type, role, context, shift;
    uint16_t rows, cols, fragment;
    uint32_t plane, scale;
} tensor_t;

typedef struct fragment {
    uint8_t kind, state;
    uint32_t offset, length, crc32;
} fragment_t;

static op_t read_op(const swn_model_t *view, size_t index)
{
    const uint8_t *p = view->ops + index * OP_SIZE;
    op_t op = { p[0], p[1], p[12], swn_get16(p + 2), swn_get16(p + 4), swn_get16(p + 6), swn_get16(p + 8),
                swn_get16(p + 10) };
    return op;
}

static tensor_t read_tensor(const swn_model_t *view, size_t index)
{
    const uint8_t *p = view->tensors + index * TENSOR_SIZE;
    tensor_t t = { p[0], p[1], p[16], p[17], swn_get16(p + 2), swn_get16(p + 4), swn_get16(p + 6),
                   swn_get32(p + 8), swn_get32(p + 12) };
    return t;
}

static fragment_t read_fragment(const swn_model_t *view, size_t index)
{
    const uint8_t *p = view->fragments + index * FRAGMENT_SIZE;
    fragment_t f = { p[0], p[1], swn_get32(p + 4), swn_get32(p + 8), swn_get32(p + 12) };
    return f;
}

/* ---- checking ---- */

/* Header and tables. The tables follow one another without gaps, so that there is one layout to check. */
static swn_status_t check_header(swn_model_t *view, const uint8_t *image, size_t size, uint32_t *data)
{
    if (((uintptr_t)image & 3u) != 0u) {
        return SWN_E_MISALIGNED;
    }
    if (size < HEADER_SIZE) {
        return SWN_E_TRUNCATED;
    }
    if (memcmp(image, "SWM1", 4) != 0) {
        return SWN_E_MAGIC;
    }
    if (swn_get16(image + 4) > FORMAT_VERSION) {
        return SWN_E_VERSION;
    }
    uint32_t total = swn_get32(image + 8);
    if (total > size) {
        return SWN_E_TRUNCATED;
    }
    if ((swn_get32(image + 52) & ~ENGINE_ISA) != 0u) {
        return SWN_E_ISA;
    }
    uint32_t n_ops = swn_get16(image + 26);
    uint32_t n_tensors = swn_get16(image + 28);
    uint32_t n_fragments = swn_get16(image + 30);
    if (n_ops > TABLE_MAX || n_tensors > TABLE_MAX || n_fragments > TABLE_MAX || total > IMAGE_MAX) {
        return SWN_E_HEADER;
    }
    uint32_t tensors = HEADER_SIZE + n_ops * OP_SIZE;
    uint32_t fragments = tensors + n_tensors * TENSOR_SIZE;
    uint32_t end = (fragments + n_fragments * FRAGMENT_SIZE + 15u) & ~15u;
    if (swn_get16(image + 4) != FORMAT_VERSION || swn_get16(image + 6) != HEADER_SIZE
        || swn_get32(image + 12) != 0u || swn_get32(image + 32) != HEADER_SIZE
        || swn_get32(image + 36) != tensors || swn_get32(image + 40) != fragments
        || swn_get32(image + 44) != end || end > total || swn_get16(image + 48) > SWN_ARENA_MAX) {
        return SWN_E_HEADER;
    }
    uint32_t crc = swn_crc32(swn_crc32(0, image, 60), image + HEADER_SIZE, end - HEADER_SIZE);
    if (crc != swn_get32(image + 60)) {
        return SWN_E_CRC;
    }
    memset(view, 0, sizeof *view);
    view->image = image;
    view->ops = image + HEADER_SIZE;
    view->tensors = image + tensors;
    view->fragments = image + fragments;
    view->crc32 = crc;
    view->generation = swn_get16(image + 24);
    view->n_ops = (uint16_t)n_ops;
    view->n_tensors = (uint16_t)n_tensors;
    view->n_fragments = (uint16_t)n_fragments;
    *data = end;
    return SWN_OK;
}

/* The present fragments tile the rest of the image, so that every byte is under one CRC. */
static swn_status_t check_fragments(const swn_model_t *view, uint32_t data)
{
    uint32_t total = swn_get32(view->image + 8);
    uint32_t cursor = data;
    for (size_t i = 0; i < view->n_fragments; i++) {
        fragment_t f = read_fragment(view, i);
        if (f.state == STATE_REMOTE) {
            if (f.kind != KIND_EXPERT || f.offset != 0u) {
                return SWN_E_FRAGMENT;
            }
            continue;
        }
        if (f.state != STATE_PRESENT || f.offset != cursor || f.length > total - cursor
            || (f.length & 15u) != 0u) {
            return SWN_E_FRAGMENT;
        }
        if (swn_crc32(0, view->image + f.offset, f.length) != f.crc32) {
            return SWN_E_CRC;
        }
        cursor += f.length;
    }
    return cursor == total ? SWN_OK : SWN_E_FRAGMENT;
}

static int are_classes(uint16_t rows)
{
    return rows >= 2u && rows <= SWN_CLASSES_MAX;
}

/* The bytes of a tensor's plane and of what stands beside it; 0 when type, role and shape do not agree. */
static uint32_t plane_size(const tensor_t *t, uint32_t *scale_size)
{
    uint32_t elements = (uint32_t)t->rows * t->cols;
    *scale_size = 0;
    switch (t->role) {
    case ROLE_WEIGHT:
        if (t->rows == 0u || t->rows > SWN_ROWS_MAX || (t->rows & 1u) != 0u || t->cols == 0u
            || t->cols > SWN_COLS_MAX || (t->cols & 15u) != 0u || t->shift < 1u || t->shift > 30u) {
            return 0;
        }
        *scale_size = 6u * t->rows;
        return t->type == TYPE_INT4 ? elements / 2u : t->type == TYPE_INT8 ? elements : 0u;
    case ROLE_ADAPTER:
        return t->type == TYPE_INT16 && t->rows == 2 * SWN_RANK && t->cols == SWN_HIDDEN ? 2u * elements : 0u;
    case ROLE_HEAD:
        return t->type == TYPE_INT16 && are_classes(t->rows) && t->cols == SWN_HEAD_ROW ? 2u * elements : 0u;
    case ROLE_PRIOR:
        *scale_size = 4u * t->rows;
        return t->type == TYPE_INT8 && are_classes(t->rows) && t->cols == SWN_Z ? elements : 0u;
    default:
        return 0;
    }
}

/* Biases and multipliers so small that no kernel can overflow. */
static int scales_bounded(const swn_model_t *view, const tensor_t *t)
{
    const uint8_t *bias = view->image + t->scale;
    const uint8_t *mult = bias + 4u * t->rows;
    for (size_t r = 0; r < t->rows; r++) {
        int32_t b = swn_signed32(swn_get32(bias + 4u * r));
        if (b > SWN_BIAS_MAX || b < -SWN_BIAS_MAX || swn_get16(mult + 2u * r) > SWN_MULT_MAX) {
            return 0;
        }
    }
    return 1;
}

/* Each tensor lies inside its fragment, behind the tensor before it. */
static swn_status_t check_tensors(const swn_model_t *view)
{
    uint32_t cursor = 0;
    for (size_t i = 0; i < view->n_tensors; i++) {
        tensor_t t = read_tensor(view, i);
        uint32_t scale_size;
        uint32_t size = plane_size(&t, &scale_size);
        if (size == 0u || t.fragment >= view->n_fragments) {
            return SWN_E_TENSOR;
        }
        fragment_t f = read_fragment(view, t.fragment);
        if (f.state == STATE_REMOTE) {
            if (t.plane != 0u || t.scale != 0u || t.role != ROLE_WEIGHT) {
                return SWN_E_TENSOR;
            }
            continue;
        }
        uint32_t end = f.offset + f.length;
        if ((t.plane & 15u) != 0u || t.plane < f.offset || t.plane < cursor || t.plane > end
            || size > end - t.plane) {
            return SWN_E_TENSOR;
        }
        cursor = t.plane + size;
        if (scale_size != 0u) {
            if ((t.scale & 3u) != 0u || t.scale < cursor || t.scale > end || scale_size > end - t.scale) {
                return SWN_E_TENSOR;
            }
            cursor = t.scale + scale_size;
            if (t.role == ROLE_WEIGHT && !scales_bounded(view, &t)) {
                return SWN_E_TENSOR;
            }
        } else if (t.scale != 0u) {
            return SWN_E_TENSOR;
        }
    }
    return SWN_OK;
}

static int in_arena(const swn_model_t *view, uint32_t offset, uint32_t size)
{
    uint32_t arena = swn_get16(view->image + 48);
    return offset <= arena && size <= arena - offset;
}

static int apart(uint32_t a, uint32_t a_size, uint32_t b, uint32_t b_size)
{
    return a + a_size <= b || b + b_size <= a;
}

/* A present weight tensor of the given type, its vectors inside the arena and not overlapping. */
static int matrix_fits(const swn_model_t *view, const op_t *op, size_t tensor, uint8_t type, uint32_t width)
{
    if (tensor >= view->n_tensors) {
        return 0;
    }
    tensor_t t = read_tensor(view, tensor);
    uint32_t out_size = t.rows * width;
    return t.role == ROLE_WEIGHT && t.type == type && in_arena(view, op->src, t.cols)
        && in_arena(view, op->dst, out_size) && apart(op->src, t.cols, op->dst, out_size)
        && (width == 1u || (op->dst & 3u) == 0u);
}

static int is_present(const swn_model_t *view, size_t tensor)
{
    return read_fragment(view, read_tensor(view, tensor).fragment).state == STATE_PRESENT;
}

/* Training takes 8 bits off the shift in its backward pass. */
static int is_projection(const swn_model_t *view, size_t tensor)
{
    tensor_t t = read_tensor(view, tensor);
    return t.rows == SWN_Z && t.cols == SWN_HIDDEN && t.shift >= 8u;
}

static int has_role(const swn_model_t *view, size_t tensor, uint8_t role)
{
    return tensor < view->n_tensors && read_tensor(view, tensor).role == role && is_present(view, tensor);
}

static int experts_fit(const swn_model_t *view, const op_t *op)
{
    if (op->count == 0u || op->count > TABLE_MAX || op->aux > 3u || (op->src2 & 3u) != 0u
        || !in_arena(view, op->src2 + op->aux * 8u, 8)) {
        return 0;
    }
    for (size_t i = 0; i < op->count; i++) {
        if (!matrix_fits(view, op, op->tensor + i, TYPE_INT4, 1)) {
            return 0;
        }
    }
    return 1;
}

static int heads_fit(const swn_model_t *view, const op_t *op)
{
    for (size_t i = 0; i < op->count; i++) {
        if (!has_role(view, op->tensor + i, ROLE_HEAD)) {
            return 0;
        }
    }
    return op->aux < op->count && in_arena(view, op->src, SWN_Z);
}

/* Inputs as the first layer reads them: up to a multiple of 16 columns. */
static uint32_t padded(uint16_t features)
{
    return (features + 15u) & ~15u;
}

/* The operands of one op. */
static int op_fits(const swn_model_t *view, const op_t *op)
{
    switch (op->code) {
    case OP_INPUT:
        return op->count >= 1u && op->count <= SWN_FEATURES_MAX && in_arena(view, op->dst, padded(op->count));
    case OP_DENSE4:
        return op->flags <= 3u && matrix_fits(view, op, op->tensor, TYPE_INT4, 1)
            && is_present(view, op->tensor);
    case OP_MATVEC8:
        return (op->flags <= 3u || op->flags == FLAG_WIDE)
            && matrix_fits(view, op, op->tensor, TYPE_INT8, op->flags == FLAG_WIDE ? 4 : 1)
            && is_present(view, op->tensor);
    case OP_RELU:
        return in_arena(view, op->dst, op->count);
    case OP_COPY:
        return in_arena(view, op->dst, op->count) && in_arena(view, op->src, op->count)
            && apart(op->src, op->count, op->dst, op->count);
    case OP_TOPK_GATE:
        return op->aux >= 1u && op->aux <= 4u && op->aux <= op->count && op->count <= TABLE_MAX
            && ((op->src | op->dst) & 3u) == 0u && in_arena(view, op->src, op->count * 4u)
            && in_arena(view, op->dst, op->aux * 8u) && apart(op->src, op->count * 4u, op->dst, op->aux * 8u);
    case OP_EXPERT:
        return experts_fit(view, op);
    case OP_ADAPTER:
        return has_role(view, op->tensor, ROLE_ADAPTER) && in_arena(view, op->src, SWN_HIDDEN)
            && in_arena(view, op->dst, SWN_HIDDEN) && apart(op->src, SWN_HIDDEN, op->dst, SWN_HIDDEN);
    case OP_PROJECT:
        return matrix_fits(view, op, op->tensor, TYPE_INT8, 1) && is_present(view, op->tensor)
            && is_projection(view, op->tensor);
    case OP_HEAD:
        return heads_fit(view, op);
    default:
        return op->code == OP_END;
    }
}

/* The program: INPUT first, ADAPTER, PROJECT, HEAD, END last and once, z handed from one to the next. */
static swn_status_t check_program(swn_model_t *view)
{
    if (view->n_ops < 5u) {
        return SWN_E_PROGRAM;
    }
    size_t tail = view->n_ops - 4u;
    for (size_t i = 0; i < view->n_ops; i++) {
        op_t op = read_op(view, i);
        if (op.code == 0u || op.code > OP_END) {
            return SWN_E_ISA;
        }
        if (!op_fits(view, &op)) {
            return SWN_E_OPERAND;
        }
        int in_place = i < tail ? op.code < OP_ADAPTER : op.code == OP_ADAPTER + (i - tail);
        if (!in_place || (i == 0u) != (op.code == OP_INPUT)) {
            return SWN_E_PROGRAM;
        }
    }
    view->adapter_op = (uint16_t)tail;
    view->project_op = (uint16_t)(tail + 1u);
    view->head_op = (uint16_t)(tail + 2u);
    op_t project = read_op(view, view->project_op);
    if (project.src != read_op(view, tail).dst || project.dst != read_op(view, view->head_op).src) {
        return SWN_E_PROGRAM;
    }
    return SWN_OK;
}

/* The image's own sizes, which heads and priors must agree on. */
static swn_status_t read_shape(swn_model_t *view)
{
    view->features = read_op(view, 0).count;
    view->classes = read_tensor(view, read_op(view, view->head_op).tensor).rows;
    for (size_t i = 0; i < view->n_tensors; i++) {
        tensor_t t = read_tensor(view, i);
        if ((t.role == ROLE_HEAD || t.role == ROLE_PRIOR) && t.rows != view->classes) {
            return SWN_E_TENSOR;
        }
    }
    return SWN_OK;
}

swn_status_t swn_model_open(swn_model_t *view, const uint8_t *image, size_t size)
{
    uint32_t data = 0;
    swn_status_t status = check_header(view, image, size, &data);
    if (status == SWN_OK) {
        status = check_fragments(view, data);
    }
    if (status == SWN_OK) {
        status = check_tensors(view);
    }
    if (status == SWN_OK) {
        status = check_program(view);
    }
    if (status == SWN_OK) {
        status = read_shape(view);
    }
    return status;
}

/* ---- running ---- */

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
