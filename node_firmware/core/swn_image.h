/* The records of a container's image, as the checks (swn_model.c) and the interpreter (swn_run.c) read them. */
#ifndef SWN_IMAGE_H
#define SWN_IMAGE_H

#include "swn_math.h"
#include "swn_model.h"

#define OP_SIZE 16u
#define TENSOR_SIZE 20u
#define FRAGMENT_SIZE 20u

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
#define FLAG_WIDE 4u                    /* MATVEC8: 32-bit results */

enum tensor_type { TYPE_INT4 = 1, TYPE_INT8 = 2, TYPE_INT16 = 3 };
enum tensor_role { ROLE_WEIGHT = 1, ROLE_ADAPTER = 2, ROLE_HEAD = 3, ROLE_PRIOR = 4 };
enum fragment_state { STATE_PRESENT = 1, STATE_REMOTE = 2 };
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

static inline op_t read_op(const swn_model_t *view, size_t index)
{
    const uint8_t *p = view->ops + index * OP_SIZE;
    op_t op = { p[0], p[1], p[12], swn_get16(p + 2), swn_get16(p + 4), swn_get16(p + 6), swn_get16(p + 8),
                swn_get16(p + 10) };
    return op;
}

static inline tensor_t read_tensor(const swn_model_t *view, size_t index)
{
    const uint8_t *p = view->tensors + index * TENSOR_SIZE;
    tensor_t t = { p[0], p[1], p[16], p[17], swn_get16(p + 2), swn_get16(p + 4), swn_get16(p + 6),
                   swn_get32(p + 8), swn_get32(p + 12) };
    return t;
}

static inline fragment_t read_fragment(const swn_model_t *view, size_t index)
{
    const uint8_t *p = view->fragments + index * FRAGMENT_SIZE;
    fragment_t f = { p[0], p[1], swn_get32(p + 4), swn_get32(p + 8), swn_get32(p + 12) };
    return f;
}

static inline int in_arena(const swn_model_t *view, uint32_t offset, uint32_t size)
{
    uint32_t arena = swn_get16(view->image + 48);
    return offset <= arena && size <= arena - offset;
}

static inline int is_present(const swn_model_t *view, size_t tensor)
{
    return read_fragment(view, read_tensor(view, tensor).fragment).state == STATE_PRESENT;
}

#endif
