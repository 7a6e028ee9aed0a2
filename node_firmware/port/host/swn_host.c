/* The host port; see swn_host.h. */
#include "swn_host.h"

#include <string.h>

#define ALIGNMENT ((uint64_t)16)

static uint64_t aligned(uint64_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static uint32_t outbox_max(uint32_t count)
{
    return count * SWN_OUTBOX_PER_NODE + SWN_HOST_SPARE;
}

static uint32_t listens_max(uint32_t count)
{
    return count * SWN_LISTENS_PER_NODE + SWN_HOST_SPARE;
}

static uint64_t lost_size(uint32_t flash_size)
{
    return flash_size > 0 ? SWN_ERASURE_MEMORY : 0;
}

uint64_t swn_host_size(uint32_t count, uint64_t image_size, uint32_t flash_size)
{
    return aligned(sizeof(swn_host_t)) + aligned(image_size) + aligned(count * (uint64_t)sizeof(swn_node_t)) +
           aligned(count * (uint64_t)sizeof(swn_host_slot_t)) + aligned(count) +
           aligned(outbox_max(count) * (uint64_t)sizeof(swn_sent_t)) +
           aligned(listens_max(count) * (uint64_t)sizeof(swn_listening_t)) + 2u * aligned(count * aligned(flash_size)) +
           aligned(count * lost_size(flash_size));
}

/* The port's callbacks ----------------------------------------------------------------------------- */

static int host_tx(void *ctx, uint8_t f_port, const uint8_t *data, size_t size)
{
    const swn_host_slot_t *slot = ctx;
    swn_host_t *host = slot->host;
    swn_sent_t *sent;

    if (host->busy[slot->index] != 0) {
        return host->busy[slot->index];
    }
    if (host->outbox_used >= host->outbox_max || size > SWN_PAYLOAD_MAX) {
        return -1;
    }
    sent = &host->outbox[host->outbox_used++];
    sent->index = slot->index;
    sent->f_port = f_port;
    sent->size = (uint8_t)size;
    memcpy(sent->data, data, size);
    return 0;
}

static void host_listen(void *ctx, int64_t from_us, int64_t until_us)
{
    const swn_host_slot_t *slot = ctx;
    swn_host_t *host = slot->host;
    swn_listening_t *listening;

    if (host->listens_used >= host->listens_max) {
        host->listens_lost++;
        return;
    }
    listening = &host->listens[host->listens_used++];
    listening->from_us = from_us;
    listening->until_us = until_us;
    listening->index = slot->index;
}

static void host_nvm(void *ctx, uint8_t key, const void *data, size_t size)
{
    swn_host_slot_t *slot = ctx;

    if (key == SWN_NVM_STORED && size == sizeof slot->stored) {
        memcpy(&slot->stored, data, size);
    }
}

/* The core's check, once for each signature: what it said is remembered while few others come between. */
static uint8_t host_verify(void *ctx, swn_ed25519_t *check)
{
    swn_host_t *host = ((const swn_host_slot_t *)ctx)->host;
    swn_ed25519_t again = *check;
    swn_checked_t *slot;
    uint8_t digest[SWN_SHA512_SIZE];
    const uint8_t *scalar = check->signature + SWN_SIGNATURE_SIZE / 2;
    unsigned i;

    swn_sha512_final(&again.hash, digest);
    for (i = 0; i < SWN_CHECKED_MAX; i++) {
        slot = &host->checked[i];
        if (slot->state != 0 && memcmp(slot->digest, digest, sizeof slot->digest) == 0 &&
            memcmp(slot->scalar, scalar, sizeof slot->scalar) == 0) {
            return (uint8_t)(slot->state - 1u);
        }
    }
    slot = &host->checked[host->checks++ % SWN_CHECKED_MAX];
    memcpy(slot->digest, digest, sizeof slot->digest);
    memcpy(slot->scalar, scalar, sizeof slot->scalar);
    slot->state = (uint8_t)(1u + swn_ed25519_final(check));
    return (uint8_t)(slot->state - 1u);
}

/* Life --------------------------------------------------------------------------------------------- */

static void *take(uint8_t **next, uint64_t size)
{
    uint8_t *start = *next;

    *next += aligned(size);
    return start;
}

/* The pointers of a node and of what it has of the board. */
static void link_node(swn_host_t *host, uint32_t index)
{
    swn_host_slot_t *slot = &host->slots[index];
    swn_node_t *node = &host->nodes[index];
    swn_transport_t *transport = &slot->receive.transport;

    slot->host = host;
    slot->index = index;
    slot->port.ctx = slot;
    slot->port.tx = host_tx;
    slot->port.listen = host_listen;
    slot->port.random32 = NULL;
    slot->port.nvm_write = host_nvm;
    slot->port.verify = host_verify;
    node->port = &slot->port;
    node->config.model = slot->installed_size > 0 ? &slot->installed : &slot->model;
    node->config.mask = slot->mask.size > 0 ? &slot->mask : NULL;
    node->config.signer = slot->has_signer ? slot->signer : NULL;
    node->config.receive = host->flash_size > 0 ? &slot->receive : NULL;
    if (host->flash_size > 0) {
        swn_host_flash_link(&slot->flash, host->flash + index * aligned(host->flash_size), host->flash_size);
        slot->receive.config.flash = &slot->flash.port;
        slot->receive.config.lost_pieces = host->lost_pieces + index * lost_size(host->flash_size);
        slot->receive.config.lost_pieces_size = (size_t)lost_size(host->flash_size);
        slot->receive.config.block_key = slot->has_block_key ? slot->block_key : NULL;
        transport->config.flash = transport->erasure.flash = slot->receive.config.flash;
        transport->config.memory = transport->erasure.memory = slot->receive.config.lost_pieces;
    }
}

static void lay_out(swn_host_t *host)
{
    uint8_t *next = (uint8_t *)host + aligned(sizeof *host);
    uint32_t i;

    host->image = take(&next, host->image_size);
    host->nodes = take(&next, host->count * (uint64_t)sizeof(swn_node_t));
    host->slots = take(&next, host->count * (uint64_t)sizeof(swn_host_slot_t));
    host->busy = take(&next, host->count);
    host->outbox = take(&next, host->outbox_max * (uint64_t)sizeof(swn_sent_t));
    host->listens = take(&next, host->listens_max * (uint64_t)sizeof(swn_listening_t));
    host->flash = take(&next, host->count * aligned(host->flash_size));
    host->installed = take(&next, host->count * aligned(host->flash_size));
    host->lost_pieces = take(&next, host->count * lost_size(host->flash_size));
    for (i = 0; i < host->count; i++) {
        link_node(host, i);
    }
}

void swn_host_trust(swn_host_t *host, uint32_t index, const uint8_t *signer, const uint8_t *block_key)
{
    swn_host_slot_t *slot = &host->slots[index];

    slot->has_signer = (uint8_t)(signer != NULL);
    slot->has_block_key = (uint8_t)(block_key != NULL);
    if (signer != NULL) {
        memcpy(slot->signer, signer, sizeof slot->signer);
    }
    if (block_key != NULL) {
        memcpy(slot->block_key, block_key, sizeof slot->block_key);
    }
    link_node(host, index);
}

void swn_host_withhold(swn_host_t *host, uint32_t index, uint16_t experts)
{
    host->slots[index].model = host->model;
    host->slots[index].model.withheld = experts;
}

static uint8_t *installed_image(const swn_host_t *host, uint32_t index)
{
    return host->installed + index * aligned(host->flash_size);
}

/* The nodes' views follow the images; what each withholds stays. */
static swn_status_t open_model(swn_host_t *host)
{
    swn_status_t status = swn_model_open(&host->model, host->image, host->image_size);
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        swn_host_slot_t *slot = &host->slots[i];

        swn_host_withhold(host, i, slot->model.withheld);
        if (slot->installed_size > 0 && status == SWN_OK) {
            status = swn_model_open(&slot->installed, installed_image(host, i), slot->installed_size);
        }
    }
    return status;
}

