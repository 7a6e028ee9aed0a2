/* A day's hourly readings in one frame: READINGS of docs/SPEC.md (twin of swarm/wire/readings.py).
 *
 * A day is the 24 hours up to a noon, hour 0 the one that ends at 13 o'clock.  Each quantity travels as its
 * first value and the differences from hour to hour, in steps of 1, 2, 4 or 8 of its unit, Rice coded.
 */
#ifndef SWN_READINGS_H
#define SWN_READINGS_H

#include <stddef.h>
#include <stdint.h>

enum { SWN_READINGS_HUMIDITY = 1, SWN_READINGS_RAIN = 2, SWN_READINGS_TEMPERATURE = 4 };

enum {
    SWN_READINGS_HOURS = 24,
    SWN_READINGS_ALL = 0xFFFFFF,
    SWN_READINGS_SIZE_MAX = 40,
    SWN_READINGS_HUMIDITY_TOP = 100,    /* in 1 % */
    SWN_READINGS_TEMPERATURE_TOP = 180, /* in 0.5 degC from -30 degC on */
    SWN_READINGS_STEP_MAX = 3
};

typedef struct swn_readings {
    uint32_t hours; /* bit i: hour i is there */
    uint32_t rainy;
    uint8_t age;        /* of the noon that ended the day, in 10 min */
    uint8_t content;    /* SWN_READINGS_... */
    uint8_t rain_tenth; /* mean of the rainy hours, 0.1 mm */
    uint8_t humidity[SWN_READINGS_HOURS];
    uint8_t temperature[SWN_READINGS_HOURS];
} swn_readings_t;

/* Writes the frame with these steps (0..3); 0 when it does not fit or says what the protocol cannot say. */
size_t swn_readings_pack(const swn_readings_t *message, uint8_t humidity_step, uint8_t temperature_step, uint8_t *out,
                         size_t room);

/* The same in the steps that a node sends: 2 % and 1 degC, coarser where that does not fit, in the end without the
 * temperature. */
size_t swn_readings_write(const swn_readings_t *message, uint8_t *out, size_t room);

/* 1 when the bytes are such a frame; `out` then holds values in the quantities' units. */
uint8_t swn_readings_read(const uint8_t *data, size_t size, swn_readings_t *out);

#endif
