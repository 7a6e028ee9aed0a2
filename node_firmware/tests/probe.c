/* Not linked into anything: budget.py reads from this object how large the caller's structures are on a target. */
#include "swn_clock.h"
#include "swn_groups.h"
#include "swn_node.h"
#include "swn_receive.h"

typedef struct packages {
    swn_receive_t receive;
    swn_groups_t groups;
    swn_clock_t clock;
    uint8_t lost_pieces[SWN_ERASURE_MEMORY];
} packages_t;

extern char swn_node_probe[];
extern char swn_packages_probe[];

char swn_node_probe[sizeof(swn_node_t)] = {1};
char swn_packages_probe[sizeof(packages_t)] = {1};
