#include "tls/tls.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "env/descriptor.hpp"
#include "env/mutex.hpp"
#include "tls/openssl.hpp"

namespace dedup::tls {
namespace {

// Certificates that a client may send before it is known who it is.
constexpr long kPeerChainBytesMax = 32 * 1024;

// The socket as OpenSSL sees it. Its own way of writing would have SIGPIPE end the program.
int descriptor_of(const OpenSsl& ssl, BIO* bio) {
    return static_cast<int>(reinterpret_cast<std::intptr_t>(ssl.BIO_get_data(bio)));
}

template <class Call>
int move_bytes(BIO* bio, int retry_flag, Call call) {
    const OpenSsl& ssl = **load_openssl();
    ssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    const ssize_t moved = retry([&] { return call(descriptor_of(ssl, bio)); });
    if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        ssl.BIO_set_flags(bio, retry_flag | BIO_FLAGS_SHOULD_RETRY);
    }
    return static_cast<int>(moved);
}

int write_bytes(BIO* bio, const char* bytes, int size) {
    return move_bytes(bio, BIO_FLAGS_WRITE, [&](int fd) {
        return ::send(fd, bytes, static_cast<std::size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL);
    });
}

int read_bytes(BIO* bio, char* bytes, int size) {
    return move_bytes(bio, BIO_FLAGS_READ, [&](int fd) {
        return ::recv(fd, bytes, static_cast<std::size_t>(size), MSG_DONTWAIT);
    });
}

long control(BIO* /*bio*/, int what, long /*number*/, void* /*pointer*/) {
    return what == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD* socket_method(const OpenSsl& ssl) {
    static BIO_METHOD* const kMethod = [&ssl] {
        BIO_METHOD* const made =
            ssl.BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "dedup socket");
        ssl.BIO_meth_set_write(made, write_bytes);
        ssl.BIO_meth_set_read(made, read_bytes);
        ssl.BIO_meth_set_ctrl(made, control);
        return made;
    }();
    return kMethod;
}

class OpenSslStream final : public Stream {
  public:
    OpenSslStream(const OpenSsl& ssl, SSL* session) : ssl_(ssl), session_(session) {}
    ~OpenSslStream() override { ssl_.SSL_free(session_); }

