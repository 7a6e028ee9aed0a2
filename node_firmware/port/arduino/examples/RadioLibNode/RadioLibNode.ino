/* A node of the swarm on an ESP32 with an SX1262 (Heltec WiFi LoRa 32 V3 and kin), with RadioLib.
 *
 * Put two files beside this one:
 *     cp pilot-keys/headers/a1.h identity.h              the node's keys, from `swarm pilot provision`
 *     swarm model header > model.h                       the model, as an array
 * and write readSensors(). Other boards: the radio's pins, and store...() where there are no Preferences.
 */
#include <Preferences.h>
#include <RadioLib.h>

#include "identity.h"
#include "model.h"

#include <SwarmNode.h>
#include <SwarmRadioLib.h>

SX1262 radio = new Module(8, 14, 12, 13); /* NSS, DIO1, reset, busy */
LoRaWANNode lorawan(&radio, &SWN_REGION_ID);

static Preferences store;
static swn_model_t model;
static swn_node_t node;
static swn_port_t port;
static SwarmRadioLib swarmRadio(radio, lorawan, node);
static uint32_t keptFCnt;

static const int64_t SECOND_US = 1000000;
static const int64_t HOUR_US = 3600 * SECOND_US;
static int64_t readingUs;
static int64_t joinUs;
static uint32_t joinPauseS = 15;

/* millis() begins anew after 49 days; this does not. */
static int64_t clockUs()
{
    static uint32_t before;
    static int64_t us;
    const uint32_t now = static_cast<uint32_t>(millis());

    us += static_cast<int64_t>(now - before) * 1000;
    before = now;
    return us;
}

/* Yours: the hour that ended at `hour` o'clock, local time. */
static bool readSensors(swn_sample_t &sample)
{
    sample.temperature_centi = SWN_TEMPERATURE_MISSING;
    sample.humidity_half = SWN_HUMIDITY_MISSING;
    sample.rain_tenth = SWN_RAIN_MISSING;
    sample.hour = static_cast<uint8_t>(clockUs() / HOUR_US % 24);
    return true;
}

/* What outlives a reset ---------------------------------------------------------------------------- */

static void stop(const char *what, int code)
{
    for (;;) {
        Serial.print(what);
        Serial.println(code);
        delay(10000);
    }
}

/* Going on without would forget in a reset which masks and nonces are used up. */
static void keep(const char *name, const void *data, size_t size)
{
    if (store.putBytes(name, data, size) != size) {
        stop("Preferences do not keep this; bytes: ", static_cast<int>(size));
    }
}

static void storeNode(void *, uint8_t key, const void *data, size_t size)
{
    const char name[] = {'n', 'v', 'm', static_cast<char>('0' + key), '\0'};

    keep(name, data, size);
}

static void recallNode()
{
    static uint8_t bytes[sizeof(swn_parameters_t) > 4096 ? sizeof(swn_parameters_t) : 4096];

    for (uint8_t key = SWN_NVM_PARAMETERS; key <= SWN_NVM_LAST; key++) {
        const char name[] = {'n', 'v', 'm', static_cast<char>('0' + key), '\0'};
        const size_t size = store.getBytesLength(name);
        if (size > 0 && size <= sizeof bytes && store.getBytes(name, bytes, size) == size) {
            (void)swn_recall(&node, key, bytes, size);
        }
    }
}

/* DevNonce and JoinNonce, which must never be used twice; and the session with its counters. RadioLib says when. */
static void storeNonces(uint8_t *bytes, size_t size)
{
    keep("nonces", bytes, size);
}

static void recallNonces(uint8_t *bytes, size_t size)
{
    memset(bytes, 0, size);
    (void)store.getBytes("nonces", bytes, size);
}

static void storeSession(uint8_t *bytes, size_t size)
{
    keep("session", bytes, size);
}

static void recallSession(uint8_t *bytes, size_t size)
{
    memset(bytes, 0, size);
    (void)store.getBytes("session", bytes, size);
}

/* LoRaWAN ------------------------------------------------------------------------------------------ */

