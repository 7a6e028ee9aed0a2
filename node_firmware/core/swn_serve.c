/* The choice of what a node answers with; see swn_serve.h. */
#include "swn_serve.h"

#include <string.h>

#include "swn_kernels.h"
#include "swn_train.h"

enum { NOT_SAID = 255, FOLDS = 3, WEIGHT_ONE = 210, SURE = 191 };

static uint8_t class_of(const swn_model_t *model, const int16_t *head, const int8_t z[SWN_Z])
{
    int32_t logits[SWN_CLASSES_MAX];
    uint8_t best = 0;
    uint8_t c;

    swn_head_logits(head, model->classes, z, logits);
    for (c = 1; c < model->classes; c++) {
        best = logits[c] > logits[best] ? c : best;
    }
    return best;
}

static int is_labelled(const swn_own_t *own, unsigned slot)
{
    return slot < own->learner->used && own->learner->samples[slot].example.label < own->model->classes;
}

static const int16_t *global_head(const swn_own_t *own)
{
    return own->parameters->heads[own->context];
}

/* The label of the newest labelled sample that is older than `slot`'s. */
static uint8_t label_before(const swn_own_t *own, unsigned slot)
{
    const uint16_t id = own->learner->samples[slot].id;
    uint16_t nearest = UINT16_MAX;
    uint8_t label = NOT_SAID;
    unsigned i;

    for (i = 0; i < own->learner->used; i++) {
        const uint16_t behind = (uint16_t)(id - own->learner->samples[i].id);
        if (is_labelled(own, i) && behind > 0 && behind < 0x8000u && behind <= nearest) {
            nearest = behind;
            label = own->learner->samples[i].example.label;
        }
    }
    return label;
}

/* Slots from the oldest to the newest sample. */
static unsigned slot_at(const swn_learner_t *learner, unsigned age)
{
    return learner->used < SWN_SAMPLES_MAX ? age : (learner->next + age) % SWN_SAMPLES_MAX;
}

/* The personal head ------------------------------------------------------------------------------- */

/* Trains the global head on all labels but those of `fold`; FOLDS: on all. Which third a sample belongs to goes by
 * its place among the labelled ones. */
static void train_without(const swn_own_t *own, unsigned fold, int16_t *head)
{
    const uint8_t labelled = own->learner->labelled;
    swn_train_t train;
    unsigned epoch;

    swn_train_init(&train, own->model, own->parameters->adapter, global_head(own), own->seed + fold);
    train.rate_adapter = 0;
    swn_train_balance(&train, &own->learner->samples[0].example, sizeof(swn_day_sample_t), own->learner->used);
    for (epoch = 0; epoch < SWN_TRAIN_EPOCHS; epoch++) {
        unsigned place = 0;
        unsigned age;
        for (age = 0; age < own->learner->used; age++) {
            const unsigned slot = slot_at(own->learner, age);
            const swn_example_t *example = &own->learner->samples[slot].example;
            if (!is_labelled(own, slot)) {
                continue;
            }
            if (place++ * FOLDS / labelled != fold) {
                (void)swn_train_step(&train, example->hidden, example->label);
            }
        }
    }
    memcpy(head, train.parameters + SWN_HEAD_OFFSET, (size_t)own->parameters->head_size * sizeof(int16_t));
}

static void ask_fold(swn_serve_t *serve, const swn_own_t *own, unsigned fold)
{
    const uint8_t labelled = own->learner->labelled;
    unsigned place = 0;
    unsigned age;

    for (age = 0; age < own->learner->used; age++) {
        const unsigned slot = slot_at(own->learner, age);
        if (is_labelled(own, slot) && place++ * FOLDS / labelled == fold) {
            int8_t z[SWN_Z];
            swn_hidden_to_z(own->model, own->parameters->adapter, own->learner->samples[slot].example.hidden, z);
            serve->personal_said[slot] = class_of(own->model, serve->personal, z);
        }
    }
}

static void train_personal(swn_serve_t *serve, const swn_own_t *own)
{
    unsigned fold;

    memset(serve->personal_said, NOT_SAID, sizeof serve->personal_said);
    for (fold = 0; fold < FOLDS; fold++) {
        train_without(own, fold, serve->personal);
        ask_fold(serve, own, fold);
    }
    train_without(own, FOLDS, serve->personal);
    serve->has_personal = 1;
}

/* The comparison ----------------------------------------------------------------------------------- */

typedef struct said {
    uint8_t by[SWN_CHOICES][SWN_SAMPLES_MAX]; /* NOT_SAID: this candidate says nothing of this sample */
    uint8_t weight[SWN_CLASSES_MAX];
} said_t;

