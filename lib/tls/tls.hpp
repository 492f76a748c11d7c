// TLS over a socket, by OpenSSL 3, which is loaded when it is first needed.
#pragma once

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "dedup/error.hpp"

namespace dedup::tls {

// Files in PEM.
struct Files {
    std::string certificate = {};  // with those of the authorities between it and the root
    std::string key = {};          // that is not encrypted
    std::string authorities = {};  // who vouches for the other side
};

// TLS on one socket, which does not block and outlives it. Any thread, also two at once.
class Stream {
  public:
    virtual ~Stream() = default;
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // As recv and send: -1 with errno. EAGAIN: the socket has to be waited for; EPROTO: the other
    // side is not what it should be; else it is gone. Until the other side is known, they are what
    // goes on with that. send() never gives 0.
    [[nodiscard]] virtual ssize_t receive(std::span<char> bytes) = 0;
    [[nodiscard]] virtual ssize_t send(std::string_view bytes) = 0;
    // Bytes to receive are here already, which waiting for the socket does not tell.
    [[nodiscard]] virtual bool has_input() const = 0;
    // Receiving waits until the socket takes something.
    [[nodiscard]] virtual bool waits_to_send() const = 0;
    // Gets to know the other side. As receive(); 1: it is known.
    [[nodiscard]] virtual int shake_hands() = 0;
    [[nodiscard]] virtual bool is_ready() const = 0;
    // The common name (CN) in the other side's certificate; empty: it has shown none.
    [[nodiscard]] virtual std::string peer_name() const = 0;
    // Why it failed, for people.
    [[nodiscard]] virtual std::string problem() const = 0;
    // Tells the other side that this is the end, if that can be done at once.
    virtual void end() = 0;

  protected:
    Stream() = default;
};

// What streams of one side are made from. Any thread.
class Context {
  public:
    // With authorities, a client has to show a certificate of theirs.
    // Errors: invalid_argument (a file that is missing or wrong; no OpenSSL, or a build without).
    [[nodiscard]] static Result<std::shared_ptr<const Context>> for_server(const Files& files);
    // Without authorities, those that the system trusts. A certificate is what the server may want.
    [[nodiscard]] static Result<std::shared_ptr<const Context>> for_client(const Files& files);
    virtual ~Context() = default;
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    // Null: out of memory.
    [[nodiscard]] virtual std::unique_ptr<Stream> accept(int socket) const = 0;
    // `host`, a name or an address, is what the server's certificate has to be for.
    [[nodiscard]] virtual std::unique_ptr<Stream> connect(int socket,
                                                          const std::string& host) const = 0;

  protected:
    Context() = default;
};

}  // namespace dedup::tls
