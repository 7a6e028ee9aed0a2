/* The RadioLib example on this computer: the real sketch and the real core above a stub of RadioLib, with a clock that obeys.
 *
 *   sketch_bench DIR     DIR keeps what Preferences were given; prints one line for each thing that the radio was told
 *
 * The stub's network answers the third join request; it sends a SCHEDULE after the first uplink (a window of a minute in
 * an hour, reports each half hour), and a ROUND when the window has been open for ten seconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string>

#include "Preferences.h"
#include "RadioLib.h"

static const uint64_t RUN_MS = 6ull * 3600 * 1000;
static uint64_t now_ms = 0;
static std::string folder;
static unsigned joins, uplinks;
static uint64_t open_ms;
static bool open_, told, joined, restored;
static uint32_t next_f_cnt;
static LoRaWANNode::BufferCb_t store_nonces, restore_nonces, store_session, restore_session;
static uint8_t nonces[8], session[64];

unsigned long millis()
{
    return static_cast<uint32_t>(now_ms);
}
void delay(uint32_t ms)
{
    now_ms += ms;
    if (now_ms > RUN_MS) {
        exit(0); /* the sketch may have stopped for good */
    }
}
void SerialStub::begin(unsigned long) {}
size_t SerialStub::print(const char *text)
{
    return static_cast<size_t>(printf("serial %s", text));
}
size_t SerialStub::println(int value)
{
    return static_cast<size_t>(printf("%d\n", value));
}
SerialStub Serial;

static FILE *file_of(const char *key, const char *mode)
{
    return fopen((folder + "/" + key).c_str(), mode);
}
bool Preferences::begin(const char *, bool)
{
    return true;
}
size_t Preferences::putBytes(const char *key, const void *value, size_t len)
{
    FILE *file = file_of(key, "wb");
    if (file == nullptr) {
        return 0;
    }
    const size_t done = fwrite(value, 1, len, file);
    fclose(file);
    return done;
}
size_t Preferences::getBytes(const char *key, void *buf, size_t maxLen)
{
    FILE *file = file_of(key, "rb");
    if (file == nullptr) {
        return 0;
    }
    const size_t done = fread(buf, 1, maxLen, file);
    fclose(file);
    return done;
}
size_t Preferences::getBytesLength(const char *key)
{
    static uint8_t bytes[65536];
    return getBytes(key, bytes, sizeof bytes);
}
size_t Preferences::putUInt(const char *key, uint32_t value)
{
    const size_t done = putBytes(key, &value, sizeof value);
    if (done > 0) {
        printf("kept %s %u at %llu s\n", key, value, static_cast<unsigned long long>(now_ms / 1000));
    }
    return done;
}
uint32_t Preferences::getUInt(const char *key, uint32_t defaultValue)
{
    uint32_t value;
    return getBytes(key, &value, sizeof value) == sizeof value ? value : defaultValue;
}

const LoRaWANBand_t EU868 = {0};
Module::Module(uint32_t, uint32_t, uint32_t, uint32_t) {}
PhysicalLayer::~PhysicalLayer() {}
float PhysicalLayer::getSNR()
{
    return -7.5f;
}
int32_t PhysicalLayer::random(int32_t max)
{
    return max / 2;
}
SX1262::SX1262(Module *module) : mod(module) {}
int16_t SX1262::begin(float, float, uint8_t, uint8_t, uint8_t, int8_t, uint16_t, float, bool)
{
    return RADIOLIB_ERR_NONE;
}

