/* Not linked into anything: budget.py reads from this object how large the caller's structures are on a target. */
#include "swn_node.h"
#include "swn_transport.h"

extern char swn_node_probe[];
extern char swn_transport_probe[];

char swn_node_probe[sizeof(swn_node_t)] = {1};
char swn_transport_probe[sizeof(swn_transport_t) + SWN_ERASURE_MEMORY] = {1};
