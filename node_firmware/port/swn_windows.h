/* The two windows that a port knows (swn_port_t.listen): one that is open, one that is to come.
 *
 * A port keeps a swn_windows_t, hands it every `listen` with the time of now, calls swn_windows_begin() whenever it is run,
 * and has its receiver on while swn_windows_open(). It has something to do at next_from_us, and while a window is open at
 * open_until_us.
 */
#ifndef SWN_WINDOWS_H
#define SWN_WINDOWS_H

#include <stdint.h>

typedef struct swn_windows {
    int64_t open_until_us; /* not after now: none is open */
    int64_t next_from_us;  /* INT64_MAX: none is announced */
    int64_t next_until_us;
} swn_windows_t;

static inline void swn_windows_init(swn_windows_t *windows)
{
    windows->open_until_us = INT64_MIN;
    windows->next_from_us = INT64_MAX;
    windows->next_until_us = INT64_MAX;
}

/* The announced window takes the place of the open one when its time has come. */
static inline void swn_windows_begin(swn_windows_t *windows, int64_t now_us)
{
    if (windows->next_from_us <= now_us) {
        windows->open_until_us = windows->next_until_us;
        windows->next_from_us = INT64_MAX;
    }
}

/* What begins at once is the open window (an empty one closes it); anything else is the announced one. */
static inline void swn_windows_listen(swn_windows_t *windows, int64_t now_us, int64_t from_us, int64_t until_us)
{
    swn_windows_begin(windows, now_us);
    if (from_us <= now_us) {
        windows->open_until_us = until_us;
    } else {
        windows->next_from_us = from_us;
        windows->next_until_us = until_us;
    }
}

static inline uint8_t swn_windows_open(const swn_windows_t *windows, int64_t now_us)
{
    return (uint8_t)(now_us < windows->open_until_us);
}

#endif