    ssize_t receive(std::span<char> bytes) override {
        const MutexLock lock(mutex_);
        std::size_t got = 0;
        return run([&] { return ssl_.SSL_read_ex(session_, bytes.data(), bytes.size(), &got); },
                   waits_to_send_)
                   ? static_cast<ssize_t>(got)
                   : outcome_;
    }
    ssize_t send(std::string_view bytes) override {
        const MutexLock lock(mutex_);
        std::size_t went = 0;
        bool waits = false;
        if (run([&] { return ssl_.SSL_write_ex(session_, bytes.data(), bytes.size(), &went); },
                waits)) {
            return static_cast<ssize_t>(went);
        }
        // Nothing has gone: the other side has said that it ends, and now it is not there.
        broken_ = broken_ || outcome_ == 0;
        return -1;
    }
    bool has_input() const override {
        const MutexLock lock(mutex_);
        return ssl_.SSL_pending(session_) > 0;
    }
    bool waits_to_send() const override {
        const MutexLock lock(mutex_);
        return waits_to_send_;
    }
    int shake_hands() override {
        const MutexLock lock(mutex_);
        return run([&] { return ssl_.SSL_do_handshake(session_); }, waits_to_send_)
                   ? 1
                   : static_cast<int>(outcome_);
    }
    bool is_ready() const override {
        const MutexLock lock(mutex_);
        return ssl_.SSL_is_init_finished(session_) == 1;
    }
    std::string peer_name() const override {
        const MutexLock lock(mutex_);
        X509* const certificate = ssl_.SSL_get1_peer_certificate(session_);
        if (certificate == nullptr) {
            return "";
        }
        std::string name;
        X509_NAME* const subject = ssl_.X509_get_subject_name(certificate);
        const int at = ssl_.X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        if (at >= 0) {
            unsigned char* text = nullptr;
            const int size = ssl_.ASN1_STRING_to_UTF8(
                &text, ssl_.X509_NAME_ENTRY_get_data(ssl_.X509_NAME_get_entry(subject, at)));
            if (size > 0) {
                name.assign(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
            }
            ssl_.CRYPTO_free(text, __FILE__, __LINE__);
        }
        ssl_.X509_free(certificate);
        return name;
    }
    std::string problem() const override {
        const MutexLock lock(mutex_);
        return problem_;
    }
    void end() override {
        const MutexLock lock(mutex_);
        if (!broken_ && ssl_.SSL_is_init_finished(session_) == 1) {
            ssl_.ERR_clear_error();
            ssl_.SSL_shutdown(session_);
        }
    }

  private:
    // Whether the call has done what it is for; else outcome_ and errno say why not, and
    // `waits_to_send` whether it waits for the socket to take something.
    template <class Call>
    bool run(Call call, bool& waits_to_send) DEDUP_REQUIRES(mutex_) {
        if (broken_) {  // OpenSSL must not be asked again
            outcome_ = -1;
            errno = ECONNRESET;
            return false;
        }
        ssl_.ERR_clear_error();
        const int done = call();
        waits_to_send = false;
        if (done == 1) {
            return true;
        }
        const int error = ssl_.SSL_get_error(session_, done);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
            waits_to_send = error == SSL_ERROR_WANT_WRITE;
            outcome_ = -1;
            errno = EAGAIN;
            return false;
        }
        broken_ = error == SSL_ERROR_SSL || error == SSL_ERROR_SYSCALL;
        outcome_ = error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
        const unsigned long code = ssl_.ERR_get_error();
        note_problem(error, code);
        const bool gone =
            error != SSL_ERROR_SSL || ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
        errno = gone ? ECONNRESET : EPROTO;
        return false;
    }
    void note_problem(int error, unsigned long code) DEDUP_REQUIRES(mutex_) {
        const long verified = ssl_.SSL_get_verify_result(session_);
        if (verified != X509_V_OK) {
            problem_ = ssl_.X509_verify_cert_error_string(verified);
        } else if (const char* const reason = ssl_.ERR_reason_error_string(code)) {
            problem_ = reason;
        } else if (error != SSL_ERROR_ZERO_RETURN) {
            problem_ = "the other side closed the connection";
        }
    }

    const OpenSsl& ssl_;
    mutable Mutex mutex_;
    SSL* const session_;  // used with mutex_ only
    ssize_t outcome_ DEDUP_GUARDED_BY(mutex_) = 0;
    bool waits_to_send_ DEDUP_GUARDED_BY(mutex_) = false;
    bool broken_ DEDUP_GUARDED_BY(mutex_) = false;
    std::string problem_ DEDUP_GUARDED_BY(mutex_);
};

class OpenSslContext final : public Context {
  public:
    OpenSslContext(const OpenSsl& ssl, SSL_CTX* context) : ssl_(ssl), context_(context) {}
    ~OpenSslContext() override { ssl_.SSL_CTX_free(context_); }

    std::unique_ptr<Stream> accept(int socket) const override {
        SSL* const session = session_on(socket);
        if (session == nullptr) {
            return nullptr;
        }
        ssl_.SSL_set_accept_state(session);
        return std::make_unique<OpenSslStream>(ssl_, session);
    }

    std::unique_ptr<Stream> connect(int socket, const std::string& host) const override {
        SSL* const session = session_on(socket);
        if (session == nullptr) {
            return nullptr;
        }
        ssl_.SSL_set_connect_state(session);
        std::array<unsigned char, sizeof(in6_addr)> address{};
        const bool is_address = ::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
                                ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
        std::string name = host;
        const bool set = is_address
                             ? ssl_.X509_VERIFY_PARAM_set1_ip_asc(ssl_.SSL_get0_param(session),
                                                                  host.c_str()) == 1
                             : ssl_.SSL_set1_host(session, host.c_str()) == 1 &&
                                   ssl_.SSL_ctrl(session, SSL_CTRL_SET_TLSEXT_HOSTNAME,
                                                 TLSEXT_NAMETYPE_host_name, name.data()) == 1;
        auto stream = std::make_unique<OpenSslStream>(ssl_, session);
        return set ? std::move(stream) : nullptr;
    }

