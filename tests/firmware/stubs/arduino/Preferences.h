/* STUB: as much of arduino-esp32's Preferences as the RadioLib example uses. */
#ifndef PREFERENCES_STUB_H
#define PREFERENCES_STUB_H

#include "Arduino.h"

class Preferences {
  public:
    bool begin(const char *name, bool readOnly = false);
    size_t putBytes(const char *key, const void *value, size_t len);
    size_t getBytes(const char *key, void *buf, size_t maxLen);
    size_t getBytesLength(const char *key);
    size_t putUInt(const char *key, uint32_t value);
    uint32_t getUInt(const char *key, uint32_t defaultValue = 0);
};

#endif