static void beginLorawan()
{
    lorawan.setCallbackStorePersistence(storeNonces);
    lorawan.setCallbackRestorePersistence(recallNonces);
    lorawan.setCallbackStoreSession(storeSession);
    lorawan.setCallbackRestoreSession(recallSession);
#ifdef SWN_ACTIVATION_ABP
    static const uint8_t nwkSKey[] = SWN_NWK_S_KEY, appSKey[] = SWN_APP_S_KEY;
    lorawan.beginABP(SWN_DEV_ADDR, nullptr, nullptr, nwkSKey, appSKey);
#else
    static const uint8_t devEui[] = SWN_DEV_EUI, joinEui[] = SWN_JOIN_EUI, appKey[] = SWN_APP_KEY;
    /* No NwkKey: LoRaWAN 1.0.4. */
    lorawan.beginOTAA(SwarmRadioLib::eui(joinEui), SwarmRadioLib::eui(devEui), nullptr, appKey);
#endif
    (void)lorawan.loadBuffers(); /* nothing there at the first start */
    static const SwarmGroup group = {SWN_MC_ADDR, SWN_MC_NWK_S_KEY, SWN_MC_APP_S_KEY, SWN_MC_FREQUENCY_HZ, SWN_MC_DATA_RATE};
    keptFCnt = store.getUInt("mc", 0);
    swarmRadio.setGroup(group, keptFCnt);
}

/* Pauses double and are random, so that a field that lost power together does not join together. */
static void join(int64_t nowUs)
{
    if (nowUs < joinUs) {
        return;
    }
#ifdef SWN_ACTIVATION_ABP
    const int16_t state = lorawan.activateABP();
#else
    const int16_t state = lorawan.activateOTAA();
#endif
    Serial.print(F("join: "));
    Serial.println(state);
    joinUs = clockUs() + static_cast<int64_t>(joinPauseS + radio.random(static_cast<int32_t>(joinPauseS))) * SECOND_US;
    joinPauseS = joinPauseS > 1800 ? 3600 : joinPauseS * 2;
    if (lorawan.isActivated()) {
        joinPauseS = 15;
        swarmRadio.tellPayload();
    }
}

void setup()
{
    swn_config_t config;

    Serial.begin(115200);
    store.begin("swarm", false);
    const int16_t state = radio.begin();
    if (state != RADIOLIB_ERR_NONE) {
        stop("radio: ", state);
    }
    const swn_status_t status = swn_model_open(&model, SWN_MODEL, sizeof SWN_MODEL);
    if (status != SWN_OK) {
        stop("model: ", status);
    }
    swn_provisioned_node(&config);
    config.model = &model;
    swarmRadio.begin(port, clockUs, nullptr, storeNode);
    if (swn_init(&node, &config, &port, clockUs()) != 0) {
        stop("identity.h is out of range: ", 0);
    }
    recallNode();
    beginLorawan();
    readingUs = HOUR_US;
    joinUs = clockUs() + static_cast<int64_t>(radio.random(10000)) * 1000;
}

void loop()
{
    int64_t nowUs = clockUs();

    if (nowUs >= readingUs) {
        swn_sample_t sample;
        readingUs += HOUR_US;
        if (readSensors(sample)) {
            (void)swn_sense(&node, nowUs, &sample);
        }
    }
    if (!lorawan.isActivated()) {
        join(nowUs);
        delay(100);
        return;
    }
    const int64_t nodeUs = swn_poll(&node, nowUs);
    const int64_t radioUs = swarmRadio.run();
    if (!swarmRadio.windowOpen() && swarmRadio.multicastFCnt() != keptFCnt) {
        keptFCnt = swarmRadio.multicastFCnt(); /* once a window: no frame of it can be played to us again */
        if (store.putUInt("mc", keptFCnt) == 0) {
            stop("Preferences do not keep the group's counter: ", static_cast<int>(keptFCnt));
        }
    }
    nowUs = clockUs();
    int64_t wakeUs = nodeUs < radioUs ? nodeUs : radioUs;
    wakeUs = wakeUs < readingUs ? wakeUs : readingUs;
    if (wakeUs > nowUs) {
        const int64_t waitMs = (wakeUs - nowUs) / 1000;
        delay(static_cast<uint32_t>(waitMs < 60000 ? waitMs : 60000)); /* light sleep where the board has it */
    }
}
