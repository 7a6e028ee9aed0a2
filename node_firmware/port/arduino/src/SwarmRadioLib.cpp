/* RadioLib's LoRaWANNode below the node; see SwarmRadioLib.h. */
#include "SwarmRadioLib.h"

namespace {

/* While a window is open, class C downlinks wait in the radio for this long at most. */
const int64_t LISTEN_US = 20000;
const size_t DOWNLINK_MAX = 256;

} // namespace

SwarmRadioLib::SwarmRadioLib(PhysicalLayer &radio, LoRaWANNode &lorawan, swn_node_t &node)
    : radio_(radio), lorawan_(lorawan), node_(node)
{
}

void SwarmRadioLib::begin(swn_port_t &port, int64_t (*clockUs)(), uint32_t (*random32)(void *),
                          void (*nvmWrite)(void *, uint8_t, const void *, size_t))
{
    clockUs_ = clockUs;
    swn_windows_init(&windows_);
    port = swn_port_t();
    port.ctx = this;
    port.tx = tx;
    port.listen = listen;
    port.random32 = random32;
    port.nvm_write = nvmWrite;
}

void SwarmRadioLib::setGroup(const SwarmGroup &group, uint32_t fCntNext)
{
    group_ = group;
    fCntNext_ = fCntNext;
}

uint64_t SwarmRadioLib::eui(const uint8_t bytes[8])
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 8; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

int SwarmRadioLib::tx(void *ctx, uint8_t fPort, const uint8_t *data, size_t size)
{
    SwarmRadioLib &self = *static_cast<SwarmRadioLib *>(ctx);

    if (!self.lorawan_.isActivated() || self.size_ > 0 || size == 0 || size > sizeof self.frame_) {
        return -1;
    }
    const RadioLibTime_t waitS = self.lorawan_.timeUntilUplink(true);
    if (waitS > 0) {
        return waitS < 3600 ? static_cast<int>(waitS) : 3600;
    }
    self.fPort_ = fPort;
    self.size_ = size;
    memcpy(self.frame_, data, size);
    return 0;
}

void SwarmRadioLib::listen(void *ctx, int64_t fromUs, int64_t untilUs)
{
    SwarmRadioLib &self = *static_cast<SwarmRadioLib *>(ctx);

    swn_windows_listen(&self.windows_, self.clockUs_(), fromUs, untilUs);
}

void SwarmRadioLib::hear(int64_t nowUs, const uint8_t *data, size_t size, const LoRaWANEvent_t &event)
{
    const float snr = radio_.getSNR();

    received++;
    if (event.multicast && event.fCnt + 1 > fCntNext_) {
        fCntNext_ = event.fCnt + 1;
    }
    swn_rx(&node_, nowUs, event.fPort, data, size, event.multicast ? 1 : 0,
           static_cast<int8_t>(snr < -127 ? -127 : snr > 127 ? 127 : snr));
}

void SwarmRadioLib::tellPayload()
{
    uint8_t most = lorawan_.getMaxPayloadLen(); /* ADR, dwell time and MAC commands that wait */

    if (most > SWN_PAYLOAD_MAX) {
        most = SWN_PAYLOAD_MAX;
    }
    swn_set_payload_max(&node_, most);
}

void SwarmRadioLib::send()
{
    uint8_t data[DOWNLINK_MAX];
    size_t size = 0;
    LoRaWANEvent_t event = {};

    const int16_t state = lorawan_.sendReceive(frame_, size_, fPort_, data, &size, false, nullptr, &event);
    if (state == RADIOLIB_ERR_UPLINK_UNAVAILABLE) {
        return; /* the duty cycle after all: it stays, and is tried again */
    }
    size_ = 0;
    sent += state >= RADIOLIB_ERR_NONE ? 1 : 0;
    lost += state >= RADIOLIB_ERR_NONE ? 0 : 1;
    lastError = state >= RADIOLIB_ERR_NONE ? lastError : state;
    tellPayload();
    if (state > RADIOLIB_ERR_NONE && size > 0) {
        hear(clockUs_(), data, size, event);
    }
}

void SwarmRadioLib::window(int64_t nowUs)
{
    swn_windows_begin(&windows_, nowUs);
    const bool wanted = swn_windows_open(&windows_, nowUs) != 0;
    if (wanted && !open_) {
        const int16_t state = lorawan_.startMulticastSession(RADIOLIB_LORAWAN_CLASS_C, group_.address, group_.appSKey,
                                                             group_.nwkSKey, fCntNext_, 0xFFFFFFFF, group_.frequencyHz,
                                                             group_.dataRate);
        open_ = state == RADIOLIB_ERR_NONE;
        lastError = open_ ? lastError : state;
        if (!open_) {
            windows_.open_until_us = nowUs; /* this one is lost; the next is announced in the node's next answer */
        }
    } else if (!wanted && open_) {
        (void)lorawan_.stopMulticastSession(0);
        open_ = false;
    }
}

int64_t SwarmRadioLib::run()
{
    const uint32_t before = received;

    if (size_ > 0) {
        send();
    }
    const int64_t nowUs = clockUs_();
    window(nowUs);
    if (open_) {
        uint8_t data[DOWNLINK_MAX];
        size_t size = 0;
        LoRaWANEvent_t event = {};

        if (lorawan_.getDownlinkClassC(data, &size, &event) > RADIOLIB_ERR_NONE && size > 0) {
            hear(nowUs, data, size, event);
            window(nowUs); /* it may have been the last one */
        }
    }
    if (received != before) {
        return nowUs; /* it may have made something due */
    }
    if (open_ || size_ > 0) {
        return nowUs + LISTEN_US;
    }
    return windows_.next_from_us > nowUs ? windows_.next_from_us : nowUs + 1;
}
