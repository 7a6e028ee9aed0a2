/* The application frames: bytes to values and back (docs/SPEC.md; twin of swarm/wire/app.py).
 *
 * All numbers are little endian; the first byte is the type, whose meaning depends on FPort and direction.
 * Writers return the size, or 0 when the frame does not fit or says what the protocol cannot say.
 * swn_frame_read() accepts exactly what the protocol allows and reads no byte beyond `size`; the views it
 * returns point into the caller's bytes.
 */
#ifndef SWN_FRAME_H
#define SWN_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "swn_borrow.h"
#include "swn_expert.h"
#include "swn_model.h"
#include "swn_readings.h"
#include "swn_transport.h"

enum { SWN_PORT_LEARNING = 10, SWN_PORT_ASKING = 11, SWN_PORT_STATUS = 12 };
enum { SWN_PROTOCOL = 1 };

enum {
    SWN_PAYLOAD_MAX = 222,
    SWN_BLOCK_SIZE_MAX = 3264, /* FULL with 8 heads of 10 classes, 3162, and its signature */
    SWN_PROTOTYPES_HEADER = 9,  /* one byte more when a class above 6 is among them */
    SWN_MASK_CLASSES = 7,       /* classes in the first byte of a class mask */
    SWN_TOP_K_HEADER = 11,
    SWN_TOP_K_COUNT_AT = 10,
    SWN_DENSE_HEADER = 11,
    SWN_FEATURES_HEADER = 8,
    SWN_BLOCKS_HEADER = 12,
    SWN_CHUNK = 64,             /* coordinates of the local vector that a BLOCKS update never cuts */
    SWN_FRAGMENT_HEADER = 6,
    SWN_FRAGMENTS_MAX = 64,     /* of one update */
    SWN_UPDATE_SIZE_MAX = 1024, /* of one update before it is cut; dense with ten classes: 853 */
    SWN_MASKED_HEADER = 12,
    SWN_SUMS_DIMS = 20,         /* of z, the first ones */
    SWN_SUMS_BITS_MIN = 8,
    SWN_SUMS_BITS_MAX = 16,
    SWN_SHIFT_MAX = 20,
    SWN_SEEDS_HEADER = 8,
    SWN_ANSWER_HEADER = 8,      /* and one byte for each class */
    SWN_ANSWER_SIZE_MAX = SWN_ANSWER_HEADER + SWN_CLASSES_MAX,
    SWN_STATUS_SIZE = 16
};

/* What a round asks for: the type of its update on port 10. Type 3 is the fragment of an update, and
 * type 9 the seeds of masks: no modes. */
enum {
    SWN_MODE_NONE = 0,
    SWN_MODE_PROTOTYPES = 1,
    SWN_MODE_TOP_K_SIGN = 2,
    SWN_TYPE_FRAGMENT = 3,
    SWN_MODE_TOP_K_INT4 = 4,
    SWN_MODE_DENSE_INT8 = 5,
    SWN_MODE_FEATURES = 6,
    SWN_MODE_BLOCKS = 7,
    SWN_MODE_MASKED_SUMS = 8,
    SWN_MODE_LAST = SWN_MODE_MASKED_SUMS,
    SWN_TYPE_SEEDS = 9
};
/* In the mode byte of ROUND: only nodes whose context the model was shipped without take part. */
enum { SWN_MODE_NEW_CONTEXTS = 0x80 };
enum { SWN_BLOCK_HEADS = 0, SWN_BLOCK_DELTA = 1, SWN_BLOCK_FULL = 2 };
enum { SWN_NO_BASE = 0xFFFF };
enum { SWN_CONTEXT_OWN = 255 };
enum { SWN_QUERY_OWN_READINGS = 1, SWN_QUERY_FEATURES = 2 };
enum { SWN_ANSWER_OWN_READINGS = 1, SWN_ANSWER_NO_HUMIDITY = 2, SWN_ANSWER_NO_RAIN = 4, SWN_ANSWER_BORROWED = 8 };
enum { SWN_STATUS_SHARE_SHIFT = 4 }; /* the id of the SHARE in force in the upper half of the flags */
enum { SWN_STATUS_NO_HUMIDITY = 1, SWN_STATUS_NO_RAIN = 2, SWN_STATUS_WANTS_SCHEDULE = 4, SWN_STATUS_FAULT = 8 };
/* In `serves`, beside swn_choice_t in bits 0 to 2; from bit 4 on swn_serve_right(). */
enum { SWN_STATUS_NO_GAIN = 8, SWN_STATUS_RIGHT_SHIFT = 4 };

/* Uplinks. */

/* Mean of one class: z[i] = q[i] * scale / 8, q in -8..7. */
typedef struct swn_class_mean {
    uint8_t count; /* 0: the class is absent */
    uint8_t scale;
    int8_t q[SWN_Z];
} swn_class_mean_t;

