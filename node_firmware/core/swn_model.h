/* The model container, checked once and then run in place (docs/SPEC.md has every bit).
 *
 * Theory of operation: a container holds a program of fixed-size op records, a directory of tensors and a
 * directory of fragments. swn_model_open() proves that each op reads and writes only inside the arena, that
 * each tensor lies inside one fragment, and that each fragment's CRC holds; after that, running needs no
 * checks. The ADAPTER op cuts the program in two: what lies before it makes the hidden vector from the
 * features (frozen, so its result may be kept), what lies behind makes z from the hidden vector.
 * Nothing is copied out of the image, nothing is allocated; the arena is SWN_ARENA_MAX bytes of stack.
 * How many classes a model tells apart and how many features it takes, the image says: arrays have room for
 * SWN_..._MAX of them, loops run to the model's own count. */
#ifndef SWN_MODEL_H
#define SWN_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "swn_kernels.h"

#define SWN_CLASSES_MAX 10
#define SWN_FEATURES_MAX 256
#define SWN_HIDDEN 64
#define SWN_Z 32
#define SWN_RANK 4
#define SWN_EXPERTS 8
#define SWN_TOP_K 2
#define SWN_CONTEXT_MAX 8

#define SWN_ADAPTER_A_OFFSET 0
#define SWN_ADAPTER_B_OFFSET 256
#define SWN_ADAPTER_SIZE 512            /* A[4][64], then B[64][4]; 1.0 = 4096 */
#define SWN_HEAD_ROW (SWN_Z + 1)        /* 32 weights, then the bias; 1.0 = 256 */
#define SWN_HEAD_SIZE_MAX 330           /* a row for each class: 33 * classes */
#define SWN_HEAD_OFFSET SWN_ADAPTER_SIZE
#define SWN_LOCAL_SIZE_MAX 842          /* adapter, then the node's own head */

#define SWN_ARENA_MAX 512               /* bytes of stack; a program that needs more is refused */
#define SWN_NO_EXPERT 255
#define SWN_EXPERTS_MAX 16              /* a model with more of them never asks for one */

typedef enum swn_status {
    SWN_OK = 0,
    SWN_E_MISALIGNED = 1,   /* the image does not begin at a 4-byte boundary */
    SWN_E_TRUNCATED = 2,    /* shorter than its header says */
    SWN_E_MAGIC = 3,
    SWN_E_VERSION = 4,      /* made by a newer writer */
    SWN_E_HEADER = 5,       /* a header field out of range, or tables that overlap */
    SWN_E_CRC = 6,          /* header and directories, or a fragment */
    SWN_E_ISA = 7,          /* needs an op this engine does not have */
    SWN_E_FRAGMENT = 8,
    SWN_E_TENSOR = 9,
    SWN_E_OPERAND = 10,     /* an op's arena offset, tensor or shift */
    SWN_E_PROGRAM = 11      /* the order of the ops */
} swn_status_t;

typedef struct swn_model {
    const uint8_t *image;
    const uint8_t *ops;
    const uint8_t *tensors;
    const uint8_t *fragments;
    uint32_t crc32;         /* of header and directories, so of everything: the identity of the image */
    uint16_t generation;
    uint16_t classes;       /* 2..10 */
    uint16_t features;      /* 1..256 */
    uint16_t n_ops;
    uint16_t n_tensors;
    uint16_t n_fragments;
    uint16_t adapter_op;    /* index of the ADAPTER op */
    uint16_t project_op;
    uint16_t head_op;
    uint16_t withheld;      /* bit e: expert e is run as if it were remote, though the image has it */
} swn_model_t;

/* What the gate chose in one run, and what the experts saw. */
typedef struct swn_routing {
    int8_t input[SWN_HIDDEN];
    uint16_t weights[SWN_TOP_K]; /* in 1/256, sum 256 */
    uint8_t picks[SWN_TOP_K];    /* best first; SWN_NO_EXPERT: none */
    uint8_t missing;             /* bit s: pick s is remote and was left out */
} swn_routing_t;

/* Checks the whole image and fills the view, which points into it: the image must outlive the view and
 * begin at a multiple of 4. On anything but SWN_OK the view must not be used. */
