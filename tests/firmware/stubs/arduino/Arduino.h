/* STUB, for tests/firmware/test_board_ports.py: as much of Arduino as the RadioLib example uses. */
#ifndef ARDUINO_STUB_H
#define ARDUINO_STUB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define F(text) (text)

unsigned long millis();
void delay(uint32_t ms);

struct SerialStub {
    void begin(unsigned long baud);
    size_t print(const char *text);
    size_t println(int value);
};
extern SerialStub Serial;

#endif
