/* From the header that `swarm pilot provision` wrote for one node to the structs of the core. Include that header first:
 *
 *     #include "headers/a1.h"
 *     #include "swn_provisioned.h"
 *
 * The header holds keys: it belongs to one board, and into no repository. Read by C99 and by C++.
 */
#ifndef SWN_PROVISIONED_H
#define SWN_PROVISIONED_H

#ifndef SWN_NODE_INDEX
#error "include the node's header from `swarm pilot provision` before swn_provisioned.h"
#endif
#if !defined(SWN_SLOWEST_DATA_RATE) || !defined(SWN_REFUSES)
#error "this node's header is of an older version: run `swarm pilot provision` again, all keys stay as they are"
#endif

#include <string.h>

#ifndef SWN_NODE_H
#include "swn_node.h"
#endif

/* How long before a window the receiver opens: 20 ppm of six hours and the announcement's rounding to seconds. */
#ifndef SWN_GUARD_US
#define SWN_GUARD_US 1500000ul
#endif

/* Everything but the model. */
static inline void swn_provisioned_node(swn_config_t *config)
{
#ifdef SWN_MASK_SIZE
    static const swn_mask_t mask = {SWN_MASK_GROUP, SWN_MASK_POSITION, SWN_MASK_SIZE, SWN_MASK_KEYS};
#endif
#ifdef SWN_SIGNER
    static const uint8_t signer[] = SWN_SIGNER;
#endif

    memset(config, 0, sizeof *config);
    config->seed = SWN_SEED;
    config->status_period_s = SWN_STATUS_PERIOD_S;
    config->guard_us = SWN_GUARD_US;
    config->node_index = SWN_NODE_INDEX;
    config->context = SWN_CONTEXT;
    config->flags = SWN_FLAGS;
    config->refuses = SWN_REFUSES;
    config->payload_max = SWN_PAYLOAD_MAX_AT_SLOWEST;
#ifdef SWN_MASK_SIZE
    config->mask = &mask;
#endif
#ifdef SWN_SIGNER
    config->signer = signer;
#endif
}

#endif
