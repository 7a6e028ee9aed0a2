/* The core, for C++. Include the node's header of `swarm pilot provision` before this one. */
#ifndef SWARM_NODE_H
#define SWARM_NODE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "core/swn_node.h"
#ifdef SWN_NODE_INDEX
#include "swn_provisioned.h"
#endif
}

#endif
