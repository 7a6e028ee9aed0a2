/* STUB, for tests/firmware/test_board_ports.py: as much of Zephyr's kernel as the port and the sample use. */
#ifndef ZEPHYR_KERNEL_STUB_H
#define ZEPHYR_KERNEL_STUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_LORASWARM_QUEUE 4
#define CONFIG_LORASWARM_MULTICAST 1
#define BIT(n) (1UL << (n))

typedef long atomic_val_t;
typedef atomic_val_t atomic_t;
atomic_val_t atomic_get(const atomic_t *target);
atomic_val_t atomic_set(atomic_t *target, atomic_val_t value);
atomic_val_t atomic_inc(atomic_t *target);

typedef struct {
    int64_t us;
} k_timeout_t;
#define K_NO_WAIT ((k_timeout_t){0})
#define K_USEC(t) ((k_timeout_t){(t)})
#define K_MSEC(t) ((k_timeout_t){(int64_t)(t) * 1000})
#define K_SECONDS(t) ((k_timeout_t){(int64_t)(t) * 1000000})
int32_t k_sleep(k_timeout_t timeout);

int64_t k_uptime_ticks(void);
uint64_t k_ticks_to_us_floor64(uint64_t ticks);

struct k_msgq {
    char *buffer;
    size_t msg_size;
    uint32_t max_msgs;
    uint32_t used;
};
#define K_MSGQ_DEFINE(name, size, count, align)                                                            \
    static char name##_buffer[(count) * (size)];                                                           \
    static struct k_msgq name = {name##_buffer, (size), (count), 0}
int k_msgq_put(struct k_msgq *msgq, const void *data, k_timeout_t timeout);
int k_msgq_get(struct k_msgq *msgq, void *data, k_timeout_t timeout);

#endif
