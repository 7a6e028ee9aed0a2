/* The node: what one LoRa microcontroller of the swarm does between its sensors and its LoRaWAN stack.
 *
 * Theory of operation.  Everything happens inside a few calls, none of which blocks or allocates:
 *   swn_sense()  once an hour: keeps 48 h of readings; the reading taken at noon (of the hour that ends
 *                then) closes a day and makes one sample (features, the crop's rule, hidden vector);
 *   swn_observe() instead, by any other application than weather: one sample from features it computed;
 *   swn_label()  the true class of a closed day (of an observation), told later (a LABEL from afar does the same);
 *   swn_rx()     a downlink, already decrypted by the LoRaWAN stack; hostile bytes change nothing;
 *   swn_poll()   sends what is due and says when it wants to be called again;
 *   swn_infer_own() / swn_infer()  the risk now, or for given features;
 *   swn_judge()  the same, asking others for experts that are not here (swn_ask.h).
 * Outgoing messages wait in fixed slots (answers, one update, the status).  When the port's tx says
 * "busy" they stay and are tried again; an answer is given up after 10 minutes and an update at the
 * round's close, and both are counted in `dropped`.
 * Rounds: a ROUND names a cohort; if the node's lot is in it, the update is composed and sent at a random
 * time in [5 s, 5 s + spread) after the announcement, and stays pending until an ACK (swn_learn.h). An update
 * that is larger than a frame goes out in fragments, one after another as the port takes them. What members
 * of a masking group do for one another when some were not heard is in swn_repair.h. A round for
 * new contexts is for nodes alone whose crop the model was shipped without; they train their head only.
 * Lending: a SHARE makes it send its day's readings after noon, or ask for a neighbour's (swn_borrow.h).
 * Listening: each ROUND or SCHEDULE says when the next multicast window opens; port->listen is told once.
 * ROUND is the last frame of a window's programme: the first one that is heard closes the open window.
 * Large blocks: where the board gives a flash and the signer's key, OFFER opens a session in which a model
 * container is put together; the receiver stays on for it (swn_receive.h, swn_listen.h).
 *
 * Time is int64 microseconds of any clock that never goes back.  All chance comes from config.seed (and
 * port->random32, where there is one): the same calls give the same bytes.
 */
#ifndef SWN_NODE_H
#define SWN_NODE_H

#include <stddef.h>
#include <stdint.h>

#include "swn_ask.h"
#include "swn_block.h"
#include "swn_borrow.h"
#include "swn_features.h"
#include "swn_frame.h"
#include "swn_learn.h"
#include "swn_listen.h"
#include "swn_model.h"
#include "swn_receive.h"
#include "swn_rules.h"
#include "swn_serve.h"

#define SWN_NEVER_US INT64_MAX

enum {
    SWN_ANSWERS_MAX = 4,         /* queries that can wait for their answer */
    SWN_ANSWER_LIFE_S = 600,     /* after that nobody waits any more */
    SWN_UPDATE_GUARD_S = 5,      /* silence after an announcement */
    SWN_RETRY_S = 5,             /* after "busy", plus as much again at random */
    SWN_FRAGMENT_GAP_S = 1,      /* between the fragments of an update, plus up to SWN_RETRY_S at random */
    SWN_VALID_HOURS_MIN = 36,    /* readings of 48 that a sample needs */
    SWN_NOON_HOUR = 12,
    SWN_FLAT_HUMIDITY_HOURS = 24, /* without any change: the sensor is suspected */
    SWN_CROPS = 4,               /* contexts with a rule */
    SWN_GENERAL_RULE = 1,        /* whose class serves crops that the model does not know, */
    SWN_SEASON_RULE = 3          /* and whose index */
};

/* swn_config_t.flags. Always on: the receiver is on whenever the node does not send (class C). Holder: the node says
 * which experts it holds even when it lacks none. */
enum { SWN_NO_HUMIDITY_SENSOR = 1, SWN_NO_RAIN_SENSOR = 2, SWN_ALWAYS_ON = 4, SWN_HOLDER = 8 };
/* Keys of port->nvm_write. */
enum {
    SWN_NVM_PARAMETERS = 1,
    SWN_NVM_RESIDUAL = 2,
    SWN_NVM_SERVE = 3,
    SWN_NVM_MASKED = 4,
    SWN_NVM_STORED = 5,
    SWN_NVM_LAST = SWN_NVM_STORED
};

