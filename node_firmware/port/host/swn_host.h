/* The host port: an array of nodes in one block of the caller's memory, driven in batches by Python or a test.
 *
 * The memory holds, in this order: swn_host_t, the model image, the nodes, their ports, the busy bytes,
 * the outbox, the listening windows and, where nodes take large blocks, each one's flash with its memory, and a second
 * flash, from which it runs what it installed.  There is no clock and no chance here: what a node sends lies in
 * the outbox until it is cleared, and `busy` says for each node what its tx answers (0: taken, n: busy, try
 * again in n seconds).  A full outbox answers busy, too.  Copying the block away and back (then
 * swn_host_link()) is a complete snapshot.
 */
#ifndef SWN_HOST_H
#define SWN_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "swn_host_flash.h"
#include "swn_node.h"

enum { SWN_OUTBOX_PER_NODE = 4, SWN_LISTENS_PER_NODE = 2, SWN_HOST_SPARE = 64, SWN_CHECKED_MAX = 8 };

typedef struct swn_sent {
    uint32_t index; /* of the node in the array */
    uint8_t f_port;
    uint8_t size;
    uint8_t data[SWN_PAYLOAD_MAX];
} swn_sent_t;

typedef struct swn_listening {
    int64_t from_us;
    int64_t until_us;
    uint32_t index;
} swn_listening_t;

typedef struct swn_host swn_host_t;

/* A signature that was checked: all nodes of an array check the same ones. */
typedef struct swn_checked {
    uint8_t digest[SWN_SHA512_SIZE]; /* of R, key and message */
    uint8_t scalar[SWN_SIGNATURE_SIZE / 2];
    uint8_t state; /* 0: none, 1: it is wrong, 2: it is right */
} swn_checked_t;

/* What the port's callbacks know of their node. */
typedef struct swn_host_slot {
    swn_port_t port;
    swn_model_t model; /* the node's own view of the image: some experts may be withheld */
    swn_model_t installed; /* what it runs instead, */
    uint32_t installed_size; /* unless this is 0 */
    swn_host_t *host;
    uint32_t index;
    swn_mask_t mask; /* size 0: none */
    swn_receive_t receive;
    swn_host_flash_t flash;
    swn_stored_t stored; /* as nvm_write was given it */
    uint8_t signer[SWN_PUBLIC_KEY_SIZE];
    uint8_t block_key[SWN_AES_BLOCK];
    uint8_t has_signer;
    uint8_t has_block_key;
} swn_host_slot_t;

struct swn_host {
    uint64_t memory_size;
    uint64_t image_size;
    uint32_t flash_size; /* of each node, for large blocks; 0: they take none */
    uint32_t count;
    uint32_t outbox_used;
    uint32_t outbox_max;
    uint32_t listens_used;
    uint32_t listens_max;
    uint32_t listens_lost; /* windows that found no room */
    uint32_t checks;       /* signatures that were computed, not remembered */
    swn_checked_t checked[SWN_CHECKED_MAX];
    swn_model_t model;
    uint8_t *image;
    swn_node_t *nodes;
    swn_host_slot_t *slots;
    uint8_t *busy;
    swn_sent_t *outbox;
    swn_listening_t *listens;
    uint8_t *flash;       /* flash_size for each node */
    uint8_t *installed;   /* as much again: the images that they run */
    uint8_t *lost_pieces; /* SWN_ERASURE_MEMORY for each node that has a flash */
};

/* Bytes of memory that `count` nodes and an image of this size need, each node with so much flash for large blocks. */
uint64_t swn_host_size(uint32_t count, uint64_t image_size, uint32_t flash_size);

/* Lays out the block (aligned to 16) and opens the model; the nodes are still to be started.
 * Returns the model's status. */
swn_status_t swn_host_init(swn_host_t *host, uint32_t count, const uint8_t *image, uint64_t image_size,
                            uint32_t flash_size);

