// Claims in coroutines of asio: each awaits its answers and holds no thread meanwhile.
//
//     coroutines STORE KEY...
//
// One coroutine a key, all on one thread: it claims the key, works for a moment, and completes it;
// where another one has the key, it waits for that one's receipt. Exit status: 0; 1 an error.

#include <asio.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "dedup/async.hpp"
#include "dedup/log_store.hpp"

namespace {

using namespace std::chrono_literals;

// Makes something to await of a call that answers a function: `start` gets that function. The
// answer comes on a thread of the library's, and the coroutine goes on where it ran.
template <class T, class Start>
asio::awaitable<dedup::Result<T>> answer_of(Start start) {
    return asio::async_initiate<const asio::use_awaitable_t<>, void(dedup::Result<T>)>(
        [start = std::move(start)](auto handler) mutable {
            auto executor = asio::get_associated_executor(handler);
            auto shared = std::make_shared<decltype(handler)>(std::move(handler));
            auto resume =
                [shared, work = asio::make_work_guard(executor)](dedup::Result<T> result) mutable {
                    asio::post(work.get_executor(), [shared, result = std::move(result)]() mutable {
                        std::move (*shared)(std::move(result));
                    });
                };
            if (dedup::Result<void> given = start(resume); !given) {
                resume(std::unexpected(given.error()));
            }
        },
        asio::use_awaitable);
}

asio::awaitable<std::string> handle(dedup::AsyncCache& async, std::string key) {
    const auto outcome = co_await answer_of<dedup::ClaimOutcome>(
        [&](auto answered) { return async.claim_async(key, {.lease = 30s}, answered); });
    if (!outcome) {
        co_return outcome.error().message;
    }
    if (const auto* mine = outcome->claimed()) {
        co_await asio::steady_timer(co_await asio::this_coro::executor, 10ms)
            .async_wait(asio::use_awaitable);  // the work
        const dedup::Completion completion{mine->claim, "receipt of " + key, {}};
        const auto done = co_await answer_of<void>(
            [&](auto answered) { return async.complete_async(completion, answered); });
        co_return done ? "done" : done.error().message;
    }
    const auto found = co_await answer_of<dedup::LookupOutcome>(
        [&](auto answered) { return async.wait_async(key, 30s, answered); });
    const auto* other = found ? found->completed() : nullptr;
    co_return other != nullptr ? "found " + other->receipt : "nobody has finished it";
}

asio::awaitable<void> handle_and_print(dedup::AsyncCache& async, std::string key) {
    const std::string how = co_await handle(async, key);
    std::cout << key << ": " << how << '\n';
}

int fail(const dedup::Error& error) {
    std::cerr << "coroutines: " << error.message << '\n';
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::cerr << "usage: coroutines STORE KEY...\n";
        return 2;
    }
    auto store = dedup::open(argv[1]);
    if (!store) {
        return fail(store.error());
    }
    dedup::Cache cache(**store);
    auto async = dedup::AsyncCache::start(cache);
    if (!async) {
        return fail(async.error());
    }
    asio::io_context loop;
    for (int i = 2; i < argc; ++i) {
        asio::co_spawn(loop, handle_and_print(**async, argv[i]), asio::detached);
    }
    loop.run();
    async->reset();  // before the cache and the store
    const auto closed = (*store)->close();
    return closed ? 0 : fail(closed.error());
}
