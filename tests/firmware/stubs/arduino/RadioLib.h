/* STUB: the part of RadioLib's interface that the example and its library use, and nothing else. Names, types and defaults are
 * those of RadioLib at commit 00c4fe93e72f43d4f1332ad5d6a21d9c426a85be (src/protocols/LoRaWAN/LoRaWAN.h,
 * src/protocols/PhysicalLayer/PhysicalLayer.h, src/modules/SX126x/SX1262.h). */
#ifndef RADIOLIB_STUB_H
#define RADIOLIB_STUB_H

#include "Arduino.h"

#define RADIOLIB_ERR_NONE (0)
#define RADIOLIB_LORAWAN_NEW_SESSION (-1118)
#define RADIOLIB_ERR_UPLINK_UNAVAILABLE (-1106)
#define RADIOLIB_ERR_NO_JOIN_ACCEPT (-1116)
#define RADIOLIB_LORAWAN_CLASS_C (0x02)
#define RADIOLIB_LORAWAN_DATA_RATE_UNUSED (0x0F)

typedef unsigned long RadioLibTime_t;

class Module {
  public:
    Module(uint32_t cs, uint32_t irq, uint32_t rst, uint32_t gpio);
};

class PhysicalLayer {
  public:
    virtual ~PhysicalLayer();
    virtual float getSNR();
    int32_t random(int32_t max);
};

class SX1262 : public PhysicalLayer {
  public:
    SX1262(Module *mod);
    int16_t begin(float freq = 434.0, float bw = 125.0, uint8_t sf = 9, uint8_t cr = 7, uint8_t syncWord = 0x12,
                  int8_t power = 10, uint16_t preambleLength = 8, float tcxoVoltage = 1.6, bool useRegulatorLDO = false);

  private:
    Module *mod;
};

struct LoRaWANBand_t {
    uint8_t bandNum;
};
extern const LoRaWANBand_t EU868;

struct LoRaWANJoinEvent_t;

struct LoRaWANEvent_t {
    uint8_t dir;
    bool confirmed;
    bool confirming;
    bool frmPending;
    uint8_t datarate;
    float freq;
    int16_t power;
    uint32_t fCnt;
    uint8_t fPort;
    uint8_t nbTrans;
    bool multicast;
    uint8_t mcGroupId;
};

class LoRaWANNode {
  public:
    LoRaWANNode(PhysicalLayer *phy, const LoRaWANBand_t *band, uint8_t subBand = 0);
    typedef void (*BufferCb_t)(uint8_t *buf, size_t len);
    void setCallbackStorePersistence(BufferCb_t cb);
    void setCallbackRestorePersistence(BufferCb_t cb);
    void setCallbackStoreSession(BufferCb_t cb);
    void setCallbackRestoreSession(BufferCb_t cb);
    int16_t loadBuffers();
    int16_t beginOTAA(uint64_t joinEUI, uint64_t devEUI, const uint8_t *nwkKey, const uint8_t *appKey);
    int16_t beginABP(uint32_t addr, const uint8_t *fNwkSIntKey, const uint8_t *sNwkSIntKey, const uint8_t *nwkSEncKey,
                     const uint8_t *appSKey);
    virtual int16_t activateOTAA(LoRaWANJoinEvent_t *joinEvent = NULL);
    virtual int16_t activateABP();
    bool isActivated();
    int16_t startMulticastSession(uint8_t cls, uint32_t mcAddr, const uint8_t *mcAppSKey, const uint8_t *mcNwkSKey,
                                  uint32_t mcFCntMin = 0, uint32_t mcFCntMax = 0xFFFFFFFF, uint32_t mcFreq = 0,
                                  uint8_t mcDr = RADIOLIB_LORAWAN_DATA_RATE_UNUSED);
    bool stopMulticastSession(uint8_t id, bool addRxFCnt = false);
    virtual int16_t sendReceive(const uint8_t *dataUp, size_t lenUp, uint8_t fPort, uint8_t *dataDown, size_t *lenDown,
                                bool isConfirmed = false, LoRaWANEvent_t *eventUp = NULL, LoRaWANEvent_t *eventDown = NULL);
    int16_t getDownlinkClassC(uint8_t *dataDown, size_t *lenDown, LoRaWANEvent_t *eventDown = NULL);
    RadioLibTime_t timeUntilUplink(bool seconds = false);
    virtual uint8_t getMaxPayloadLen();
};

#endif