/* Sets all pointers again after the block was copied; 0, or -1 when the block is not one of this build. */
int swn_host_link(swn_host_t *host);

/* Before its start: the key that a node may take large blocks of (32 B), and its DataBlockIntKey (16 B); NULL: none. */
void swn_host_trust(swn_host_t *host, uint32_t index, const uint8_t *signer, const uint8_t *block_key);

/* Starts one node (config->model, receive and signer are set here, config->mask copied); -1 when the config is out of range. */
int swn_host_start(swn_host_t *host, uint32_t index, const swn_config_t *config, int64_t now_us);

/* Before its start: experts (bit e) that the node does not hold, though the image does, as if its own image had
 * them remote. */
void swn_host_withhold(swn_host_t *host, uint32_t index, uint16_t experts);

/* Power fails and returns: parameters, residual, which rounds it masked and what lies in flash survive (NVM), all
 * else is lost. */
int swn_host_reset(swn_host_t *host, uint32_t index, int64_t now_us);

/* The board looks at the verified block in the node's flash: where that is the running model with other experts, it is copied
 * to where models run from, and the node goes on with it. 1 when that happened, 0 when there is no such block. */
int swn_host_install(swn_host_t *host, uint32_t index, int64_t now_us);

/* One hour for all nodes; closed[i] tells whether node i closed a day. */
void swn_host_sense(swn_host_t *host, int64_t now_us, const int16_t *temperature_centi, const uint8_t *humidity_half,
                    const uint16_t *rain_tenth, uint8_t hour, uint8_t *closed);

/* One observation for some nodes, x[n][features]. */
void swn_host_observe(swn_host_t *host, const uint32_t *indices, uint32_t n, int64_t now_us, uint16_t id,
                      const int8_t *x);

/* One label for each node (255: none); returns how many were taken. */
uint32_t swn_host_label(swn_host_t *host, uint16_t id, const uint8_t *labels);

/* The same downlink for some nodes. */
void swn_host_rx(swn_host_t *host, const uint32_t *indices, uint32_t n, int64_t now_us, uint8_t f_port,
                 const uint8_t *data, uint32_t size, uint8_t multicast, int8_t snr_db);

void swn_host_poll(swn_host_t *host, int64_t now_us, int64_t *next_us);

/* Batches over (node, features) pairs: probabilities[classes], z[32] with the node's adapter. */
void swn_host_infer(const swn_host_t *host, const uint32_t *indices, uint32_t n, const int8_t *x, uint8_t *probabilities);
void swn_host_z(const swn_host_t *host, const uint32_t *indices, uint32_t n, const int8_t *x, int8_t *z);

/* Features of all nodes: of the last closed day (last observation), or as they stand now. */
void swn_host_day_features(const swn_host_t *host, int8_t *x);
void swn_host_own_features(const swn_host_t *host, int8_t *x);

/* What two picks, as far as `wanted` names them (bits 0, 1), add for a coarse input (34 B), as a coarse vector; returns
 * those that are in the image. `weight` is the second pick's, of 256. */
uint8_t swn_host_contribute(const swn_model_t *model, const uint8_t *picks, uint8_t weight, uint8_t wanted,
                            const uint8_t *input, uint8_t *contribution);

/* The class of the last closed day, by the node's own readings and with what it borrowed. */
void swn_host_verdicts(const swn_host_t *host, uint8_t *own, uint8_t *judged);

/* The model without a node: hidden[64] and the two experts; z[32] (adapter may be NULL); probabilities[classes]. */
void swn_host_hidden(const swn_model_t *model, uint32_t n, const int8_t *x, int8_t *hidden, uint8_t *experts);
void swn_host_project(const swn_model_t *model, const int16_t *adapter, uint32_t n, const int8_t *hidden, int8_t *z);
void swn_host_heads(const swn_model_t *model, const int16_t *head, uint32_t n, const int8_t *z, uint8_t *probabilities);

#endif
