/* What a node has seen, itself: z and label of its newest samples; see swn_compose.h. */
#include "swn_compose.h"

#include "swn_frame.h"
#include "swn_math.h"

enum { FEATURES_MAX = 12 }; /* of 16 bytes and a label in the largest frame */

/* Samples of which so many bytes hold z and label. */
static unsigned fit(unsigned room)
{
    unsigned n = 2u * room / (SWN_Z + 1u);

    n -= n > 0 && (n + 1u) / 2u + n * (SWN_Z / 2u) > room;
    return n < FEATURES_MAX ? n : FEATURES_MAX;
}

/* The newest labelled samples not reported yet, at most `most`; marks them. */
static unsigned choose(swn_learner_t *learner, unsigned most, const swn_day_sample_t **chosen)
{
    unsigned count = 0;
    unsigned i;

    for (i = 1; i <= learner->used && count < most; i++) {
        swn_day_sample_t *sample = &learner->samples[(learner->next + SWN_SAMPLES_MAX - i) % SWN_SAMPLES_MAX];
        if (sample->example.label != SWN_LABEL_NONE && sample->state != SWN_SAMPLE_REPORTED) {
            sample->state = SWN_SAMPLE_PENDING;
            chosen[count++] = sample;
        }
    }
    return count;
}

/* The smallest scale with which 4-bit steps reach this z, in 1/8 z. */
static int32_t scale_for(int32_t z)
{
    return z < 0 ? -z : (8 * z + 6) / 7;
}

size_t swn_compose_features(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    const swn_day_sample_t *chosen[FEATURES_MAX];
    int8_t z[FEATURES_MAX][SWN_Z];
    int8_t labels[FEATURES_MAX];
    swn_features_header_t header;
    int32_t scale = 1;
    size_t size = SWN_FEATURES_HEADER;
    unsigned count;
    unsigned i;
    unsigned d;

    if (update->payload_max <= SWN_FEATURES_HEADER) {
        return 0;
    }
    count = choose(learner, fit(update->payload_max - SWN_FEATURES_HEADER), chosen);
    if (count == 0) {
        return 0;
    }
    for (i = 0; i < count; i++) {
        labels[i] = (int8_t)chosen[i]->example.label;
        swn_hidden_to_z(update->model, update->parameters->adapter, chosen[i]->example.hidden, z[i]);
        for (d = 0; d < SWN_Z; d++) {
            scale = scale_for(z[i][d]) > scale ? scale_for(z[i][d]) : scale;
        }
    }
    swn_put_nibbles(out + size, labels, count);
    size += (count + 1u) / 2u;
    for (i = 0; i < count; i++) {
        for (d = 0; d < SWN_Z; d++) {
            const int32_t eighths = 8 * (int32_t)z[i][d];
            const int32_t half = eighths < 0 ? -scale / 2 : scale / 2;
            z[i][d] = (int8_t)swn_clamp((eighths + half) / scale, -8, 7);
        }
        swn_put_nibbles(out + size, z[i], SWN_Z);
        size += SWN_Z / 2u;
    }
    header.round = update->round;
    header.model_version = update->parameters->model_version;
    header.context = update->context;
    header.num_examples = (uint8_t)count;
    header.scale = (uint8_t)scale;
    return swn_frame_features_header(&header, out, update->payload_max) == 0 ? 0 : size;
}