LoRaWANNode::LoRaWANNode(PhysicalLayer *, const LoRaWANBand_t *, uint8_t) {}
void LoRaWANNode::setCallbackStorePersistence(BufferCb_t cb)
{
    store_nonces = cb;
}
void LoRaWANNode::setCallbackRestorePersistence(BufferCb_t cb)
{
    restore_nonces = cb;
}
void LoRaWANNode::setCallbackStoreSession(BufferCb_t cb)
{
    store_session = cb;
}
void LoRaWANNode::setCallbackRestoreSession(BufferCb_t cb)
{
    restore_session = cb;
}
int16_t LoRaWANNode::loadBuffers()
{
    restore_nonces(nonces, sizeof nonces);
    restore_session(session, sizeof session);
    restored = session[0] == 1;
    return restored ? RADIOLIB_ERR_NONE : -1;
}
int16_t LoRaWANNode::beginOTAA(uint64_t joinEUI, uint64_t devEUI, const uint8_t *nwkKey, const uint8_t *appKey)
{
    printf("otaa %016llx %016llx nwk %d app %02x..%02x\n", static_cast<unsigned long long>(joinEUI),
           static_cast<unsigned long long>(devEUI), nwkKey != nullptr, appKey[0], appKey[15]);
    return RADIOLIB_ERR_NONE;
}
int16_t LoRaWANNode::beginABP(uint32_t addr, const uint8_t *, const uint8_t *, const uint8_t *nwk, const uint8_t *app)
{
    printf("abp %08x nwk %02x..%02x app %02x..%02x\n", addr, nwk[0], nwk[15], app[0], app[15]);
    return RADIOLIB_ERR_NONE;
}
int16_t LoRaWANNode::activateOTAA(LoRaWANJoinEvent_t *)
{
    if (restored) {
        joined = true;
        return 1;
    }
    nonces[0]++;
    store_nonces(nonces, sizeof nonces);
    now_ms += 6500;
    joined = ++joins == 3;
    printf("join request %u at %llu s\n", nonces[0], static_cast<unsigned long long>(now_ms / 1000));
    session[0] = joined;
    store_session(session, sizeof session);
    return joined ? RADIOLIB_LORAWAN_NEW_SESSION : RADIOLIB_ERR_NO_JOIN_ACCEPT;
}
int16_t LoRaWANNode::activateABP()
{
    joined = true;
    return RADIOLIB_LORAWAN_NEW_SESSION;
}
bool LoRaWANNode::isActivated()
{
    return joined;
}
int16_t LoRaWANNode::startMulticastSession(uint8_t cls, uint32_t mcAddr, const uint8_t *app, const uint8_t *nwk, uint32_t least,
                                           uint32_t, uint32_t mcFreq, uint8_t mcDr)
{
    printf("open class %u %08x app %02x nwk %02x from %u at %u Hz DR%u at %llu s\n", cls, mcAddr, app[0], nwk[0], least, mcFreq,
           mcDr, static_cast<unsigned long long>(now_ms / 1000));
    open_ = true;
    open_ms = now_ms;
    told = false;
    next_f_cnt = least;
    return RADIOLIB_ERR_NONE;
}
bool LoRaWANNode::stopMulticastSession(uint8_t id, bool)
{
    printf("close %u at %llu s\n", id, static_cast<unsigned long long>(now_ms / 1000));
    open_ = false;
    return true;
}
static int16_t put(uint8_t *to, size_t *size, const uint8_t *from, size_t from_size)
{
    memcpy(to, from, from_size);
    *size = from_size;
    return 1;
}
int16_t LoRaWANNode::sendReceive(const uint8_t *dataUp, size_t lenUp, uint8_t fPort, uint8_t *dataDown, size_t *lenDown, bool,
                                 LoRaWANEvent_t *, LoRaWANEvent_t *eventDown)
{
    static const uint8_t schedule[] = {1, 0x10, 0x0E, 0, 0, 60, 0, 30, 0};

    printf("uplink %u: port %u, %zu bytes, type %u at %llu s\n", ++uplinks, fPort, lenUp, dataUp[0],
           static_cast<unsigned long long>(now_ms / 1000));
    now_ms += 3000;
    store_session(session, sizeof session);
    eventDown->fPort = 12;
    eventDown->multicast = false;
    return uplinks == 1 ? put(dataDown, lenDown, schedule, sizeof schedule) : 0;
}
int16_t LoRaWANNode::getDownlinkClassC(uint8_t *dataDown, size_t *lenDown, LoRaWANEvent_t *eventDown)
{
    /* Round 5, mode none; the next window in an hour, for a minute. */
    static const uint8_t round[] = {1, 5, 0, 0, 0, 0, 255, 0, 0, 0x10, 0x0E, 0, 0, 0x10, 0x0E, 0, 0, 60, 0};

    if (!open_ || told || now_ms < open_ms + 10000) {
        return 0;
    }
    told = true;
    eventDown->fPort = 10;
    eventDown->multicast = true;
    eventDown->fCnt = next_f_cnt + 4;
    return put(dataDown, lenDown, round, sizeof round) + 2;
}
RadioLibTime_t LoRaWANNode::timeUntilUplink(bool)
{
    return 0;
}
uint8_t LoRaWANNode::getMaxPayloadLen()
{
    return 242;
}

void setup();
void loop();

int main(int argc, char **argv)
{
    folder = argc > 1 ? argv[1] : ".";
    setup();
    while (now_ms < RUN_MS) {
        const uint64_t before = now_ms;
        loop();
        now_ms += now_ms == before ? 1 : 0; /* a pass takes its time */
    }
    return 0;
}
