"""Builds the C node and its host port into the extension module `swarm._node` (cffi, API mode).

`pip install -e .` builds it by way of setup.py; `python swarm/_node_build.py` rebuilds it in place.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[1]
CORE = (
    "aes", "ask", "block", "borrow", "change", "clock", "cmac", "compose_changes", "compose_features",
    "compose_prototypes", "compose_sums", "ed25519", "erasure", "expert", "features", "field", "frame",
    "groups", "kernels", "learn", "listen", "mask", "math", "model", "node", "noise", "readings",
    "receive", "repair", "rules", "run", "sense", "serve", "sha512", "status", "train", "transport",
)  # fmt: skip
HOST = ("host", "host_flash")
SOURCES = [f"node_firmware/core/swn_{name}.c" for name in CORE]
SOURCES += [f"node_firmware/port/host/swn_{name}.c" for name in HOST]
FOLDERS = ["node_firmware/core", "node_firmware/port/host"]

CDEF = """
typedef struct {
    uint16_t model_version; int16_t adapter[512]; int16_t heads[8][330]; ...;
} swn_parameters_t;
typedef struct { int16_t residual[842]; uint8_t labelled; uint8_t used; ...; } swn_learner_t;
typedef struct { uint8_t choice; uint8_t no_gain; ...; } swn_serve_t;
typedef struct { uint16_t group; uint8_t position; uint8_t size; uint8_t keys[16][16]; ...; } swn_mask_t;
typedef struct {
    const swn_mask_t *mask; uint64_t seed; uint32_t status_period_s; uint32_t guard_us;
    uint16_t node_index; uint16_t first_day;
    uint8_t context; uint8_t flags; uint8_t payload_max; uint8_t epochs;
    uint8_t ask_below; uint8_t ask_retry_s; uint16_t refuses; ...;
} swn_config_t;
typedef struct { uint8_t id; uint8_t send; uint8_t use; int8_t offset_half; uint8_t days; ...; } swn_share_t;
typedef struct { swn_share_t share; ...; } swn_borrow_t;
typedef struct {
    swn_config_t config; swn_borrow_t borrow; swn_parameters_t parameters; swn_learner_t learner;
    swn_serve_t serve;
    int64_t status_due_us; int64_t update_due_us; int64_t update_close_us; int64_t window_from_us;
    int64_t window_until_us; uint32_t readings; uint32_t refused; uint32_t dropped; uint32_t sent;
    uint16_t day; uint16_t days_closed; uint16_t round; uint8_t day_sampled; uint8_t battery;
    uint8_t multicast_received; uint16_t repair_missing; ...;
} swn_node_t;
typedef struct {
    uint8_t probabilities[10]; uint16_t ask_id; uint8_t state; uint8_t missing; ...;
} swn_judgement_t;
typedef struct { uint16_t generation; uint16_t classes; uint16_t features; ...; } swn_model_t;
typedef struct { uint32_t index; uint8_t f_port; uint8_t size; uint8_t data[222]; ...; } swn_sent_t;
typedef struct { int64_t from_us; int64_t until_us; uint32_t index; ...; } swn_listening_t;
typedef struct { ...; } swn_flash_t;
typedef struct {
    swn_flash_t port; uint8_t *bytes; uint32_t opened; uint32_t rewritten; uint32_t failing;
    uint8_t unwanted[4]; ...;
} swn_host_flash_t;
typedef struct { uint32_t delay_us; uint8_t size; uint8_t data[16]; ...; } swn_transport_answer_t;
typedef struct {
    const swn_flash_t *flash; uint8_t *memory; size_t memory_size; uint64_t seed; uint8_t version;
    uint8_t integrity_key[16]; ...;
} swn_transport_config_t;
typedef struct { uint8_t memory_error; ...; } swn_erasure_t;
typedef struct {
    swn_erasure_t erasure; uint32_t session_cnt_next[4]; ...;
} swn_transport_t;
typedef struct { uint32_t size; uint8_t descriptor[4]; ...; } swn_stored_t;
typedef struct {
    swn_transport_t transport; uint8_t state; ...;
} swn_receive_t;
typedef struct {
    swn_receive_t receive; swn_host_flash_t flash; swn_stored_t stored; ...;
} swn_host_slot_t;
typedef struct {
    uint64_t memory_size; uint64_t image_size; uint32_t count; uint32_t outbox_used; uint32_t outbox_max;
    uint32_t listens_used; uint32_t listens_lost; uint32_t checks; swn_model_t model; uint8_t *image;
    swn_node_t *nodes; swn_host_slot_t *slots; uint8_t *busy; swn_sent_t *outbox;
    swn_listening_t *listens; ...;
} swn_host_t;

uint64_t swn_host_size(uint32_t count, uint64_t image_size, uint32_t flash_size);
int swn_host_init(swn_host_t *host, uint32_t count, const uint8_t *image, uint64_t image_size,
                  uint32_t flash_size);