static void weigh_classes(said_t *said, const swn_own_t *own)
{
    uint8_t seen[SWN_CLASSES_MAX] = {0};
    unsigned i;

    for (i = 0; i < own->learner->used; i++) {
        if (is_labelled(own, i)) {
            seen[own->learner->samples[i].example.label]++;
        }
    }
    for (i = 0; i < SWN_CLASSES_MAX; i++) {
        said->weight[i] = (uint8_t)(seen[i] > 0 ? WEIGHT_ONE / seen[i] : 0);
    }
}

static void ask_all(said_t *said, const swn_serve_t *serve, const swn_own_t *own, const int16_t *shipped)
{
    unsigned i;

    memset(said->by, NOT_SAID, sizeof said->by);
    for (i = 0; i < own->learner->used; i++) {
        int8_t z[SWN_Z];
        if (!is_labelled(own, i)) {
            continue;
        }
        swn_hidden_to_z(own->model, own->parameters->adapter, own->learner->samples[i].example.hidden, z);
        said->by[SWN_SERVE_GLOBAL][i] = class_of(own->model, global_head(own), z);
        said->by[SWN_SERVE_KEPT][i] = class_of(own->model, serve->kept, z);
        said->by[SWN_SERVE_SHIPPED][i] = class_of(own->model, shipped, z);
        if (serve->has_personal) {
            said->by[SWN_SERVE_PERSONAL][i] = serve->personal_said[i] != NOT_SAID
                                                  ? serve->personal_said[i]
                                                  : class_of(own->model, serve->personal, z);
        }
        if (serve->rule[i] != SWN_RULE_NONE) {
            said->by[SWN_SERVE_RULE][i] = serve->rule[i];
            said->by[SWN_SERVE_LAST_LABEL][i] = label_before(own, i);
        }
    }
}

/* Whether `a` is better than `b` by more than 1.4 sd of what chance does to the samples they disagree on. */
static int beats(const said_t *said, const swn_own_t *own, swn_choice_t a, swn_choice_t b)
{
    int32_t ahead = 0;
    int32_t variance = 0;
    unsigned i;

    for (i = 0; i < own->learner->used; i++) {
        const uint8_t label = own->learner->samples[i].example.label;
        int a_right;
        int b_right;
        if (!is_labelled(own, i)) {
            continue;
        }
        a_right = said->by[a][i] == label;
        b_right = said->by[b][i] == label;
        if (a_right != b_right) {
            const int32_t weight = said->weight[label];
            ahead += a_right ? weight : -weight;
            variance += weight * weight;
        }
    }
    return ahead > 0 && ahead * ahead >= 2 * variance;
}

/* The best by the labels; `best` is what a crop starts with. */
static swn_choice_t compare(const swn_serve_t *serve, const swn_own_t *own, const int16_t *shipped, swn_choice_t best)
{
    swn_choice_t other;
    said_t said;

    weigh_classes(&said, own);
    ask_all(&said, serve, own, shipped);
    if (best == SWN_SERVE_SHIPPED && beats(&said, own, SWN_SERVE_GLOBAL, SWN_SERVE_SHIPPED)) {
        best = SWN_SERVE_GLOBAL;
    }
    for (other = SWN_SERVE_KEPT; other <= SWN_SERVE_LAST_LABEL; other = (swn_choice_t)(other + 1)) {
        best = beats(&said, own, other, best) ? other : best;
    }
    return best;
}

/* Whether the public data of the context had every class: of one that they lack the shipped head knows nothing, and a node
 * that has not met it yet cannot tell by its labels. */
static int knows_all_classes(const swn_own_t *own)
{
    int8_t mean[SWN_CLASSES_MAX][SWN_Z];
    uint32_t count[SWN_CLASSES_MAX];
    unsigned c;

    if (!swn_model_prior(own->model, own->context, mean, count)) {
        return 1;
    }
    for (c = 0; c < own->model->classes; c++) {
        if (count[c] == 0) {
            return 0;
        }
    }
    return 1;
}

static void choose(swn_serve_t *serve, const swn_own_t *own)
{
    const size_t bytes = (size_t)own->parameters->head_size * sizeof(int16_t);
    int16_t shipped[SWN_HEAD_SIZE_MAX];
    const int known = swn_model_head(own->model, own->context, shipped) && knows_all_classes(own);
    const int changed = memcmp(shipped, global_head(own), bytes) != 0;

    if (own->learner->labelled >= SWN_SERVE_LABELS_MIN) {
        serve->choice = (uint8_t)compare(serve, own, shipped, known && changed ? SWN_SERVE_SHIPPED : SWN_SERVE_GLOBAL);
    } else if (known && serve->choice == SWN_SERVE_GLOBAL && memcmp(serve->kept, global_head(own), bytes) != 0) {
        serve->choice = SWN_SERVE_KEPT;
    }
    serve->no_gain =
        (uint8_t)(changed && serve->choice != SWN_SERVE_GLOBAL && serve->choice != SWN_SERVE_PERSONAL);
    if (serve->choice == SWN_SERVE_GLOBAL) {
        memcpy(serve->kept, global_head(own), bytes);
    }
}

