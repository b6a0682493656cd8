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
#include <openssl/provider.h>
#include <openssl/core_dispatch.h>
#include <string.h>

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

// A cipher as its provider has it (provider-cipher(7)): the code that EVP calls, without an object and a call of EVP's own around each step. For
// those who begin anew with every packet, where that is a third of the time.
struct copenssl_cipher {
    void *provider;
    OSSL_FUNC_cipher_newctx_fn *newctx;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    OSSL_FUNC_cipher_encrypt_init_fn *encrypt_init;
    OSSL_FUNC_cipher_decrypt_init_fn *decrypt_init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_final_fn *final;
    OSSL_FUNC_cipher_get_ctx_params_fn *get_ctx_params;
};

// Finds the functions of `cipher`, which must live as long as they are used; 0 if its provider lacks one.
static inline int copenssl_cipher_find(struct copenssl_cipher *found, const EVP_CIPHER *cipher) {
    const OSSL_PROVIDER *provider = EVP_CIPHER_get0_provider(cipher);
    int must_not_be_kept = 0;
    const OSSL_ALGORITHM *next = provider == NULL ? NULL : OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &must_not_be_kept);
    if (next == NULL || must_not_be_kept) return 0;
    for (; next->algorithm_names != NULL; next++) {
        char name[64];
        size_t length = strcspn(next->algorithm_names, ":");
        if (length >= sizeof name) continue;
        memcpy(name, next->algorithm_names, length);
        name[length] = 0;
        if (EVP_CIPHER_is_a(cipher, name)) break;
    }
    if (next->algorithm_names == NULL) return 0;
    memset(found, 0, sizeof *found);
    found->provider = OSSL_PROVIDER_get0_provider_ctx(provider);
    for (const OSSL_DISPATCH *function = next->implementation; function->function_id != 0; function++) {
        switch (function->function_id) {
        case OSSL_FUNC_CIPHER_NEWCTX: found->newctx = OSSL_FUNC_cipher_newctx(function); break;
        case OSSL_FUNC_CIPHER_FREECTX: found->freectx = OSSL_FUNC_cipher_freectx(function); break;
        case OSSL_FUNC_CIPHER_ENCRYPT_INIT: found->encrypt_init = OSSL_FUNC_cipher_encrypt_init(function); break;
        case OSSL_FUNC_CIPHER_DECRYPT_INIT: found->decrypt_init = OSSL_FUNC_cipher_decrypt_init(function); break;
        case OSSL_FUNC_CIPHER_UPDATE: found->update = OSSL_FUNC_cipher_update(function); break;
        case OSSL_FUNC_CIPHER_FINAL: found->final = OSSL_FUNC_cipher_final(function); break;
        case OSSL_FUNC_CIPHER_GET_CTX_PARAMS: found->get_ctx_params = OSSL_FUNC_cipher_get_ctx_params(function); break;
        }
    }
    return found->newctx && found->freectx && found->encrypt_init && found->decrypt_init && found->update && found->final
        && found->get_ctx_params;
}

// A context with its key; NULL without memory.
static inline void *copenssl_cipher_new(const struct copenssl_cipher *cipher, int encrypts, const unsigned char *key, size_t length) {
    void *context = cipher->newctx(cipher->provider);
    if (context == NULL) return NULL;
    if ((encrypts ? cipher->encrypt_init : cipher->decrypt_init)(context, key, length, NULL, 0, NULL) == 1) return context;
    cipher->freectx(context);
    return NULL;
}
static inline void copenssl_cipher_free(const struct copenssl_cipher *cipher, void *context) { cipher->freectx(context); }

// Begins a message under the context's key: one to encrypt, or one to decrypt whose tag, if there is one, must be `tag`.
static inline int copenssl_cipher_encrypt(const struct copenssl_cipher *cipher, void *context, const unsigned char *iv, size_t length) {
    return cipher->encrypt_init(context, NULL, 0, iv, length, NULL);
}
static inline int copenssl_cipher_decrypt(
    const struct copenssl_cipher *cipher, void *context, const unsigned char *iv, size_t length, const unsigned char *tag, size_t tag_length
) {
    OSSL_PARAM parameters[2] = {
        {OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING, (void *)tag, tag_length, OSSL_PARAM_UNMODIFIED}, OSSL_PARAM_END,
    };
    return cipher->decrypt_init(context, NULL, 0, iv, length, parameters);
}
// From `in` to `out`, which may be the same; `out` NULL: it is authenticated only.
static inline int copenssl_cipher_update(
    const struct copenssl_cipher *cipher, void *context, unsigned char *out, const unsigned char *in, size_t length
) {
    size_t written = 0;
    return cipher->update(context, out, &written, length, in, length);
}
// Ends a message of an AEAD. 0: the tag is another one.
static inline int copenssl_cipher_final(const struct copenssl_cipher *cipher, void *context) {
    unsigned char nothing[16];
    size_t written = 0;
    return cipher->final(context, nothing, &written, sizeof nothing);
}
// The tag of a message that was encrypted.
static inline int copenssl_cipher_tag(const struct copenssl_cipher *cipher, void *context, unsigned char *tag, size_t length) {
    OSSL_PARAM parameters[2] = {
        {OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING, tag, length, OSSL_PARAM_UNMODIFIED}, OSSL_PARAM_END,
    };
    return cipher->get_ctx_params(context, parameters);
}
