// OpenSSL 3, loaded when TLS is first used: most processes that use a store never do, and need not
// have it.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "dedup/error.hpp"

namespace dedup::tls {

// Functions of OpenSSL that are used here; what else it has under a name are macros over these.
// clang-format off
#define DEDUP_OPENSSL_FUNCTIONS(X) \
    X(ASN1_STRING_to_UTF8) X(BIO_clear_flags) X(BIO_get_data) X(BIO_meth_new) \
    X(BIO_meth_set_ctrl) X(BIO_meth_set_read) X(BIO_meth_set_write) X(BIO_new) X(BIO_set_data) \
    X(BIO_set_flags) X(BIO_set_init) X(CRYPTO_free) X(ERR_clear_error) X(ERR_get_error) \
    X(ERR_reason_error_string) X(SSL_CTX_check_private_key) X(SSL_CTX_ctrl) X(SSL_CTX_free) \
    X(SSL_CTX_load_verify_file) X(SSL_CTX_new) X(SSL_CTX_set_client_CA_list) \
    X(SSL_CTX_set_default_passwd_cb) X(SSL_CTX_set_default_verify_paths) \
    X(SSL_CTX_set_num_tickets) X(SSL_CTX_set_options) X(SSL_CTX_set_verify) \
    X(SSL_CTX_use_PrivateKey_file) X(SSL_CTX_use_certificate_chain_file) X(SSL_ctrl) \
    X(SSL_do_handshake) X(SSL_free) X(SSL_get0_param) X(SSL_get1_peer_certificate) \
    X(SSL_get_error) X(SSL_get_verify_result) X(SSL_is_init_finished) X(SSL_load_client_CA_file) \
    X(SSL_new) X(SSL_pending) X(SSL_read_ex) X(SSL_set1_host) X(SSL_set_accept_state) \
    X(SSL_set_bio) X(SSL_set_connect_state) X(SSL_shutdown) X(SSL_write_ex) X(TLS_client_method) \
    X(TLS_server_method) X(X509_NAME_ENTRY_get_data) X(X509_NAME_get_entry) \
    X(X509_NAME_get_index_by_NID) X(X509_VERIFY_PARAM_set1_ip_asc) X(X509_free) \
    X(X509_get_subject_name) X(X509_verify_cert_error_string)
// clang-format on

struct OpenSsl {
// NOLINTNEXTLINE(bugprone-macro-parentheses): the name of a member
#define DEDUP_DECLARE(name) decltype(&::name) name;
    DEDUP_OPENSSL_FUNCTIONS(DEDUP_DECLARE)
#undef DEDUP_DECLARE
};

// Stays loaded until the process ends. Errors: invalid_argument, if this machine has none.
[[nodiscard]] Result<const OpenSsl*> load_openssl();

}  // namespace dedup::tls