swn_status_t swn_host_init(swn_host_t *host, uint32_t count, const uint8_t *image, uint64_t image_size,
                           uint32_t flash_size)
{
    const uint64_t size = swn_host_size(count, image_size, flash_size);

    memset(host, 0, size);
    host->memory_size = size;
    host->image_size = image_size;
    host->flash_size = flash_size;
    host->count = count;
    host->outbox_max = outbox_max(count);
    host->listens_max = listens_max(count);
    lay_out(host);
    memcpy(host->image, image, image_size);
    return open_model(host);
}

int swn_host_link(swn_host_t *host)
{
    if (host->memory_size != swn_host_size(host->count, host->image_size, host->flash_size) ||
        host->outbox_max != outbox_max(host->count) || host->listens_max != listens_max(host->count)) {
        return -1;
    }
    lay_out(host);
    return open_model(host) == SWN_OK ? 0 : -1;
}

int swn_host_start(swn_host_t *host, uint32_t index, const swn_config_t *config, int64_t now_us)
{
    swn_config_t full = *config;

    memset(&host->slots[index].mask, 0, sizeof host->slots[index].mask);
    if (config->mask != NULL) {
        host->slots[index].mask = *config->mask;
        full.mask = &host->slots[index].mask;
    }
    host->slots[index].installed_size = 0;
    full.model = &host->slots[index].model;
    full.receive = host->flash_size > 0 ? &host->slots[index].receive : NULL;
    full.signer = host->slots[index].has_signer ? host->slots[index].signer : NULL;
    return swn_init(&host->nodes[index], &full, &host->slots[index].port, now_us);
}