swn_status_t swn_model_open(swn_model_t *view, const uint8_t *image, size_t size);

/* Parameters of a head, and of the adapter with one head: all that a node trains. */
static inline uint16_t swn_head_size(const swn_model_t *view)
{
    return (uint16_t)(view->classes * SWN_HEAD_ROW);
}

static inline uint16_t swn_local_size(const swn_model_t *view)
{
    return (uint16_t)(SWN_HEAD_OFFSET + swn_head_size(view));
}

/* Features (int8, as many as the model takes) to the hidden vector (int8[64]). top_experts gets the chosen experts, best first.
 * Returns how many chosen experts were remote (absent from the image) and therefore left out: 0 is complete. */
uint8_t swn_features_to_hidden(const swn_model_t *view, const int8_t *x,
                               int8_t hidden[SWN_HIDDEN], uint8_t top_experts[SWN_TOP_K]);

/* The same, telling all of the gate's choice. */
uint8_t swn_route(const swn_model_t *view, const int8_t *x, int8_t hidden[SWN_HIDDEN], swn_routing_t *routing);

/* Whether both are one model, whichever experts each of them has: same generation, program, shapes, and the same bytes
 * of every fragment (by its CRC, which a remote one has too). Vectors of one mean the same to the other. */
uint8_t swn_model_is_same(const swn_model_t *view, const swn_model_t *other);

/* Whether what a remote expert would add can be added later: the experts are the last step before the hidden vector,
 * one gate chooses them, they are 64 x 64 and at most SWN_EXPERTS_MAX. */
uint8_t swn_model_can_ask(const swn_model_t *view);

/* How many experts the gate chooses from (0: no gate, or more than SWN_EXPERTS_MAX), and which are here (bit e). */
uint8_t swn_model_experts(const swn_model_t *view);
uint16_t swn_model_held(const swn_model_t *view);

/* What the picks named in `routing->missing` add to the hidden vector for `routing->input`, weighted: int8[64], not
 * negative. Returns those that are here, as bits like `missing`; the others are left out. */
uint8_t swn_contribute(const swn_model_t *view, const swn_routing_t *routing, int8_t contribution[SWN_HIDDEN]);

/* Hidden vector to z (1.0 = 32). adapter: int16[512] or NULL for none. */
void swn_hidden_to_z(const swn_model_t *view, const int16_t *adapter, const int8_t hidden[SWN_HIDDEN],
                     int8_t z[SWN_Z]);

/* Logits in Q13. |logit| < 2^28, so differences and sums of a few stay in int32. */
void swn_head_logits(const int16_t *head, size_t classes, const int8_t z[SWN_Z], int32_t *logits);

/* Probabilities in 1/255, sum exactly 255. */
void swn_softmax(const int32_t *logits, size_t classes, uint8_t *p);

/* Probabilities in Q15, sum 32768 within rounding (+-1 for each class): for training. */
void swn_softmax_q15(const int32_t *logits, size_t classes, int32_t *p);

/* The shipped head of a context, swn_head_size() values; a context the base model does not know gets the shared
 * head. Returns 1 when the context has a head of its own, 0 when the shared one was given. */
int swn_model_head(const swn_model_t *view, uint8_t context, int16_t *out);

/* The shipped adapter (version 0 of every node): A as trained, B zero, so that it changes nothing yet. */
void swn_model_adapter(const swn_model_t *view, int16_t out[SWN_ADAPTER_SIZE]);

/* Public class means of z and example counts of a context. Returns 0 when the image has none. */
int swn_model_prior(const swn_model_t *view, uint8_t context, int8_t mean[SWN_CLASSES_MAX][SWN_Z],
                    uint32_t count[SWN_CLASSES_MAX]);

/* The frozen projection from hidden vector to z, for the backward pass. */
swn_matrix_t swn_model_projection(const swn_model_t *view);

/* Identity of the container: its CRC-32 (STATUS frames carry the low 16 bits). */
static inline uint32_t swn_model_crc32(const swn_model_t *view)
{
    return view->crc32;
}

#endif
