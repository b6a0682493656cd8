#pragma once
#include <openssl/ssl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/core_names.h>
#include <openssl/params.h>

// SHA-1 as a plain value that is copied and resumed. EVP allocates two digest states a message for the same (OpenSSL 3.0), which
// costs more than hashing a voice packet; these functions are deprecated in favour of it and stay in every 3.x.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
static inline void copenssl_sha1_start(SHA_CTX *state) { SHA1_Init(state); }
static inline void copenssl_sha1_update(SHA_CTX *state, const void *bytes, size_t count) { SHA1_Update(state, bytes, count); }
static inline void copenssl_sha1_finish(SHA_CTX *state, unsigned char *digest) { SHA1_Final(digest, state); }
#pragma clang diagnostic pop
