// Opening a store.

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "env/finally.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"
#include "store/creation.hpp"
#include "store/log_store.hpp"
#include "store/read_log.hpp"
#include "sweep/drop.hpp"

namespace dedup {
namespace {

using fs_perms = std::filesystem::perms;

Result<void> check_options(const OpenOptions& options) {
    using namespace std::chrono_literals;
    if (options.flush_interval < 1ms || options.flush_interval > 1min) {
        return invalid(fmt::format("flush_interval is {} ms; 1 to 60,000 are allowed",
                                   options.flush_interval.count()));
    }
    if (options.lock_timeout < 0ms || options.grace < 0ms) {
        return invalid("lock_timeout and grace cannot be negative");
    }
    if (options.segment_bytes != 0 &&
        (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax)) {
        return invalid(fmt::format("segment_bytes is {}; 0 or {} to {} are allowed",
                                   options.segment_bytes, kSegmentBytesMin, kSegmentBytesMax));
    }
    if (!options.clock) {
        return invalid("there is no clock");
    }
    if ((options.permissions & fs_perms::owner_all) != fs_perms::owner_all ||
        (options.permissions & ~fs_perms::all) != fs_perms::none) {
        return invalid(fmt::format("permissions are {:04o}; 0700 to 0777 are allowed",
                                   static_cast<unsigned>(options.permissions)));
    }
    return {};
}

}  // namespace

LogStore::LogStore(Env& env, const Path& path, const OpenOptions& options,
                   const LogStoreInternals& internals)
    : StreamStore(options.clock, options.grace,
                  options.read_only || internals.ignore_jumps ? StoreClock::Jumps::ignore
                  : options.trust_clock                       ? StoreClock::Jumps::trust
                                                              : StoreClock::Jumps::withhold),
      context_(env, path, options, internals, time_),
      reader_(context_, shown_),
      catalog_(context_, shown_),
      log_clock_(context_),
      planner_(context_, reader_, catalog_, log_clock_) {
    if (options.read_only) {
        follower_ = std::make_unique<Follower>(context_, shown_, reader_, catalog_, log_clock_);
    } else {
        engine_ =
            std::make_unique<Engine>(context_, shown_, reader_, catalog_, log_clock_, planner_);
    }
}

Result<std::unique_ptr<LogStore>> LogStore::open(Env& env, const Path& path,
                                                 const OpenOptions& options,
                                                 const LogStoreInternals& internals) {
    const NoCancel no_cancel;
    DEDUP_TRY(check_options(options));
    if (!DEDUP_TRY(find_store(env, path, internals.partial)) &&
        (options.read_only || !options.create)) {
        return invalid(fmt::format("there is no store at {}", path.string()));
    }
    std::unique_ptr<LogStore> store(new LogStore(env, path, options, internals));
    bool is_open = false;
    const Finally close([&] {
        if (!is_open) {
            // So that closing it writes nothing to what has not been recovered.
            store->context_.failure.forbid_writes();
        }
    });
    auto opened = store->context_.failure.answered([&]() -> Result<void> {
        if (store->engine_) {
            return store->open_for_writing();
        }
        DEDUP_TRY(store->follower_->open());
        store->recovered_.torn_bytes_dropped = store->follower_->torn_bytes();
        return {};
    });
    if (!opened) {
        Error error = std::move(opened).error();
        if (error.message == kOutOfMemory) {
            error.code = Code::out_of_space;  // there is no append whose outcome could be unknown
        }
        return std::unexpected(std::move(error));
    }
    is_open = true;
    return store;
}

Result<std::unique_ptr<LogStore>> LogStore::open(const Path& path, const OpenOptions& options,
                                                 const LogStoreInternals& internals) {
    const Path fixed = DEDUP_TRY(fixed_path(path));
    auto env = posix_env_of(fixed, options.permissions);
    auto store = DEDUP_TRY(open(*env, fixed, options, internals));
    store->owned_env_ = std::move(env);
    return store;
}

Result<void> LogStore::open_for_writing() {
    DEDUP_TRY(context_.env.make_directory(context_.path));
    engine_->lock =
        DEDUP_TRY(context_.env.lock(context_.path / kLockName, {context_.options.lock_timeout,
                                                                context_.options.keeps_waiting}));
    DEDUP_TRY(make_store_of_copy(context_));
    DEDUP_TRY(context_.env.make_directory(context_.log_path));
    std::vector<std::uint64_t> ids = DEDUP_TRY(list_segments(context_.env, context_.log_path));
    if (ids.empty()) {
        DEDUP_TRY(create_files(context_));
        ids = {1};
    }
    recovered_ = DEDUP_TRY(recover(context_, shown_, reader_, catalog_, log_clock_, *engine_, ids));
    keep_reserve(context_);
    DEDUP_TRY(start_threads());
    const std::vector<ClockReset> resets = time_.clock_history().resets;
    if (resets.empty() || resets.back().finished) {
        return {};
    }
    // On a full disk it waits for another opening: a sweep may make room, and needs this one.
    auto finished = finish_reset();
    return finished || finished.error().code == Code::out_of_space ? Result<void>() : finished;
}

Result<void> LogStore::start_threads() {
    try {
        engine_->sealer.start(*shown_.view());
        if (context_.options.durability == Durability::async) {
            engine_->writer.start_flusher();
        }
    } catch (const std::system_error& error) {
        return std::unexpected(
            Error{Code::io,
                  fmt::format("cannot start a thread for {}: {}", context_.name(), error.what()),
                  error.code().value()});
    }
    return {};
}

}  // namespace dedup
