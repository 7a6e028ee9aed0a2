/* When the node's receiver is on for its group: in the window that ROUND or SCHEDULE announced, and during the session of a
 * large block; it is on when either wants it.
 *
 * The port knows two windows at a time, one that is open and one that is to come. What the node wants is the union of its
 * spans; the port is told what of it is on now and what comes next, and only when that changes. The span behind the next
 * one is told when that has begun, and a window that is wanted no more is closed when it has begun: the node wants to be
 * polled then.
 */
#ifndef SWN_LISTEN_H
#define SWN_LISTEN_H

#include <stdint.h>

/* No cell's windows are farther apart (30 days): an announcement that says so would keep the node from asking. */
#define SWN_WINDOW_FAR_S 2592000u

typedef struct swn_interval {
    int64_t from_us;
    int64_t until_us; /* empty unless above from_us */
} swn_interval_t;

typedef struct swn_listen {
    swn_interval_t session;   /* of a large block */
    int64_t held_until_us; /* of a window that was open when the next one was announced */
    int64_t on_until_us;  /* what the port was told: the window that is open, and the one to come */
    swn_interval_t next;
    uint8_t is_stale;     /* nothing wants `next` any more */
} swn_listen_t;

#endif