int swn_host_reset(swn_host_t *host, uint32_t index, int64_t now_us)
{
    swn_node_t *node = &host->nodes[index];
    const swn_config_t config = node->config;
    const swn_parameters_t parameters = node->parameters;
    const swn_serve_t serve = node->serve;
    const swn_masked_memo_t masked = node->masked;
    int16_t residual[SWN_LOCAL_SIZE_MAX];

    memcpy(residual, node->learner.residual, sizeof residual);
    if (swn_init(node, &config, &host->slots[index].port, now_us) != 0) {
        return -1;
    }
    (void)swn_recall(node, SWN_NVM_PARAMETERS, &parameters, sizeof parameters);
    (void)swn_recall(node, SWN_NVM_RESIDUAL, residual, sizeof residual);
    (void)swn_recall(node, SWN_NVM_SERVE, &serve, sizeof serve);
    (void)swn_recall(node, SWN_NVM_MASKED, &masked, sizeof masked);
    (void)swn_recall(node, SWN_NVM_STORED, &host->slots[index].stored, sizeof host->slots[index].stored);
    return 0;
}

int swn_host_install(swn_host_t *host, uint32_t index, int64_t now_us)
{
    swn_host_slot_t *slot = &host->slots[index];
    swn_node_t *node = &host->nodes[index];
    const swn_model_t *runs = node->config.model;
    swn_model_t fresh;
    uint32_t size;

    if (host->flash_size == 0 || slot->receive.state != SWN_WHOLE_AND_VERIFIED ||
        slot->stored.size <= SWN_SIGNATURE_SIZE) {
        return 0;
    }
    size = slot->stored.size - SWN_SIGNATURE_SIZE;
    if (swn_model_open(&fresh, slot->flash.bytes, size) != SWN_OK || !swn_model_is_same(&fresh, runs) ||
        swn_model_held(&fresh) == swn_model_held(runs)) {
        return 0;
    }
    memcpy(installed_image(host, index), slot->flash.bytes, size);
    if (swn_model_open(&slot->installed, installed_image(host, index), size) != SWN_OK) {
        return 0;
    }
    slot->installed_size = size;
    swn_take_up(node, now_us, &slot->installed);
    return 1;
}

/* Batches ------------------------------------------------------------------------------------------ */

void swn_host_sense(swn_host_t *host, int64_t now_us, const int16_t *temperature_centi, const uint8_t *humidity_half,
                    const uint16_t *rain_tenth, uint8_t hour, uint8_t *closed)
{
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        swn_sample_t sample;

        sample.temperature_centi = temperature_centi[i];
        sample.humidity_half = humidity_half[i];
        sample.rain_tenth = rain_tenth[i];
        sample.hour = hour;
        closed[i] = swn_sense(&host->nodes[i], now_us, &sample);
    }
}

void swn_host_observe(swn_host_t *host, const uint32_t *indices, uint32_t n, int64_t now_us, uint16_t id,
                      const int8_t *x)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        swn_observe(&host->nodes[indices[i]], now_us, id, x + (size_t)i * host->model.features);
    }
}