  private:
    [[nodiscard]] SSL* session_on(int socket) const {
        SSL* const session = ssl_.SSL_new(context_);
        BIO* const bio = ssl_.BIO_new(socket_method(ssl_));
        if (session == nullptr || bio == nullptr) {
            ssl_.SSL_free(session);
            return nullptr;
        }
        // NOLINTNEXTLINE(performance-no-int-to-ptr): the number is what is kept there
        ssl_.BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket)));
        ssl_.BIO_set_init(bio, 1);
        ssl_.SSL_set_bio(session, bio, bio);
        return session;
    }

    const OpenSsl& ssl_;
    SSL_CTX* const context_;
};

// Or OpenSSL would ask for the password at the terminal.
int no_password(char* /*buffer*/, int /*size*/, int /*writes*/, void* /*data*/) {
    return -1;
}

std::unexpected<Error> wrong_file(const OpenSsl& ssl, std::string_view what,
                                  const std::string& file) {
    const char* const reason = ssl.ERR_reason_error_string(ssl.ERR_get_error());
    return std::unexpected(Error{Code::invalid_argument,
                                 fmt::format("cannot use {} as {}: {}", file, what,
                                             reason == nullptr ? "it cannot be read" : reason)});
}

Result<void> load_own(const OpenSsl& ssl, SSL_CTX* context, const Files& files) {
    if (ssl.SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str()) != 1) {
        return wrong_file(ssl, "a certificate", files.certificate);
    }
    if (ssl.SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
        ssl.SSL_CTX_check_private_key(context) != 1) {
        return wrong_file(ssl, "the key of " + files.certificate, files.key);
    }
    return {};
}

Result<std::shared_ptr<OpenSslContext>> new_context(const Files& files, bool server,
                                                    SSL_CTX*& context) {
    auto loaded = load_openssl();
    if (!loaded) {
        return std::unexpected(std::move(loaded).error());
    }
    const OpenSsl& ssl = **loaded;
    ssl.ERR_clear_error();
    context = ssl.SSL_CTX_new(server ? ssl.TLS_server_method() : ssl.TLS_client_method());
    if (context == nullptr) {
        return std::unexpected(Error{Code::out_of_space, "out of memory"});
    }
    auto made = std::make_shared<OpenSslContext>(ssl, context);
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, nullptr);
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_MODE,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                         SSL_MODE_RELEASE_BUFFERS,
                     nullptr);
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_CERT_LIST, kPeerChainBytesMax, nullptr);
    // No session is taken up again: who is known, and by which authorities, is seen each time.
    ssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, nullptr);
    ssl.SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    ssl.SSL_CTX_set_num_tickets(context, 0);
    ssl.SSL_CTX_set_default_passwd_cb(context, no_password);
    if (!files.certificate.empty()) {
        if (auto own = load_own(ssl, context, files); !own) {
            return std::unexpected(std::move(own).error());
        }
    }
    if (!files.authorities.empty() &&
        ssl.SSL_CTX_load_verify_file(context, files.authorities.c_str()) != 1) {
        return wrong_file(ssl, "certificates of authorities", files.authorities);
    }
    return made;
}

}  // namespace

Result<std::shared_ptr<const Context>> Context::for_server(const Files& files) {
    SSL_CTX* context = nullptr;
    auto made = new_context(files, true, context);
    if (!made) {
        return std::unexpected(std::move(made).error());
    }
    if (!files.authorities.empty()) {
        const OpenSsl& ssl = **load_openssl();
        ssl.SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        ssl.SSL_CTX_set_client_CA_list(context,
                                       ssl.SSL_load_client_CA_file(files.authorities.c_str()));
    }
    return *std::move(made);
}

Result<std::shared_ptr<const Context>> Context::for_client(const Files& files) {
    SSL_CTX* context = nullptr;
    auto made = new_context(files, false, context);
    if (!made) {
        return std::unexpected(std::move(made).error());
    }
    const OpenSsl& ssl = **load_openssl();
    ssl.SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    if (files.authorities.empty()) {
        ssl.SSL_CTX_set_default_verify_paths(context);
    }
    return *std::move(made);
}

}  // namespace dedup::tls