/* The world below the node. tx and listen must be there; the others may be NULL. */
typedef struct swn_port {
    void *ctx;
    /* 0: taken. Otherwise busy (duty cycle, join, radio): try again, after that many seconds if > 0. */
    int (*tx)(void *ctx, uint8_t f_port, const uint8_t *data, size_t size);
    /* Open the multicast receiver from .. until; a later call replaces a window that has not begun, and one that begins
     * at once the one that is open. An empty window (until <= from) closes the one that is open now: nothing more is
     * wanted of it. */
    void (*listen)(void *ctx, int64_t from_us, int64_t until_us);
    /* True randomness, mixed into the seed once. */
    uint32_t (*random32)(void *ctx);
    /* Keep these bytes over a reset; hand them back to swn_recall() after swn_init(). */
    void (*nvm_write)(void *ctx, uint8_t key, const void *data, size_t size);
    /* The last step of checking a signature, by an engine for the curve; NULL: swn_ed25519_final() does it. */
    swn_verify_t verify;
} swn_port_t;

typedef struct swn_config {
    const swn_model_t *model;  /* opened by swn_model_open(); shared by any number of nodes */
    const swn_mask_t *mask;    /* its masking group, or NULL: no part in masked sums */
    swn_receive_t *receive;    /* the board's flash for large blocks, and the state beside it; NULL: none are taken */
    const uint8_t *signer;     /* Ed25519 key (32 B) whose blocks are taken; NULL: blocks come unsigned (benches and rigs
                                * only), and no large ones are taken */
    uint64_t seed;
    uint32_t status_period_s;  /* 60 .. */
    uint32_t guard_us;         /* how long before a window the receiver opens: the clock's error */
    uint16_t node_index;
    uint16_t first_day;        /* number of the noon-to-noon day in which the node starts */
    uint8_t context;           /* its crop, site or user, 0..7 */
    uint8_t flags;             /* SWN_NO_... */
    uint8_t payload_max;       /* application bytes of an uplink at its data rate, 16..222 */
    uint8_t epochs;            /* of local training; 0: the default */
    uint8_t ask_below;         /* others are asked when the best class has less than this, in 1/255; 0: never */
    uint8_t ask_retry_s;       /* 0: SWN_ASK_RETRY_S */
    uint16_t refuses;          /* bit m: it takes no part in rounds of mode m, whoever announces them */
} swn_config_t;

/* What must outlive a reset: which rounds' masks are used up. */
typedef struct swn_masked_memo {
    uint32_t used[SWN_MASKED_AHEAD / 32]; /* of the rounds after `over`: bit (round modulo SWN_MASKED_AHEAD) */
    uint16_t over;     /* this round and all before it: the gateway said so to this node alone */
    uint16_t releases; /* vectors sent, 255 also for more */
} swn_masked_memo_t;

typedef struct swn_pending_answer {
    int64_t due_us;
    int64_t until_us;
    uint16_t query_id;
    uint8_t waiting; /* 0: the slot is free */
    uint8_t size;
    uint8_t frame[SWN_OUTPUT_SIZE];
} swn_pending_answer_t;

/* Memory of the rules that reach beyond 48 h: as of the last noon, and as of the noon before. */
typedef struct swn_season {
    swn_mildew_t mildew;
    uint8_t yesterday[SWN_CROPS]; /* class of the last closed day by each crop's rule */
} swn_season_t;

