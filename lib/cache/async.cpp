#include "dedup/async.hpp"

#include <fmt/format.h>

#include <system_error>
#include <utility>

#include "cache/async_waits.hpp"
#include "cache/requests.hpp"
#include "env/process.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

constexpr std::uint32_t kThreadsMax = 16;
constexpr std::uint32_t kRequestsMax = 1'000'000;
constexpr std::uint32_t kWaitsMax = 1'000'000;

Result<void> check_async_options(const AsyncOptions& options) {
    if (options.threads == 0 || options.threads > kThreadsMax) {
        return invalid(
            fmt::format("threads is {}; it must be 1 to {}", options.threads, kThreadsMax));
    }
    if (options.requests_max == 0 || options.requests_max > kRequestsMax) {
        return invalid(fmt::format("requests_max is {}; it must be 1 to {}", options.requests_max,
                                   kRequestsMax));
    }
    if (options.waits_max == 0 || options.waits_max > kWaitsMax) {
        return invalid(
            fmt::format("waits_max is {}; it must be 1 to {}", options.waits_max, kWaitsMax));
    }
    return {};
}

}  // namespace

class AsyncCache::Impl {
  public:
    Impl(Cache& cache, const AsyncOptions& options)
        : waits(cache, options.waits_max), requests(cache, options.threads, options.requests_max) {}

    const ProcessMark mark;
    AsyncWaits waits;
    RequestThreads requests;

    // Both are closed before either ends, as an answer of the one may ask the other. The requests
    // end first: what they complete ends waits.
    void end() {
        requests.close();
        waits.close();
        requests.end();
        waits.end();
    }

    template <class T>
    [[nodiscard]] Result<void> check(const Answered<T>& answered) const {
        if (mark.inherited()) {
            return std::unexpected(mark.inherited_error("the AsyncCache"));
        }
        if (!answered) {
            return invalid("the function that gets the answer is empty");
        }
        return {};
    }
};

AsyncCache::AsyncCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AsyncCache::~AsyncCache() {
    if (impl_->mark.inherited()) {
        leave_to_parent(impl_.release());  // the threads are the parent's
        return;
    }
    impl_->end();
}

Result<std::unique_ptr<AsyncCache>> AsyncCache::start(Cache& cache, const AsyncOptions& options) {
    DEDUP_TRY(check_async_options(options));
    try {
        return std::unique_ptr<AsyncCache>(new AsyncCache(std::make_unique<Impl>(cache, options)));
    } catch (const std::system_error& error) {
        return std::unexpected(Error{.code = Code::io,
                                     .message = "cannot start the threads of an AsyncCache",
                                     .os_error = error.code().value()});
    }
}

Result<void> AsyncCache::claim_async(std::string key, ClaimOptions options,
                                     Answered<ClaimOutcome> answered) {
    DEDUP_TRY(impl_->check(answered));
    return impl_->requests.give(
        AskedClaim{{std::move(key), std::move(options)}, std::move(answered)});
}

Result<void> AsyncCache::complete_async(Completion completion, Answered<void> answered) {
    DEDUP_TRY(impl_->check(answered));
    return impl_->requests.give(AskedCompletion{std::move(completion), std::move(answered)});
}

Result<void> AsyncCache::release_async(Claim claim, Answered<bool> answered) {
    DEDUP_TRY(impl_->check(answered));
    return impl_->requests.give(AskedRelease{std::move(claim), std::move(answered)});
}

Result<void> AsyncCache::wait_async(std::string key, std::chrono::milliseconds timeout,
                                    Answered<LookupOutcome> answered) {
    DEDUP_TRY(impl_->check(answered));
    return impl_->waits.add(std::move(key), timeout, std::move(answered));
}

}  // namespace dedup
