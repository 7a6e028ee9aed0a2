/* The model container: proof that an image is sound. */
#include "swn_model.h"

#include <string.h>

#include "swn_image.h"
#include "swn_kernels.h"
#include "swn_math.h"

#define HEADER_SIZE 64u
#define FORMAT_VERSION 1u
#define IMAGE_MAX 1048576u
#define TABLE_MAX 64u
#define ENGINE_ISA 0x00000FFEu          /* bit n: op n is built in */
#define KIND_EXPERT 4u

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

/* All of a record but where its bytes lie. */
static int is_same_tensor(const tensor_t *a, const tensor_t *b)
{
    return a->type == b->type && a->role == b->role && a->rows == b->rows && a->cols == b->cols &&
           a->fragment == b->fragment && a->context == b->context && a->shift == b->shift;
}

uint8_t swn_model_is_same(const swn_model_t *view, const swn_model_t *other)
{
    if (view->generation != other->generation || view->n_ops != other->n_ops ||
        view->n_tensors != other->n_tensors || view->n_fragments != other->n_fragments ||
        memcmp(view->ops, other->ops, view->n_ops * (size_t)OP_SIZE) != 0) {
        return 0;
    }
    for (size_t i = 0; i < view->n_tensors; i++) {
        const tensor_t a = read_tensor(view, i);
        const tensor_t b = read_tensor(other, i);
        if (!is_same_tensor(&a, &b)) {
            return 0;
        }
    }
    for (size_t i = 0; i < view->n_fragments; i++) {
        const fragment_t a = read_fragment(view, i);
        const fragment_t b = read_fragment(other, i);
        if (a.kind != b.kind || a.length != b.length || a.crc32 != b.crc32) {
            return 0;
        }
    }
    return 1;
}
