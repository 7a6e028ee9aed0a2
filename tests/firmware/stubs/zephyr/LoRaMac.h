/* STUB: the multicast part of LoRaMac-node's interface (src/mac/LoRaMac.h, LoRaMacTypes.h, LoRaMacCryptoNvm), in the shape in which
 * Zephyr's subsys/lorawan/services/multicast.c uses it. */
#ifndef LORAMAC_STUB_H
#define LORAMAC_STUB_H

#include <stdbool.h>
#include <stdint.h>

typedef enum eDeviceClass { CLASS_A = 0x00, CLASS_B = 0x01, CLASS_C = 0x02 } DeviceClass_t;
typedef enum eLoRaMacStatus { LORAMAC_STATUS_OK, LORAMAC_STATUS_BUSY } LoRaMacStatus_t;
typedef enum eAddressIdentifier { MULTICAST_0_ADDR = 0 } AddressIdentifier_t;

typedef struct sMcRxParams {
    DeviceClass_t Class;
    union uMcRxParams {
        struct {
            uint32_t Frequency;
            int8_t Datarate;
            uint16_t Periodicity;
        } ClassB;
        struct {
            uint32_t Frequency;
            int8_t Datarate;
        } ClassC;
    } Params;
} McRxParams_t;

typedef struct sMcChannelParams {
    bool IsRemotelySetup;
    bool IsEnabled;
    AddressIdentifier_t GroupID;
    uint32_t Address;
    union uMcKeys {
        uint8_t *McKeyE;
        struct {
            uint8_t *McAppSKey;
            uint8_t *McNwkSKey;
        } Session;
    } McKeys;
    uint32_t FCountMin;
    uint32_t FCountMax;
    McRxParams_t RxParams;
} McChannelParams_t;

LoRaMacStatus_t LoRaMacMcChannelSetup(McChannelParams_t *channel);
LoRaMacStatus_t LoRaMacMcChannelSetupRxParams(AddressIdentifier_t groupID, McRxParams_t *rxParams, uint8_t *status);

#endif