void swn_host_trust(swn_host_t *host, uint32_t index, const uint8_t *signer, const uint8_t *block_key);
int swn_host_link(swn_host_t *host);
int swn_host_start(swn_host_t *host, uint32_t index, const swn_config_t *config, int64_t now_us);
void swn_host_withhold(swn_host_t *host, uint32_t index, uint16_t experts);
int swn_host_install(swn_host_t *host, uint32_t index, int64_t now_us);
int swn_host_reset(swn_host_t *host, uint32_t index, int64_t now_us);
void swn_host_sense(swn_host_t *host, int64_t now_us, const int16_t *temperature_centi,
                    const uint8_t *humidity_half, const uint16_t *rain_tenth, uint8_t hour, uint8_t *closed);
void swn_host_observe(swn_host_t *host, const uint32_t *indices, uint32_t n, int64_t now_us, uint16_t id,
                      const int8_t *x);
uint32_t swn_host_label(swn_host_t *host, uint16_t id, const uint8_t *labels);
void swn_host_rx(swn_host_t *host, const uint32_t *indices, uint32_t n, int64_t now_us, uint8_t f_port,
                 const uint8_t *data, uint32_t size, uint8_t multicast, int8_t snr_db);
void swn_host_poll(swn_host_t *host, int64_t now_us, int64_t *next_us);
void swn_host_infer(const swn_host_t *host, const uint32_t *indices, uint32_t n, const int8_t *x, uint8_t *p);
void swn_host_z(const swn_host_t *host, const uint32_t *indices, uint32_t n, const int8_t *x, int8_t *z);
void swn_host_day_features(const swn_host_t *host, int8_t *x);
void swn_host_own_features(const swn_host_t *host, int8_t *x);
uint8_t swn_host_contribute(const swn_model_t *model, const uint8_t *picks, uint8_t weight, uint8_t wanted,
                            const uint8_t *input, uint8_t *contribution);
void swn_host_verdicts(const swn_host_t *host, uint8_t *own, uint8_t *judged);
void swn_host_hidden(const swn_model_t *model, uint32_t n, const int8_t *x, int8_t *hidden, uint8_t *experts);
void swn_host_project(const swn_model_t *model, const int16_t *adapter, uint32_t n, const int8_t *hidden,
                      int8_t *z);
void swn_host_heads(const swn_model_t *model, const int16_t *head, uint32_t n, const int8_t *z, uint8_t *p);

void swn_judge(swn_node_t *node, int64_t now_us, uint8_t context, const int8_t *x, uint16_t deadline_s,
               swn_judgement_t *out);
void swn_judgement(const swn_node_t *node, swn_judgement_t *out);
void swn_coarse_put(const int8_t *values, uint8_t *out);
void swn_coarse_get(const uint8_t *coarse, int8_t *values);
uint8_t swn_model_experts(const swn_model_t *view);
uint16_t swn_model_held(const swn_model_t *view);
uint8_t swn_model_can_ask(const swn_model_t *view);
int64_t swn_poll(swn_node_t *node, int64_t now_us);
void swn_set_battery(swn_node_t *node, uint8_t battery);
void swn_set_payload_max(swn_node_t *node, uint8_t payload_max);
int swn_model_open(swn_model_t *view, const uint8_t *image, size_t size);
int swn_model_head(const swn_model_t *view, uint8_t context, int16_t *out);
void swn_model_adapter(const swn_model_t *view, int16_t *out);

typedef struct { ...; } swn_ed25519_t;
void swn_ed25519_init(swn_ed25519_t *check, const uint8_t *signature, const uint8_t *public_key);
void swn_ed25519_update(swn_ed25519_t *check, const uint8_t *data, size_t size);
uint8_t swn_ed25519_final(swn_ed25519_t *check);

typedef struct { ...; } swn_aes_t;
typedef struct { ...; } swn_noise_t;
void swn_aes_init(swn_aes_t *aes, const uint8_t *key);
void swn_aes_encrypt(const swn_aes_t *aes, const uint8_t *in, uint8_t *out);
void swn_mask_seed(const swn_mask_t *mask, uint8_t peer, uint16_t round, uint8_t *seed);
void swn_mask_apply(const swn_mask_t *mask, uint16_t round, uint16_t *values, size_t count);
void swn_noise_init(swn_noise_t *noise, const uint8_t *key);
uint64_t swn_noise_below(swn_noise_t *noise, uint64_t range);
int32_t swn_noise_gaussian(swn_noise_t *noise, uint16_t sigma);

