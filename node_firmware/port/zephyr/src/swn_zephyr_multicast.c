/* The cell's group in LoRaMac-node, with session keys from provisioning; called as Zephyr's subsys/lorawan/services/multicast.c does. */
#include <errno.h>
#include <string.h>

#include <LoRaMac.h>

#include "swn_zephyr.h"

int swn_zephyr_set_group(const swn_zephyr_group_t *group)
{
    McChannelParams_t channel;
    McRxParams_t receive;
    uint8_t app_s_key[16];
    uint8_t nwk_s_key[16];
    uint8_t status = 0;

    memcpy(app_s_key, group->app_s_key, sizeof app_s_key); /* the interface wants them writable, and copies them */
    memcpy(nwk_s_key, group->nwk_s_key, sizeof nwk_s_key);
    memset(&channel, 0, sizeof channel);
    channel.IsRemotelySetup = false;
    channel.IsEnabled = true;
    channel.GroupID = MULTICAST_0_ADDR;
    channel.Address = group->address;
    channel.McKeys.Session.McAppSKey = app_s_key;
    channel.McKeys.Session.McNwkSKey = nwk_s_key;
    channel.FCountMin = 0;
    channel.FCountMax = UINT32_MAX;
    if (LoRaMacMcChannelSetup(&channel) != LORAMAC_STATUS_OK) {
        return -EIO;
    }
    memset(&receive, 0, sizeof receive);
    receive.Class = CLASS_C;
    receive.Params.ClassC.Frequency = group->frequency_hz;
    receive.Params.ClassC.Datarate = (int8_t)group->data_rate;
    return LoRaMacMcChannelSetupRxParams(MULTICAST_0_ADDR, &receive, &status) == LORAMAC_STATUS_OK ? 0 : -EINVAL;
}