typedef struct swn_prototypes {
    uint16_t round;
    uint16_t model_version;
    uint8_t context;
    uint8_t num_examples;
    uint8_t dims; /* even, 2..32 */
    swn_class_mean_t means[SWN_CLASSES_MAX];
} swn_prototypes_t;

/* The header of a top-k frame; its bitstream follows (swn_top_k_encode). */
typedef struct swn_top_k_header {
    uint16_t round;
    uint16_t model_version;
    uint16_t magnitude; /* SWN_MODE_TOP_K_INT4: of one level */
    uint8_t mode;       /* SWN_MODE_TOP_K_SIGN, SWN_MODE_TOP_K_INT4 */
    uint8_t context;
    uint8_t num_examples;
    uint8_t rice_k;
    uint8_t heads_only; /* the first gap counts from SWN_HEAD_OFFSET */
    uint8_t count;
} swn_top_k_header_t;

/* The header of a dense frame; the steps follow: the adapter's 512 unless its scale is 0, then the head's. */
typedef struct swn_dense_header {
    uint16_t round;
    uint16_t model_version;
    uint16_t scale_adapter;
    uint16_t scale_head;
    uint8_t context;
    uint8_t num_examples;
} swn_dense_header_t;

/* The header of a features frame; the labels follow, two in a byte, then 16 bytes of z for each sample. */
typedef struct swn_features_header {
    uint16_t round;
    uint16_t model_version;
    uint8_t context;
    uint8_t num_examples;
    uint8_t scale; /* z = q * scale / 8, q in -8..7 */
} swn_features_header_t;

/* The header of a blocks frame; the chunks follow, 32 bytes each. */
typedef struct swn_blocks_header {
    uint16_t round;
    uint16_t model_version;
    uint16_t scale_adapter;
    uint16_t scale_head;
    uint8_t context;
    uint8_t num_examples;
    uint8_t first; /* chunk */
} swn_blocks_header_t;

/* The header of masked sums; the values follow, `bits` each. */
typedef struct swn_masked_header {
    uint16_t round;
    uint16_t model_version;
    uint16_t group;
    uint8_t context;
    uint8_t position;
    uint8_t size;
    uint8_t classes;
    uint8_t bits;
} swn_masked_header_t;

/* Seeds of the masks that a node shares with the members in `missing`, ascending, 16 bytes each. */
typedef struct swn_seeds {
    const uint8_t *seeds;
    uint16_t round;
    uint16_t group;
    uint16_t missing; /* bit p: position p */
    uint8_t position;
} swn_seeds_t;

/* One piece of an update that is larger than a frame. */
typedef struct swn_fragment {
    const uint8_t *slice;
    size_t slice_size;
    uint16_t round;
    uint8_t mode;
    uint8_t index;
    uint8_t count; /* 2..64 */
} swn_fragment_t;

typedef struct swn_answer {
    uint16_t query_id;
    uint16_t head_version;
    uint8_t context;
    uint8_t classes;                        /* 2..10 */
    uint8_t probabilities[SWN_CLASSES_MAX]; /* sum 255 */
    uint8_t age;                            /* of the freshest reading in 10 min; 255 unknown */
    uint8_t flags;
} swn_answer_t;

typedef struct swn_report {
    uint16_t model_version;
    uint16_t model_id;
    int16_t temperature_centi;
    uint16_t rain_tenth; /* since the last status; 65535 missing */
    uint8_t battery;
    uint8_t labelled;
    uint8_t flags;
    uint8_t humidity_half;
    uint8_t risk; /* min(class, 3) << 6 | its probability >> 2 */
    uint8_t multicast_received;
    uint8_t serves; /* 0: the fleet's newest head; it then takes no byte */
} swn_report_t;

size_t swn_frame_prototypes(const swn_prototypes_t *message, uint8_t *out, size_t room);
size_t swn_frame_top_k_header(const swn_top_k_header_t *message, uint8_t *out, size_t room);
size_t swn_frame_dense_header(const swn_dense_header_t *message, uint8_t *out, size_t room);
size_t swn_frame_features_header(const swn_features_header_t *message, uint8_t *out, size_t room);
size_t swn_frame_blocks_header(const swn_blocks_header_t *message, uint8_t *out, size_t room);
size_t swn_frame_masked_sums(const swn_masked_header_t *message, const uint16_t *values, size_t count, uint8_t *out,
                             size_t room);
size_t swn_frame_seeds(const swn_seeds_t *message, uint8_t *out, size_t room);
size_t swn_frame_fragment(const swn_fragment_t *message, uint8_t *out, size_t room);
size_t swn_frame_answer(const swn_answer_t *message, uint8_t *out, size_t room);
size_t swn_frame_status(const swn_report_t *message, uint8_t *out, size_t room);

