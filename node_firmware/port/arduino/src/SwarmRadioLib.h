/* RadioLib's LoRaWANNode below the node.
 *
 * Theory of operation. RadioLib sends and listens inside one call that lasts until the second receive window is over. So the
 * port only takes a frame; run() sends it, and gives the node what came back: nothing is heard while swn_poll() is at work. A
 * multicast window is a class C session of RadioLib's: opened when it begins, closed at its end or when the node says that its programme
 * is over, with the counter that was heard last carried from one to the next. After run() the node is polled again, because
 * what came in may have made something due.
 *
 * Written against RadioLib at commit 00c4fe93e72f43d4f1332ad5d6a21d9c426a85be (June 2026, towards 8.0): see README.md.
 */
#ifndef SWARM_RADIO_LIB_H
#define SWARM_RADIO_LIB_H

#include <RadioLib.h>

#include "SwarmNode.h"
#include "swn_windows.h"

/* Where the multicast group speaks, and its keys. */
struct SwarmGroup {
    uint32_t address;
    uint8_t nwkSKey[16];
    uint8_t appSKey[16];
    uint32_t frequencyHz;
    uint8_t dataRate;
};

class SwarmRadioLib {
  public:
    /* All three must outlive this object. */
    SwarmRadioLib(PhysicalLayer &radio, LoRaWANNode &lorawan, swn_node_t &node);

    /* Fills the port for swn_init(). All three functions are the sketch's: the clock that the node is given, and random32 and
     * nvm_write, which may be NULL. */
    void begin(swn_port_t &port, int64_t (*clockUs)(), uint32_t (*random32)(void *),
               void (*nvmWrite)(void *, uint8_t, const void *, size_t));

    /* fCntNext: the first multicast counter that is new, as multicastFCnt() said before a reset; 0 at first. */
    void setGroup(const SwarmGroup &group, uint32_t fCntNext);

    /* The next multicast counter: keep it when it has changed and no window is open. */
    uint32_t multicastFCnt() const { return fCntNext_; }
    bool windowOpen() const { return open_; }

    /* Sends what waits (it takes seconds) and hears what came. Call it when LoRaWAN is activated; returns when to come back. */
    int64_t run();

    /* What RadioLib lets through at the data rate of now: to be told after a join, too. */
    void tellPayload();

    /* An EUI as it is printed. */
    static uint64_t eui(const uint8_t bytes[8]);

    uint32_t sent = 0;
    uint32_t lost = 0; /* frames that the port took and that did not go out */
    uint32_t received = 0;
    int16_t lastError = RADIOLIB_ERR_NONE;

  private:
    static int tx(void *ctx, uint8_t fPort, const uint8_t *data, size_t size);
    static void listen(void *ctx, int64_t fromUs, int64_t untilUs);
    void send();
    void window(int64_t nowUs);
    void hear(int64_t nowUs, const uint8_t *data, size_t size, const LoRaWANEvent_t &event);

    PhysicalLayer &radio_;
    LoRaWANNode &lorawan_;
    swn_node_t &node_;
    SwarmGroup group_ = {};
    int64_t (*clockUs_)() = nullptr;
    uint32_t fCntNext_ = 0;
    swn_windows_t windows_ = {};
    bool open_ = false;
    uint8_t fPort_ = 0;
    size_t size_ = 0; /* of the frame that waits; 0: none */
    uint8_t frame_[SWN_PAYLOAD_MAX];
};

#endif
