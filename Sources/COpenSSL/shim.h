#pragma once
#include <openssl/ssl.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/hmac.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/core_names.h>
#include <openssl/params.h>

// SHA-1 and SHA-256 as plain values that are copied and resumed. EVP allocates two digest states a message for the same (OpenSSL 3.0), which
// costs more than hashing a voice packet; these functions are deprecated in favour of it and stay in every 3.x.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
static inline void copenssl_sha1_start(SHA_CTX *state) { SHA1_Init(state); }
static inline void copenssl_sha1_update(SHA_CTX *state, const void *bytes, size_t count) { SHA1_Update(state, bytes, count); }
static inline void copenssl_sha1_finish(SHA_CTX *state, unsigned char *digest) { SHA1_Final(digest, state); }
static inline void copenssl_sha256_start(SHA256_CTX *state) { SHA256_Init(state); }
static inline void copenssl_sha256_update(SHA256_CTX *state, const void *bytes, size_t count) { SHA256_Update(state, bytes, count); }
static inline void copenssl_sha256_finish(SHA256_CTX *state, unsigned char *digest) { SHA256_Final(digest, state); }
// Where the library takes its randomness from: only the simulator asks for that. Deprecated in favour of providers, which are written in C.
static inline int copenssl_use_random_method(const RAND_METHOD *method) { return RAND_set_rand_method(method); }
#pragma clang diagnostic pop

// Begins a packet of AES-GCM under the key that a context has: all twelve bytes of its IV, and where it is decrypted the sixteen of its tag. EVP_CipherInit_ex2
// does the same, but asks the cipher for the length of an IV first, which costs more than a packet's AES (OpenSSL 3.0). A fixed part of length -1 is the whole
// IV; the caller has seen that this library thinks so, too.
static inline int copenssl_gcm_begin(EVP_CIPHER_CTX *context, const unsigned char *iv, const unsigned char *tag) {
    OSSL_PARAM params[3];
    int count = 0;
    if (tag != NULL) params[count++] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, (void *)tag, 16);
    params[count++] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, (void *)iv, (size_t)-1);
    params[count] = OSSL_PARAM_construct_end();
    return EVP_CIPHER_CTX_set_params(context, params);
}
// Writes the tag of what was encrypted.
static inline int copenssl_gcm_tag(EVP_CIPHER_CTX *context, unsigned char *tag) {
    OSSL_PARAM params[2];
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, 16);
    params[1] = OSSL_PARAM_construct_end();
    return EVP_CIPHER_CTX_get_params(context, params);
}