typedef struct { int32_t temperature_sum_centi; uint8_t wet_hours; uint8_t dry_hours; ...; } swn_spell_t;
typedef struct { uint8_t index; uint8_t started; ...; } swn_mildew_t;
typedef struct {
    int32_t wet_sum_centi; int32_t humid_sum_centi; uint8_t wet_hours; uint8_t humid_hours; uint8_t warm_run;
    uint8_t hot; uint8_t progress; ...;
} swn_day_t;
typedef struct { uint8_t risk; uint8_t index; ...; } swn_verdict_t;
uint8_t swn_spell_hour(swn_spell_t *spell, int16_t temperature_centi, uint8_t wet);
uint8_t swn_tomcast_severity(int32_t sum_centi, uint8_t hours);
uint8_t swn_wallin_severity(int32_t sum_centi, uint8_t hours);
swn_mildew_t swn_mildew_next(swn_mildew_t state, uint8_t warm_run, uint8_t hot);
swn_verdict_t swn_rule(uint8_t context, const swn_day_t *day, swn_mildew_t mildew);
uint8_t swn_is_humid(int32_t temperature_centi, int32_t dew_point_centi);
uint8_t swn_rain_level(uint32_t rain_tenth);

void swn_host_flash_init(swn_host_flash_t *flash, uint8_t *bytes, uint32_t size);
void swn_parity_row(uint16_t n, uint16_t count, uint8_t version, uint8_t *row);
void swn_transport_key(const uint8_t *root, uint8_t *key);
void swn_transport_init(swn_transport_t *transport, const swn_transport_config_t *config,
                        const uint32_t *session_cnt_next);
int swn_transport_rx(swn_transport_t *transport, const uint8_t *payload, size_t size, uint8_t group,
                     swn_transport_answer_t *answer);
uint32_t swn_transport_size(const swn_transport_t *transport);
uint16_t swn_erasure_missing(const swn_erasure_t *erasure);

typedef struct {
    uint32_t address; uint32_t f_cnt_min; uint32_t f_cnt_max; uint8_t nwk_s_key[16]; uint8_t app_s_key[16];
    uint32_t session_start_s; uint32_t session_length_s; uint32_t session_frequency_hz; uint8_t session_rate;
    uint8_t has_session; uint8_t is_set; ...;
} swn_group_t;
typedef struct { swn_group_t groups[4]; ...; } swn_groups_t;
typedef struct { uint8_t size; uint8_t which; uint8_t data[48]; ...; } swn_groups_answer_t;
void swn_groups_key(const uint8_t *root, uint8_t version_1_1, uint8_t *ke_key);
void swn_groups_init(swn_groups_t *groups, const uint8_t *ke_key, uint8_t version);
int swn_groups_rx(swn_groups_t *groups, uint32_t gps_now_s, const uint8_t *payload, size_t size,
                  uint8_t (*channel)(void *, uint32_t, uint8_t), void *user, swn_groups_answer_t *answer);
typedef struct { uint8_t is_set; ...; } swn_clock_t;
typedef struct { uint8_t size; uint8_t data[24]; ...; } swn_clock_message_t;
void swn_clock_init(swn_clock_t *clock, int64_t now_us, uint64_t seed, uint8_t version);
uint32_t swn_clock_gps_s(const swn_clock_t *clock, int64_t now_us);
uint8_t swn_clock_rx(swn_clock_t *clock, int64_t now_us, const uint8_t *payload, size_t size,
                     uint8_t multicast, swn_clock_message_t *answer);
int64_t swn_clock_poll(swn_clock_t *clock, int64_t now_us, swn_clock_message_t *request);
"""


def builder(root: str) -> FFI:
    """The module's builder with C files below `root` ("" for paths relative to setup.py)."""
    ffi = FFI()
    ffi.cdef(CDEF)
    headers = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.h"))]
    ffi.set_source(
        "swarm._node",
        '#include "swn_host.h"\n#include "swn_host_flash.h"\n#include "swn_clock.h"\n'
        '#include "swn_ed25519.h"\n#include "swn_groups.h"',
        sources=[root + source for source in SOURCES],
        include_dirs=[root + folder for folder in FOLDERS],
        depends=[root + str(path.relative_to(ROOT)) for path in headers],
        extra_compile_args=["-O2", "-std=c99"],
    )
    return ffi


ffibuilder = builder("")


def build_in_place() -> Path:
    """Compiles in a temporary folder and puts only the module beside this file, named as pip names it."""
    target = ROOT / "swarm" / "_node.abi3.so"
    with tempfile.TemporaryDirectory() as folder:
        built = builder(f"{ROOT}/").compile(tmpdir=folder)
        staged = target.with_suffix(".new")
        shutil.copy(built, staged)
        staged.replace(target)  # a running process keeps the module that it has mapped
    for other in target.parent.glob("_node.*.so"):
        if other != target:
            other.unlink()  # an older build under another name would be imported first
    return target


if __name__ == "__main__":
    print(build_in_place())  # noqa: T201
