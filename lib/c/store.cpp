// Opening and closing.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <memory>

#include "c/border.hpp"
#include "dedup/log_store.hpp"
#include "dedup/memory_store.hpp"
#include "dedup/postgres_store.hpp"
#include "record/invalid.hpp"

namespace dedup {
namespace {

using std::chrono::milliseconds;

Result<void> check_mode(std::uint32_t mode) {
    constexpr std::uint32_t kModeMax = 0777;
    if (mode > kModeMax) {
        return invalid(fmt::format("mode is 0{:o}; it must be at most 0777", mode));
    }
    return {};
}

Result<milliseconds> not_negative(std::int64_t ms, std::string_view name) {
    if (ms < 0) {
        return invalid(fmt::format("{} is {}; it must not be negative", name, ms));
    }
    return milliseconds{ms};
}

Result<OpenOptions> open_options(const dedup_open_options* given) {
    const dedup_open_options taken = DEDUP_TRY(take_struct(given, "dedup_open_options"));
    OpenOptions options;
    options.read_only = DEDUP_TRY(flag(taken.read_only, "read_only"));
    options.create = !DEDUP_TRY(flag(taken.must_exist, "must_exist"));
    if (taken.durability > DEDUP_ASYNC) {
        return invalid(fmt::format("durability is {}; it must be DEDUP_SYNC or DEDUP_ASYNC",
                                   taken.durability));
    }
    options.durability = taken.durability == DEDUP_ASYNC ? Durability::async : Durability::sync;
    options.trust_clock = DEDUP_TRY(flag(taken.trust_clock, "trust_clock"));
    if (taken.flush_interval_ms != 0) {
        options.flush_interval =
            DEDUP_TRY(not_negative(taken.flush_interval_ms, "flush_interval_ms"));
    }
    options.lock_timeout = DEDUP_TRY(not_negative(taken.lock_timeout_ms, "lock_timeout_ms"));
    if (taken.grace_ms == DEDUP_NONE) {
        options.grace = milliseconds{0};
    } else if (taken.grace_ms != 0) {
        options.grace = DEDUP_TRY(not_negative(taken.grace_ms, "grace_ms"));
    }
    options.segment_bytes = taken.segment_bytes;
    options.capacity = {.keys_max = taken.keys_max,
                        .bytes_max = taken.bytes_max,
                        .evict_oldest = DEDUP_TRY(flag(taken.evict_oldest, "evict_oldest"))};
    DEDUP_TRY(check_mode(taken.mode));
    if (taken.mode != 0) {
        options.permissions = static_cast<std::filesystem::perms>(taken.mode);
    }
    return options;
}

Result<void> give_store(std::unique_ptr<StreamStore> opened, dedup_store** to) {
    auto open = std::make_shared<OpenStore>();
    open->store = std::move(opened);
    *to = new dedup_store{std::move(open)};
    return {};
}

}  // namespace
}  // namespace dedup

using namespace dedup;

int dedup_open(const char* path, const dedup_open_options* options, dedup_store** store,
               dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            DEDUP_TRY(needs(path, "path"));
            DEDUP_TRY(needs(store, "store"));
            return give_store(DEDUP_TRY(dedup::open(path, DEDUP_TRY(open_options(options)))),
                              store);
        },
        store);
}

int dedup_open_memory(const dedup_open_options* options, dedup_store** store, dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            DEDUP_TRY(needs(store, "store"));
            const OpenOptions taken = DEDUP_TRY(open_options(options));
            return give_store(
                make_memory_store(system_now_ms, taken.grace, taken.capacity, taken.trust_clock),
                store);
        },
        store);
}

int dedup_init_postgres(const char* url, int* changed, dedup_error* error) {
    return across(
        error, Effect::possible,
        [&]() -> Result<void> {
            DEDUP_TRY(needs(url, "url"));
            const PostgresInit made = DEDUP_TRY(init_postgres(url));
            if (changed != nullptr) {
                *changed = made == PostgresInit::was_there ? 0 : 1;
            }
            return {};
        },
        changed);
}

int dedup_close(dedup_store* store, dedup_error* error) {
    return across(error, Effect::possible,
                  [&]() -> Result<void> { return DEDUP_TRY(use(store))->close(); });
}

void dedup_store_free(dedup_store* store) {
    delete store;
}

int dedup_flush(dedup_store* store, dedup_error* error) {
    return across(error, Effect::possible,
                  [&]() -> Result<void> { return DEDUP_TRY(use(store))->flush(); });
}

int dedup_now(dedup_store* store, int64_t* now_ms, dedup_error* error) {
    return across(
        error, Effect::none,
        [&]() -> Result<void> {
            StreamStore& in = *DEDUP_TRY(use(store));
            DEDUP_TRY(needs(now_ms, "now_ms"));
            *now_ms = in.now_ms();
            return {};
        },
        now_ms);
}