/* Owned by the caller; fields are for reading only. */
typedef struct swn_node {
    swn_config_t config;
    const swn_port_t *port;
    int64_t sensed_us;        /* last reading; valid when readings > 0 */
    int64_t valid_us;         /* last reading with a temperature, or last observation */
    int64_t status_due_us;
    int64_t update_due_us;    /* SWN_NEVER_US: none */
    int64_t update_close_us;
    int64_t repair_due_us;    /* counts while repair_missing is not 0 */
    int64_t busy_until_us;
    int64_t window_from_us;   /* of the announced multicast window */
    int64_t window_until_us;
    uint32_t prng;
    uint32_t rain_tenth;      /* since the last status */
    uint32_t readings;
    uint32_t refused;         /* downlinks that were no valid frame, and blocks that failed their check */
    uint32_t dropped;         /* answers and updates that could not be sent in time */
    uint32_t sent;
    swn_season_t season;
    swn_season_t season_before;
    uint16_t day;             /* number of the running noon-to-noon day */
    uint16_t days_closed;
    uint16_t round;           /* last announced */
    uint8_t round_known;
    uint8_t update_mode;
    uint8_t update_heads_only;
    uint8_t update_slice;     /* bytes of it in each fragment */
    uint8_t update_fragment;  /* the next one */
    uint16_t update_size;     /* 0: not composed yet */
    uint8_t hours_in_day;
    uint8_t battery;
    uint8_t multicast_received;
    uint8_t rain_seen;
    uint8_t flat_temperature; /* hours without any change */
    uint8_t flat_humidity;
    uint8_t absent;           /* hours without a temperature */
    int8_t snr_db;            /* of the last downlink */
    uint8_t observed;         /* swn_observe() was called: the node judges its last observation */
    int8_t day_x[SWN_FEATURES_MAX]; /* of the last closed day, or the last observation */
    uint8_t day_sampled;      /* that day had enough readings for a sample */
    swn_sums_plan_t sums;       /* of the running round */
    swn_masked_memo_t masked;
    uint8_t masked_asks;        /* the next STATUS asks for the number of the round */
    uint16_t repair_round;      /* the last one in which it was asked for seeds, */
    uint16_t repair_received;   /* and the members heard, as the gateway said */
    uint16_t repair_missing;    /* whose seeds are still to be sent */
    uint8_t update[SWN_UPDATE_SIZE_MAX];
    swn_pending_answer_t answers[SWN_ANSWERS_MAX];
    swn_ask_t ask;
    swn_experience_t experience;
    swn_history_t history;
    swn_learner_t learner;
    swn_serve_t serve;
    swn_parameters_t parameters;
    swn_block_t block;
    swn_borrow_t borrow;
    swn_listen_t listen;
} swn_node_t;

/* 0, or -1 when a field of the config is out of its range or the port lacks tx or listen. */
int swn_init(swn_node_t *node, const swn_config_t *config, const swn_port_t *port, int64_t now_us);

/* One hourly reading. Hours that were left out count as missing. 1 when it closed a day: day_x is new, and
 * swn_poll() is to be called, because a noon makes things due that it did not know of. With a model of another shape
 * than weather's (56 features, 3 classes) a day makes no sample. */
uint8_t swn_sense(swn_node_t *node, int64_t now_us, const swn_sample_t *sample);

/* One more sample, not labelled yet, from features that the application computed: int8, as many as the model takes.
 * `id` is the application's name for it. What is own now is judged by the last observation. */
void swn_observe(swn_node_t *node, int64_t now_us, uint16_t id, const int8_t *x);

/* A neighbour's day was put beside the own readings: judges the last closed day again. */
void swn_amend_day(swn_node_t *node);

/* The history that the node judges by: its own, or with what it borrowed. */
const swn_history_t *swn_judged_history(const swn_node_t *node);

/* The true class of a day or an observation; 0 when the node has no unlabelled sample of it, or the model no such
 * class. */
uint8_t swn_label(swn_node_t *node, uint16_t id, uint8_t label);

void swn_rx(swn_node_t *node, int64_t now_us, uint8_t f_port, const uint8_t *data, size_t size, uint8_t multicast,
            int8_t snr_db);

/* Sends what is due; returns when it wants to be called again (later than now_us). */
int64_t swn_poll(swn_node_t *node, int64_t now_us);

/* Whether the model was shipped with an expert head for the node's crop. Other crops start with the shared head
 * and the general rule, and learn from the fleet. */
uint8_t swn_node_knows_crop(const swn_node_t *node);

/* Features and rule of the last 48 h as they stand, for a context's rule; without rule (low, 0) the last observation,
 * or zeros, where the model is not weather's. x has room for the model's features. */
swn_verdict_t swn_own_features(const swn_node_t *node, uint8_t context, int8_t *x);

/* The part of the node that swn_serve looks at. */
swn_own_t swn_node_own(const swn_node_t *node);

/* Hands what the node serves to the port's non-volatile memory. */
void swn_node_keep_choice(swn_node_t *node);

/* Probabilities of the model's classes in 1/255 (sum 255) by the node's own readings (last observation), or by given
 * features, of its own crop. */
void swn_infer_own(const swn_node_t *node, uint8_t *probabilities);
void swn_infer(const swn_node_t *node, const int8_t *x, uint8_t *probabilities);

/* The same by the head of any context (0..7). */
void swn_infer_context(const swn_node_t *node, uint8_t context, const int8_t *x, uint8_t *probabilities);

/* The same, and others are asked for what is missing when the node is not sure: `out` is the judgement as it stands.
 * deadline_s 0: alone. context above 7: the node's own. A question is in flight until swn_judgement() says otherwise;
 * meanwhile every other one is judged alone. */
void swn_judge(swn_node_t *node, int64_t now_us, uint8_t context, const int8_t *x, uint16_t deadline_s,
               swn_judgement_t *out);