/* What the node calls ------------------------------------------------------------------------------ */

void swn_serve_init(swn_serve_t *serve, const swn_own_t *own)
{
    memset(serve, 0, sizeof *serve);
    memset(serve->rule, SWN_RULE_NONE, sizeof serve->rule);
    memset(serve->personal_said, NOT_SAID, sizeof serve->personal_said);
    memset(serve->answered, NOT_SAID, sizeof serve->answered);
    (void)swn_model_head(own->model, own->context, serve->kept);
}

void swn_serve_sample(swn_serve_t *serve, uint8_t slot, uint8_t rule, uint8_t answered)
{
    serve->rule[slot] = rule;
    serve->personal_said[slot] = NOT_SAID;
    serve->answered[slot] = answered;
}

static void count_answer(swn_serve_t *serve, const swn_own_t *own, uint16_t id)
{
    unsigned slot;

    for (slot = 0; slot < own->learner->used; slot++) {
        if (own->learner->samples[slot].id == id && is_labelled(own, slot) && serve->answered[slot] != NOT_SAID) {
            serve->told++;
            serve->right = (uint8_t)(serve->right + (serve->answered[slot] == own->learner->samples[slot].example.label));
            serve->answered[slot] = NOT_SAID;
        }
    }
    if (serve->told >= SWN_RIGHT_TOLD_MAX) { /* the latest season counts more */
        serve->told /= 2;
        serve->right /= 2;
    }
}

uint8_t swn_serve_right(const swn_serve_t *serve)
{
    const unsigned told = serve->told;

    return (uint8_t)(told < SWN_RIGHT_TOLD_MIN ? 0u : 1u + (14u * serve->right + told / 2u) / told);
}

void swn_serve_label(swn_serve_t *serve, const swn_own_t *own, uint16_t id)
{
    const uint8_t labelled = own->learner->labelled;

    count_answer(serve, own, id);
    serve->labels++;
    if (labelled >= SWN_PERSONAL_LABELS_MIN && serve->labels >= SWN_SERVE_EVERY && serve->labels >= labelled / 4u) {
        train_personal(serve, own);
        serve->labels = 0;
    }
    if (labelled < 4 * SWN_SERVE_EVERY || serve->labels % SWN_SERVE_EVERY == 0) {
        choose(serve, own);
    }
}

void swn_serve_recall(swn_serve_t *serve, const void *data)
{
    memcpy(serve, data, sizeof *serve);
    memset(serve->rule, SWN_RULE_NONE, sizeof serve->rule);
    memset(serve->personal_said, NOT_SAID, sizeof serve->personal_said);
    memset(serve->answered, NOT_SAID, sizeof serve->answered);
}

void swn_serve_block(swn_serve_t *serve, const swn_own_t *own)
{
    choose(serve, own);
}

static uint8_t last_label(const swn_own_t *own)
{
    unsigned age;

    for (age = own->learner->used; age > 0; age--) {
        const unsigned slot = slot_at(own->learner, age - 1u);
        if (is_labelled(own, slot)) {
            return own->learner->samples[slot].example.label;
        }
    }
    return NOT_SAID;
}

static const int16_t *served_head(const swn_serve_t *serve, const swn_own_t *own, int16_t *shipped)
{
    switch (serve->choice) {
    case SWN_SERVE_KEPT:
        return serve->kept;
    case SWN_SERVE_PERSONAL:
        return serve->personal;
    case SWN_SERVE_SHIPPED:
        (void)swn_model_head(own->model, own->context, shipped);
        return shipped;
    default: /* a rule or a label that is not there now */
        return global_head(own);
    }
}

void swn_serve_infer(const swn_serve_t *serve, const swn_own_t *own, const int8_t z[SWN_Z], uint8_t rule,
                     uint8_t *probabilities)
{
    const uint16_t classes = own->model->classes;
    uint8_t said = NOT_SAID;

    if (serve->choice == SWN_SERVE_RULE) {
        said = rule;
    } else if (serve->choice == SWN_SERVE_LAST_LABEL) {
        said = last_label(own);
    }
    if (said < classes) {
        memset(probabilities, (255 - SURE) / (classes - 1), classes);
        probabilities[said] = (uint8_t)(255 - (255 - SURE) / (classes - 1) * (classes - 1));
    } else {
        int16_t shipped[SWN_HEAD_SIZE_MAX];
        int32_t logits[SWN_CLASSES_MAX];
        swn_head_logits(served_head(serve, own, shipped), classes, z, logits);
        swn_softmax(logits, classes, probabilities);
    }
}