/* Nibbles -8..7, or labels, two in a byte, the first in the low one; a last half byte is 0. */
void swn_put_nibbles(uint8_t *out, const int8_t *values, size_t n);

/* Downlinks. */

/* What a round of masked sums asks for; follows ROUND in this mode alone. */
typedef struct swn_sums_plan {
    uint16_t clip;         /* longest z (20 dimensions, 32 = 1.0); 0: any */
    uint16_t sigma_count;  /* of each node's noise, in steps; 0: none */
    uint16_t sigma_linear;
    uint16_t sigma_square;
    uint8_t samples_max;   /* of one node */
    uint8_t bits;          /* of a value: 8..16 */
    uint8_t shift_linear;  /* a step is 2^shift of the sum of z (32 = 1.0), 0..20 */
    uint8_t shift_square;  /* of the sum of z z' (1024 = 1.0) */
    uint8_t releases_max;  /* rounds that a node takes part in, ever; 0: any number */
} swn_sums_plan_t;

typedef struct swn_round {
    uint32_t close_in_s;
    uint32_t next_window_s;
    uint16_t round;
    uint16_t model_version;
    uint16_t spread_s;
    uint16_t window_s;
    uint8_t mode;         /* SWN_MODE_..., without the flag */
    uint8_t new_contexts; /* the flag */
    uint8_t cohort;
    swn_sums_plan_t sums; /* SWN_MODE_MASKED_SUMS */
} swn_round_t;

typedef struct swn_ack {
    const uint8_t *bitmap;
    size_t bitmap_size;
    uint16_t round;
    uint16_t first_index;
} swn_ack_t;

typedef struct swn_piece {
    const uint8_t *piece;
    uint32_t crc32;
    uint16_t version;
    uint16_t base_version;
    uint16_t length;
    uint16_t piece_size;
    uint8_t kind;
    uint8_t index;
    uint8_t count;
} swn_piece_t;

/* Who of a group was heard: bit p of `received` is position p. */
typedef struct swn_repair {
    uint16_t round;
    uint16_t group;
    uint16_t received;
} swn_repair_t;

typedef struct swn_query {
    const uint8_t *features; /* two's complement bytes, or NULL */
    size_t features_size;    /* 0..216; as many as the model takes, or the question is not for it */
    uint16_t query_id;
    uint8_t flags;
    uint8_t context; /* SWN_CONTEXT_OWN: the node's */
    uint8_t reply_in_s;
} swn_query_t;

typedef struct swn_schedule {
    uint32_t next_window_s;
    uint16_t window_s;
    uint16_t status_period_min;
    uint16_t round; /* the last one announced; 0 where it is not said */
} swn_schedule_t;

/* The true class of the day whose noon was `value` hours ago, or of the observation with the id `value`. */
typedef struct swn_told {
    uint16_t value;
    uint8_t label;
    uint8_t by_id;
} swn_told_t;

typedef enum swn_downlink_kind {
    SWN_DOWNLINK_MALFORMED = 0,
    SWN_DOWNLINK_ROUND,
    SWN_DOWNLINK_ACK,
    SWN_DOWNLINK_BLOCK,
    SWN_DOWNLINK_REPAIR,
    SWN_DOWNLINK_OFFER,
    SWN_DOWNLINK_QUERY,
    SWN_DOWNLINK_SCHEDULE,
    SWN_DOWNLINK_REPLY,
    SWN_DOWNLINK_EXPERT_QUERY,
    SWN_DOWNLINK_READINGS,
    SWN_DOWNLINK_SHARE,
    SWN_DOWNLINK_LABEL
} swn_downlink_kind_t;

typedef union swn_downlink {
    swn_round_t round;
    swn_ack_t ack;
    swn_piece_t block;
    swn_repair_t repair;
    swn_offer_t offer;
    swn_query_t query;
    swn_schedule_t schedule;
    swn_reply_t reply;
    swn_expert_query_t expert_query;
    swn_readings_t readings;
    swn_share_t share;
    swn_told_t told;
} swn_downlink_t;

/* What the gateway said; `out` is set for everything but SWN_DOWNLINK_MALFORMED. */
swn_downlink_kind_t swn_frame_read(uint8_t f_port, const uint8_t *data, size_t size, swn_downlink_t *out);

/* 1 when this ACK counts the update of a node. */
uint8_t swn_ack_has(const swn_ack_t *ack, uint16_t node_index);

/* Bytes of each piece but the last: ceil(length / count); count must not be 0. */
uint16_t swn_piece_size(uint16_t length, uint8_t count);

/* The node's lot in a round: it takes part when this is <= the announced cohort. */
uint8_t swn_hash8(uint16_t node_index, uint16_t round);

#endif
