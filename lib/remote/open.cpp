// Opening a store behind a server.
#include <fmt/format.h>

#include <random>
#include <utility>

#include "record/try.hpp"
#include "remote/remote_store.hpp"

namespace dedup {
namespace remote {
namespace {

std::string random_client_id() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

Result<std::unique_ptr<StreamStore>> open_at(const Address& address, const RemoteOptions& options) {
    std::shared_ptr<const tls::Context> tls;
    if (address.tls) {
        tls = DEDUP_TRY(tls::Context::for_client(address.files));
    }
    auto parts = std::make_unique<RemoteStore::Parts>(address, tls, random_client_id());
    const auto deadline = std::chrono::steady_clock::now() + options.timeout;
    DEDUP_TRY(parts->hot.channel(deadline, true));
    const Greeting greeting = parts->hot.greeting();
    parts->chores.expect(greeting);
    parts->waits.expect(greeting);
    auto time = std::make_shared<TimeSource>();
    time->given = options.clock;
    auto store =
        std::make_unique<RemoteStore>(std::move(parts), std::move(time), greeting, options);
    DEDUP_TRY(options.clock ? Result<void>() : store->ask_time());
    return store;
}

}  // namespace
}  // namespace remote

Result<std::unique_ptr<StreamStore>> open_remote(const std::string& url,
                                                 const RemoteOptions& options) {
    using namespace std::chrono_literals;
    if (options.timeout < 100ms || options.timeout > 1h) {
        return std::unexpected(
            Error{Code::invalid_argument, fmt::format("the timeout is {} ms; 100 ms to 1 h are "
                                                      "allowed",
                                                      options.timeout.count())});
    }
    auto address = DEDUP_TRY(remote::parse_address(url));
    if (!options.password.empty()) {
        address.password = options.password;
    }
    return remote::open_at(address, options);
}

}  // namespace dedup
