// What every store under test has to do. One file an adapter; each says at its head which settings
// it uses and why.
//
// All are held to the same promise: when claim() or complete_claimed() returns, what they
// did survives kill -9 and power loss.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/failure.hpp"

namespace bench {

using dedupctl::Failure;
using Keys = std::span<const std::string_view>;

// What a key is worth keeping for; nothing expires while it is measured.
inline constexpr std::int64_t kTtlMs = std::int64_t{24} * 3600 * 1000;
inline constexpr std::size_t kReceiptBytes = 64;

// How long a client waits for its server to start: ten minutes.
inline constexpr std::chrono::milliseconds kServerPause{5};
inline constexpr int kServerAttempts = 120'000;

[[nodiscard]] Failure failure(const std::string& message);

// One caller: a thread's own connection, reader or statement cache. Used by one thread at a time.
class Session {
  public:
    Session() = default;
    virtual ~Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Claims those of `keys` that nobody has; gives how many that were. Durable on return.
    virtual std::size_t claim(Keys keys) = 0;

    // Completes what the last claim() won. Durable on return.
    virtual void complete_claimed(std::string_view receipt) = 0;

    // Gives the receipt of a completed key; false if it is absent or in flight.
    virtual bool lookup(std::string_view key, std::string& receipt) = 0;

    // The same for many keys by one call, where the store has such a call. Gives how many are
    // completed, and the receipt of the last one.
    virtual std::size_t lookup_many(Keys keys, std::string& receipt);
};

class Adapter {
  public:
    Adapter() = default;
    virtual ~Adapter() = default;
    Adapter(const Adapter&) = delete;
    Adapter& operator=(const Adapter&) = delete;

    [[nodiscard]] virtual std::unique_ptr<Session> session() = 0;

    // Makes new keys known as completed, expiring `ttl_ms` from now, as fast as the store can;
    // durable only after loaded().
    virtual void load(Keys keys, std::string_view receipt, std::int64_t ttl_ms) = 0;
    virtual void loaded() {}

    // False if claim() takes every key for a new one.
    [[nodiscard]] virtual bool knows_keys() const { return true; }

    // Removes what has expired `ahead_ms` from now; gives how many keys that were.
    virtual std::uint64_t sweep(std::int64_t ahead_ms);
    // Makes the index that a sweep needs, if it needs one; called before a load.
    virtual void index_expiry() {}
    // What the store's own documentation asks for after a sweep, if anything.
    virtual void tidy() {}
};

// Each opens the store in `directory`, or the server whose socket lies there, and makes its tables
// if there are none.
std::unique_ptr<Adapter> open_dedup(const std::string& directory);
std::unique_ptr<Adapter> open_dedup_postgres(const std::string& directory);
std::unique_ptr<Adapter> open_limit(const std::string& directory);
std::unique_ptr<Adapter> open_lmdb(const std::string& directory);
std::unique_ptr<Adapter> open_postgres(const std::string& directory);
std::unique_ptr<Adapter> open_redis(const std::string& directory);
std::unique_ptr<Adapter> open_rocksdb(const std::string& directory);
std::unique_ptr<Adapter> open_sqlite(const std::string& directory);

[[nodiscard]] std::int64_t now_ms();

// A peer's value: when it expires, in 8 bytes, then nothing for a claim, or a mark and the receipt.
[[nodiscard]] std::string claimed_value(std::int64_t expires_at_ms);
[[nodiscard]] std::string completed_value(std::int64_t expires_at_ms, std::string_view receipt);
// False if the value is that of a claim.
[[nodiscard]] bool receipt_of(std::string_view value, std::string& receipt);

}  // namespace bench
