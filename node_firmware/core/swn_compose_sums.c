/* Class sums and second moments under masks; see swn_compose.h.
 *
 * Theory of operation.  Of at most `samples_max` labelled samples not reported yet (the longest held first) the node sums, in
 * the first 20 dimensions of z: how many of each class, z per class, and z z' over all. Each sample is shortened to
 * `clip` first, so that no sample weighs more than the noise was made for. A sum becomes a whole number of steps of
 * 2^shift, rounded at random so that it is right on average; then come the noise and the masks of the group, modulo
 * 2^16, of which `bits` travel. A node without samples sends masked zeros: its silence would cost the group a repair,
 * and would tell that it has none. */
#include "swn_compose.h"

#include <string.h>

#include "swn_frame.h"
#include "swn_math.h"

enum { DIMS = SWN_SUMS_DIMS, SQUARES = DIMS * (DIMS + 1) / 2, VALUES_MAX = SWN_CLASSES_MAX * (1 + DIMS) + SQUARES };

typedef struct swn_sums {
    int32_t counts[SWN_CLASSES_MAX];
    int32_t z[SWN_CLASSES_MAX][DIMS];
    int32_t squares[SQUARES]; /* z[i] z[j], i <= j, row by row: at most 64 * 127^2 */
} swn_sums_t;

static uint32_t root(uint32_t square)
{
    uint32_t low = 0;
    uint32_t high = 1024; /* 20 * 128^2 is less than its square */

    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (middle * middle <= square) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* z within +-127 and, unless `clip` is 0, not longer than clip. */
static void shorten(int8_t z[SWN_Z], uint16_t clip)
{
    uint32_t square = 0;
    unsigned i;

    for (i = 0; i < DIMS; i++) {
        z[i] = (int8_t)(z[i] < -127 ? -127 : z[i]);
        square += (uint32_t)(z[i] * z[i]);
    }
    if (clip == 0 || square <= (uint32_t)clip * clip) {
        return;
    }
    square = root(square) + 1u; /* never longer than it should be */
    for (i = 0; i < DIMS; i++) {
        z[i] = (int8_t)(z[i] * (int32_t)clip / (int32_t)square);
    }
}

static void add_sample(swn_sums_t *sums, const int8_t z[SWN_Z], uint8_t label)
{
    unsigned at = 0;
    unsigned i;
    unsigned j;

    sums->counts[label]++;
    for (i = 0; i < DIMS; i++) {
        sums->z[label][i] += z[i];
        for (j = i; j < DIMS; j++) {
            sums->squares[at++] += z[i] * z[j];
        }
    }
}

static void gather(swn_learner_t *learner, const swn_update_t *update, swn_sums_t *sums)
{
    unsigned taken = 0;
    unsigned i;

    memset(sums, 0, sizeof *sums);
    for (i = 0; i < learner->used && taken < update->sums.samples_max; i++) {
        const unsigned oldest = learner->used < SWN_SAMPLES_MAX ? 0u : learner->next;
        swn_day_sample_t *sample = &learner->samples[(oldest + i) % SWN_SAMPLES_MAX];
        int8_t z[SWN_Z];

        if (sample->example.label == SWN_LABEL_NONE || sample->state == SWN_SAMPLE_REPORTED) {
            continue;
        }
        swn_hidden_to_z(update->model, update->parameters->adapter, sample->example.hidden, z);
        shorten(z, update->sums.clip);
        add_sample(sums, z, sample->example.label);
        sample->state = SWN_SAMPLE_PENDING;
        taken++;
    }
}

/* Steps of 2^shift, right on average, with noise. */
static uint16_t *coarse(uint16_t *out, const int32_t *sums, size_t count, uint8_t shift, uint16_t sigma,
                        swn_noise_t *noise)
{
    size_t i;

    for (i = 0; i < count; i++) {
        const int32_t up = (int32_t)swn_noise_below(noise, 1u << shift);
        *out++ = (uint16_t)((uint32_t)(((sums[i] + up) >> shift) + swn_noise_gaussian(noise, sigma)) & 0xFFFFu);
    }
    return out;
}

static size_t quantise(const swn_update_t *update, const swn_sums_t *sums, uint16_t *values)
{
    const swn_sums_plan_t *plan = &update->sums;
    const unsigned classes = update->model->classes;
    uint16_t *next = values;
    swn_noise_t noise;
    unsigned i;

    swn_noise_init(&noise, update->noise_key);
    next = coarse(next, sums->counts, classes, 0, plan->sigma_count, &noise);
    for (i = 0; i < classes; i++) {
        next = coarse(next, sums->z[i], DIMS, plan->shift_linear, plan->sigma_linear, &noise);
    }
    next = coarse(next, sums->squares, SQUARES, plan->shift_square, plan->sigma_square, &noise);
    return (size_t)(next - values);
}

static size_t summed_up(swn_learner_t *learner, const swn_update_t *update, uint16_t *values)
{
    swn_sums_t sums;

    gather(learner, update, &sums);
    return quantise(update, &sums, values);
}

size_t swn_compose_masked_sums(swn_learner_t *learner, const swn_update_t *update, uint8_t *out)
{
    uint16_t values[VALUES_MAX];
    swn_masked_header_t header;
    size_t count;

    if (update->mask == NULL) {
        return 0;
    }
    count = summed_up(learner, update, values);
    swn_mask_apply(update->mask, update->round, values, count);
    header.round = update->round;
    header.model_version = update->parameters->model_version;
    header.context = update->context;
    header.group = update->mask->group;
    header.position = update->mask->position;
    header.size = update->mask->size;
    header.classes = (uint8_t)update->model->classes;
    header.bits = update->sums.bits;
    return swn_frame_masked_sums(&header, values, count, out, SWN_UPDATE_SIZE_MAX);
}
