/* Ed25519 signatures (RFC 8032): verification alone, the message in parts.
 *
 * Theory of operation.  A signature R || S of a message M under a public key A is genuine when R is, byte for byte, the
 * encoding of [S]B - [k]A with k = SHA-512(R || A || M) mod L: RFC 8032's check without the cofactor, which OpenSSL
 * makes too, so gateway and node never differ about a signature. Refused are, as there, S >= L, a key that is no point
 * of the curve, and every R that is not the canonical encoding; a key's y may be p or more. Refused besides are the
 * keys of small order, under which anybody can sign. Everything here is public: time may depend on the data.
 *
 * The message may be long: it goes through the hash as it comes, from flash in chunks of any size.
 */
#ifndef SWN_ED25519_H
#define SWN_ED25519_H

#include <stddef.h>
#include <stdint.h>

#include "swn_sha512.h"

enum { SWN_SIGNATURE_SIZE = 64, SWN_PUBLIC_KEY_SIZE = 32 };

typedef struct swn_ed25519 {
    swn_sha512_t hash;
    uint8_t signature[SWN_SIGNATURE_SIZE];
    uint8_t public_key[SWN_PUBLIC_KEY_SIZE];
} swn_ed25519_t;

void swn_ed25519_init(swn_ed25519_t *check, const uint8_t signature[SWN_SIGNATURE_SIZE],
                      const uint8_t public_key[SWN_PUBLIC_KEY_SIZE]);
void swn_ed25519_update(swn_ed25519_t *check, const uint8_t *data, size_t size);

/* 1: the signature is genuine. The check must be made anew afterwards. */
uint8_t swn_ed25519_final(swn_ed25519_t *check);

/* Who does the last step, with his first argument: a board's engine for the curve, or NULL for swn_ed25519_final(). */
typedef uint8_t (*swn_verify_t)(void *ctx, swn_ed25519_t *check);

#endif
