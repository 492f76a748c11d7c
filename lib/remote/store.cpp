// Time, closing, and what is asked of the store as a whole.
#include <utility>

#include "remote/remote_store.hpp"
#include "wire/store_fields.hpp"

namespace dedup::remote {
namespace {

// So many times as long as others may those calls take that may go through the whole store.
constexpr int kChoreTimes = 60;

// Clocks of two machines drift apart: what the server said is asked for again when it is so old.
constexpr std::int64_t kTimeAgeMaxMs = 60'000;

}  // namespace

std::int64_t TimeSource::now_ms() {
    if (given) {
        return given();
    }
    if (ask && server.age_ms() > kTimeAgeMaxMs && !asking.exchange(true)) {
        ask();
        asking = false;
    }
    return server.now_ms();
}

RemoteStore::RemoteStore(std::unique_ptr<Parts> parts, std::shared_ptr<TimeSource> time,
                         const Greeting& greeting, const RemoteOptions& options)
    : StreamStore([time] { return time->now_ms(); }, greeting.grace, StoreClock::Jumps::ignore),
      parts_(std::move(parts)),
      source_(std::move(time)),
      timeout_(options.timeout),
      read_only_(options.read_only),
      announcements_(parts_->waits, *waiters_, timeout_) {
    waiters_->set_announcer(announcements_);
    note_token(greeting.token);
    source_->ask = [this] { static_cast<void>(ask_time()); };
}

Result<void> RemoteStore::ask_time() {
    const Call call(*this, false);
    if (!call) {
        return std::unexpected(call.error());
    }
    const NoCancel whole;
    const wire::RequestWriter request = wire::RequestWriter(2).add("DEDUP.STORE").add("TIME");
    const auto reply = parts_->hot.ask(request.bytes(), deadline());
    if (!reply) {
        return std::unexpected(reply.error());
    }
    const wire::Reply* const now = reply->value_of("now_ms");
    if (now == nullptr) {
        return odd_reply("DEDUP.STORE");
    }
    source_->saw(now->integer);
    return {};
}

RemoteStore::~RemoteStore() {
    source_->ask = nullptr;
    static_cast<void>(close());
}

RemoteStore::Call::Call(const RemoteStore& store, bool writes)
    : store_(store), error_(store.unusable(writes)) {
    if (error_) {
        return;
    }
    Parts& parts = *store.parts_;
    const MutexLock lock(parts.calls_mutex);
    if (parts.closing) {
        error_ = Error{Code::closed, "the store behind the server was closed here"};
    } else {
        ++parts.calls;
    }
}

RemoteStore::Call::~Call() {
    if (error_ || store_.process_.inherited()) {  // forked in a callback: the lock may be held
        return;
    }
    Parts& parts = *store_.parts_;
    const MutexLock lock(parts.calls_mutex);
    if (--parts.calls == 0) {
        parts.calls_ended.notify_all();
    }
}

std::optional<Error> RemoteStore::unusable(bool writes) const {
    if (process_.inherited()) {
        return process_.inherited_error("the connection to the server");
    }
    if (writes && read_only_) {
        return Error{Code::read_only, "the store behind the server is open for reading only"};
    }
    return std::nullopt;
}

Result<wire::Reply> RemoteStore::ask_chore(const wire::RequestWriter& request) {
    const Call call(*this, false);
    if (!call) {
        return std::unexpected(call.error());
    }
    const NoCancel whole;
    return parts_->chores.ask(request.bytes(), deadline(kChoreTimes));
}

Result<StoreStats> RemoteStore::stats() {
    const auto reply = ask_chore(wire::RequestWriter(1).add("DEDUP.STATS"));
    if (!reply) {
        return std::unexpected(reply.error());
    }
    StoreStats stats;
    wire::FieldReader reader(*reply);
    wire::visit_fields(stats, reader);
    return stats;
}

Result<std::vector<SweepReport>> RemoteStore::sweep_history() {
    const auto reply = ask_chore(wire::RequestWriter(1).add("DEDUP.SWEEPS"));
    if (!reply) {
        return std::unexpected(reply.error());
    }
    std::vector<SweepReport> reports;
    for (const wire::Reply& row : reply->list) {
        wire::FieldReader reader(row);
        wire::visit_fields(reports.emplace_back(), reader);
    }
    return reports;
}

Result<void> RemoteStore::flush() {
    const auto reply = ask_chore(wire::RequestWriter(1).add("DEDUP.FLUSH"));
    return reply ? Result<void>() : std::unexpected(reply.error());
}

Result<void> RemoteStore::close() {
    if (process_.inherited()) {
        return std::unexpected(process_.inherited_error("the connection to the server"));
    }
    if (parts_->sweeper.load() == std::this_thread::get_id()) {
        return std::unexpected(
            Error{Code::busy, "the store cannot be closed from within its own sweep"});
    }
    {
        const MutexLock lock(parts_->calls_mutex);
        parts_->closing = true;
    }
    // What may take long ends now; heads and appends are answered first.
    parts_->stop_sweeps = true;
    parts_->chores.shut();
    announcements_.end();
    {
        MutexLock lock(parts_->calls_mutex);
        while (parts_->calls != 0) {
            parts_->calls_ended.wait(lock);
        }
    }
    parts_->hot.shut();
    return {};
}

}  // namespace dedup::remote