/* The last question that was put to others, as it stands. */
void swn_judgement(const swn_node_t *node, swn_judgement_t *out);

/* Battery as LoRaWAN DevStatus (0 external, 1..254, 255 unknown), for the next status. */
void swn_set_battery(swn_node_t *node, uint8_t battery);

/* The data rate changed: application bytes of an uplink from now on (16..222, else ignored). */
void swn_set_payload_max(swn_node_t *node, uint8_t payload_max);

/* After swn_init(): what nvm_write was given before the reset. 0 when it is not of this version. */
uint8_t swn_recall(swn_node_t *node, uint8_t key, const void *data, size_t size);

/* The board has the model with other experts, swn_model_is_same() as the one that runs: the node goes on with that one,
 * keeps all that it learned, and says three times within half an hour which experts it holds. From now on `model` is used; the
 * old image is free. */
void swn_take_up(swn_node_t *node, int64_t now_us, const swn_model_t *model);

/* The node's own parts ----------------------------------------------------------------------------- */

/* 1 when the port took the message; otherwise nothing is tried before busy_until_us. */
uint8_t swn_transmit(swn_node_t *node, int64_t now_us, uint8_t f_port, const uint8_t *data, size_t size);

/* A free place for an answer; NULL: there is none (`dropped` counts it), or that question waits already. */
swn_pending_answer_t *swn_answer_slot(swn_node_t *node, uint16_t query_id);

/* Evenly in [0, range_ms), in us. */
int64_t swn_random_us(swn_node_t *node, uint32_t range_ms);

/* swn_sense.c: the class that the inputs say the crop's rule gives (SWN_RULE_NONE where they hold none), and the
 * judgement on a hidden vector, whoever computed it: as the node's own labels support it, or by another context's head. */
uint8_t swn_rule_said(const swn_node_t *node, const int8_t *x);
void swn_infer_hidden(const swn_node_t *node, uint8_t context, const int8_t hidden[SWN_HIDDEN], uint8_t rule,
                      uint8_t *probabilities);

/* swn_listen.c: a window is announced, or over; what the node wants to hear changed; it is to be
 * polled then. */
void swn_listen_init(swn_node_t *node, int64_t now_us);
void swn_plan_window(swn_node_t *node, int64_t now_us, uint32_t next_window_s, uint16_t window_s);
void swn_close_window(swn_node_t *node, int64_t now_us);
void swn_listen_update(swn_node_t *node, int64_t now_us);
void swn_listen_poll(swn_node_t *node, int64_t now_us);
int64_t swn_listen_due_us(const swn_node_t *node, int64_t now_us);

/* swn_receive.c: whether the board's part is there; an OFFER came; a payload of FPort 201 (0: the node takes none);
 * what is due to be said, and when. */
uint8_t swn_receive_is_set(const swn_receive_t *receive);
void swn_receive_init(swn_node_t *node, int64_t now_us);
uint8_t swn_receive_recall(swn_node_t *node, const void *data, size_t size);
void swn_on_offer(swn_node_t *node, int64_t now_us, const swn_offer_t *offer);
uint8_t swn_on_transport(swn_node_t *node, int64_t now_us, const uint8_t *data, size_t size, uint8_t multicast);
void swn_send_transport(swn_node_t *node, int64_t now_us);
int64_t swn_receive_due_us(const swn_node_t *node);

/* swn_sense.c: somebody told the true class of a day or an observation over the radio. */
void swn_on_label(swn_node_t *node, const swn_told_t *told);

/* swn_status.c: the delay until the first report; the age of an answer from the node's own readings, in 10 min; a report is
 * due. */
enum { SWN_AGE_UNKNOWN = 255 };
int64_t swn_status_delay_us(swn_node_t *node);
uint8_t swn_age_of_readings(const swn_node_t *node, int64_t now_us);
void swn_send_status(swn_node_t *node, int64_t now_us);

/* swn_ask.c: what the gate chose is counted; a REPLY or an EXPERT_QUERY came; an ASK, or EXPERTS, is sent when it is due. */
void swn_count_experts(swn_node_t *node, const uint8_t *picks);
void swn_on_reply(swn_node_t *node, const swn_reply_t *reply);
void swn_on_expert_query(swn_node_t *node, int64_t now_us, const swn_expert_query_t *query);
void swn_send_ask(swn_node_t *node, int64_t now_us);
void swn_plan_experts(swn_node_t *node, int64_t now_us);
/* The node was brought a block before the reset: what it holds then is said even if that is all. */
void swn_recall_experts(swn_node_t *node);
void swn_send_experts(swn_node_t *node, int64_t now_us);

#endif