uint32_t swn_host_label(swn_host_t *host, uint16_t id, const uint8_t *labels)
{
    uint32_t taken = 0;
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        taken += swn_label(&host->nodes[i], id, labels[i]);
    }
    return taken;
}

void swn_host_rx(swn_host_t *host, const uint32_t *indices, uint32_t n, int64_t now_us, uint8_t f_port,
                 const uint8_t *data, uint32_t size, uint8_t multicast, int8_t snr_db)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        swn_rx(&host->nodes[indices[i]], now_us, f_port, data, size, multicast, snr_db);
    }
}

void swn_host_poll(swn_host_t *host, int64_t now_us, int64_t *next_us)
{
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        next_us[i] = swn_poll(&host->nodes[i], now_us);
    }
}

void swn_host_infer(const swn_host_t *host, const uint32_t *indices, uint32_t n, const int8_t *x, uint8_t *probabilities)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        swn_infer(&host->nodes[indices[i]], x + (size_t)i * host->model.features,
                  probabilities + (size_t)i * host->model.classes);
    }
}

void swn_host_z(const swn_host_t *host, const uint32_t *indices, uint32_t n, const int8_t *x, int8_t *z)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        int8_t hidden[SWN_HIDDEN];
        uint8_t experts[SWN_TOP_K];

        (void)swn_features_to_hidden(host->nodes[indices[i]].config.model, x + (size_t)i * host->model.features, hidden,
                                     experts);
        swn_hidden_to_z(&host->model, host->nodes[indices[i]].parameters.adapter, hidden, z + (size_t)i * SWN_Z);
    }
}

void swn_host_day_features(const swn_host_t *host, int8_t *x)
{
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        memcpy(x + (size_t)i * host->model.features, host->nodes[i].day_x, host->model.features);
    }
}

void swn_host_own_features(const swn_host_t *host, int8_t *x)
{
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        (void)swn_own_features(&host->nodes[i], host->nodes[i].config.context, x + (size_t)i * host->model.features);
    }
}

uint8_t swn_host_contribute(const swn_model_t *model, const uint8_t *picks, uint8_t weight, uint8_t wanted,
                            const uint8_t *input, uint8_t *contribution)
{
    swn_routing_t routing;
    int8_t sum[SWN_HIDDEN];
    uint8_t done;

    memcpy(routing.picks, picks, sizeof routing.picks);
    routing.weights[0] = (uint16_t)(256 - weight);
    routing.weights[1] = weight;
    routing.missing = wanted;
    swn_coarse_get(input, routing.input);
    done = swn_contribute(model, &routing, sum);
    swn_coarse_put(sum, contribution);
    return done;
}

void swn_host_verdicts(const swn_host_t *host, uint8_t *own, uint8_t *judged)
{
    uint32_t i;

    for (i = 0; i < host->count; i++) {
        const swn_node_t *node = &host->nodes[i];
        const swn_day_verdict_t *verdict = &node->borrow.verdicts[(node->day - 1u) % SWN_VERDICT_DAYS];
        own[i] = verdict->own;
        judged[i] = verdict->judged;
    }
}

void swn_host_hidden(const swn_model_t *model, uint32_t n, const int8_t *x, int8_t *hidden, uint8_t *experts)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        (void)swn_features_to_hidden(model, x + (size_t)i * model->features, hidden + (size_t)i * SWN_HIDDEN,
                                     experts + (size_t)i * SWN_TOP_K);
    }
}

void swn_host_project(const swn_model_t *model, const int16_t *adapter, uint32_t n, const int8_t *hidden, int8_t *z)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        swn_hidden_to_z(model, adapter, hidden + (size_t)i * SWN_HIDDEN, z + (size_t)i * SWN_Z);
    }
}

void swn_host_heads(const swn_model_t *model, const int16_t *head, uint32_t n, const int8_t *z, uint8_t *probabilities)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        int32_t logits[SWN_CLASSES_MAX];

        swn_head_logits(head, model->classes, z + (size_t)i * SWN_Z, logits);
        swn_softmax(logits, model->classes, probabilities + (size_t)i * model->classes);
    }
}
