// Where a server listens, and how to get there.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "dedup/error.hpp"
#include "env/descriptor.hpp"
#include "tls/tls.hpp"

namespace dedup::remote {

using TimePoint = std::chrono::steady_clock::time_point;

struct Address {
    std::string unix_path;  // or:
    std::string host;
    std::string port;
    std::string user;
    std::string password;
    bool tls = false;
    tls::Files files = {};  // of tls

    [[nodiscard]] std::string shown() const;  // without the password
};

// Errors: invalid_argument, which does not say the password.
[[nodiscard]] Result<Address> parse_address(const std::string& url);

// A connected socket that does not block. Gives up soon after `stop` is set. Errors: unavailable,
// invalid_argument (no such host, or a path that is too long), io.
[[nodiscard]] Result<Descriptor> connect_to(const Address& address, TimePoint deadline,
                                            const std::atomic<bool>& stop);

// TLS on such a socket, with the server that the address says. Waits as connect_to does. Errors:
// unavailable, invalid_argument (one side's certificate does not suit the other), out_of_space.
[[nodiscard]] Result<std::unique_ptr<tls::Stream>> secure(const Address& address,
                                                          const tls::Context& context, int socket,
                                                          TimePoint deadline,
                                                          const std::atomic<bool>& stop);

// For poll: at least 0, rounded up.
[[nodiscard]] int milliseconds_until(TimePoint deadline);

}  // namespace dedup::remote
