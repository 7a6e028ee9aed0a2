/* Judging together: what a node does when its gate picks an expert that it does not hold.
 *
 * Theory of operation.  swn_judge() runs the model. When all chosen experts are here, or the judgement is sure
 * enough without the missing ones (config.ask_below), it is final: no airtime. Otherwise an ASK goes up with the
 * experts' input in 34 bytes; the REPLY brings what the missing experts add to the hidden vector, and the node ends
 * the computation itself, with its own adapter and head. A gateway that holds the expert replies in RX1 or RX2 of
 * the ASK. Else it asks holders first, and the REPLY waits for a later uplink: the ASK is sent again after
 * config.ask_retry_s, then after twice that, at most SWN_ASK_TRIES times. What is missing at the deadline
 * stays missing; the judgement without it was there from the start.
 *
 * The other side, a holder: an EXPERT_QUERY brings the same picks and input; what the holder's experts add goes up
 * in an OUTPUT, like an answer.
 * EXPERTS says now and then which experts the node holds and which its gate has chosen.
 *
 * Integer and bit for bit the same on every node, so that two honest holders send the same bytes. */
#ifndef SWN_ASK_H
#define SWN_ASK_H

#include <stdint.h>

#include "swn_expert.h"
#include "swn_model.h"

enum { SWN_ASK_TRIES = 4, SWN_ASK_RETRY_S = 10 };

typedef enum swn_judged {
    SWN_JUDGED_ALONE = 0, /* final: nothing is missing, it is sure enough, or nobody could help in time */
    SWN_JUDGED_ASKING,    /* may change: others were asked */
    SWN_JUDGED_TOGETHER   /* final, with what others computed */
} swn_judged_t;

typedef struct swn_judgement {
    uint8_t probabilities[SWN_CLASSES_MAX]; /* in 1/255, sum 255 */
    uint16_t ask_id;                        /* when others were asked */
    uint8_t state;                          /* swn_judged_t */
    uint8_t missing;                        /* bit s: the s-th chosen expert is left out */
} swn_judgement_t;

/* One question of a node to the swarm; one at a time. */
typedef struct swn_ask {
    int64_t due_us;
    int64_t until_us;
    uint32_t retry_s;
    uint16_t id;      /* of the last question */
    uint8_t state;    /* swn_judged_t; SWN_JUDGED_ASKING: in flight */
    uint8_t tries;
    uint8_t context;
    uint8_t rule;     /* that the inputs gave */
    uint8_t missing;
    uint8_t probabilities[SWN_CLASSES_MAX];
    int8_t hidden[SWN_HIDDEN]; /* without what is missing */
    uint8_t frame[SWN_ASK_SIZE];
} swn_ask_t;

/* What the node's gate chose so far, and when it says so next. */
typedef struct swn_experience {
    int64_t due_us; /* of the next EXPERTS; SWN_NEVER_US: the node holds all, or is not asked to say */
    uint16_t seen[SWN_EXPERTS_MAX];
    uint8_t tells;  /* EXPERTS that are still to be sent soon: what the node holds has changed */
} swn_experience_t;

#endif
