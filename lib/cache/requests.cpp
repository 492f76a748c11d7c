#include "cache/requests.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "env/process.hpp"

namespace dedup {
namespace {

// Carries out those of `batch` that are an A, in one call. Calls carried_out(count) before the
// first answer, so that whoever gets one may give another request in its place.
template <class A, class Call, class CarriedOut>
void carry_out(std::vector<RequestThreads::Request>& batch, const Call& call,
               const CarriedOut& carried_out) {
    using What = decltype(std::declval<A>().what);
    decltype(call(std::vector<What>())) results;
    try {
        std::vector<What> all;
        for (auto& request : batch) {
            if (A* one = std::get_if<A>(&request)) {
                all.push_back(std::move(one->what));
            }
        }
        if (all.empty()) {
            return;
        }
        results = call(all);
    } catch (...) {
        results.clear();  // out of memory: nobody knows how far it went
    }
    carried_out(static_cast<std::size_t>(std::ranges::count_if(
        batch, [](const auto& request) { return std::holds_alternative<A>(request); })));
    std::size_t next = 0;
    for (auto& request : batch) {
        A* const one = std::get_if<A>(&request);
        if (one == nullptr) {
            continue;
        }
        if (next < results.size()) {
            one->answered(std::move(results[next++]));
        } else {
            one->answered(std::unexpected(Error{.code = Code::outcome_unknown, .message = {}}));
        }
    }
}

}  // namespace

RequestThreads::RequestThreads(Cache& cache, std::size_t threads, std::size_t requests_max,
                               std::function<void()> batch_done)
    : cache_(cache), requests_max_(requests_max), batch_done_(std::move(batch_done)) {
    threads_.reserve(threads);
    try {
        for (std::size_t i = 0; i < threads; ++i) {
            threads_.push_back(start_thread("dedup-queue", [this] { run(); }));
        }
    } catch (...) {
        end();
        throw;
    }
}

RequestThreads::~RequestThreads() {
    end();
}

void RequestThreads::close() {
    {
        const MutexLock lock(mutex_);
        closed_ = true;
    }
    changed_.notify_all();
}

void RequestThreads::end() {
    const NoCancel no_cancel;
    close();
    for (std::thread& thread : threads_) {
        thread.join();
    }
    threads_.clear();
}

Result<void> RequestThreads::give(Request request) {
    {
        const MutexLock lock(mutex_);
        if (closed_) {
            return std::unexpected(Error{
                .code = Code::closed, .message = "what is being destroyed takes no more requests"});
        }
        if (requests_ >= requests_max_) {
            return std::unexpected(Error{
                .code = Code::busy,
                .message = fmt::format("{} requests have not been answered yet; let some of them "
                                       "come to their end, or raise requests_max",
                                       requests_)});
        }
        waiting_.push_back(std::move(request));
        ++requests_;
    }
    changed_.notify_one();
    return {};
}

void RequestThreads::run() {
    std::vector<Request> batch;
    const auto carried_out = [this](std::size_t count) {
        const MutexLock lock(mutex_);
        requests_ -= count;
    };
    for (;;) {
        batch.clear();
        {
            MutexLock lock(mutex_);
            while (waiting_.empty() && !closed_) {
                changed_.wait(lock);
            }
            if (waiting_.empty()) {
                return;
            }
            batch.swap(waiting_);
        }
        const auto done = [&] {
            if (batch_done_) {
                batch_done_();
            }
        };
        carry_out<AskedClaim>(
            batch, [&](const auto& all) { return cache_.claim_many(all); }, carried_out);
        done();
        carry_out<AskedCompletion>(
            batch, [&](const auto& all) { return cache_.complete_many(all); }, carried_out);
        done();
        carry_out<AskedRelease>(
            batch, [&](const auto& all) { return cache_.release_many(all); }, carried_out);
        done();
    }
}

}  // namespace dedup
