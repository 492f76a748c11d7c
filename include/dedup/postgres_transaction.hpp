// Claims and completions that are part of a transaction of the caller's own: what the work does in
// the database and its receipt are there together, or not at all. No lease can give that.
//
// The schema is the one of dedup/postgres_store.hpp; keys claimed here and there respect each
// other.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "dedup/cache.hpp"

typedef struct pg_conn PGconn;  // libpq's

namespace dedup {

// A cache whose calls are part of the transaction that is open on `connection`. What it claims and
// completes is there if and only if that transaction commits: should the process die, the server
// rolls back and the key is free. After a COMMIT whose answer was lost, lookup() in a new
// transaction tells what became of it.
//
// As long as the transaction runs, others that want the key wait for it; so keep it short. Each
// call takes a few round trips over the connection, which stays the caller's and must outlive the
// cache. For one thread at a time. The connection must be in blocking mode, with a transaction
// open at each call; READ COMMITTED is what fits, and at a higher level the server may end the
// transaction with 40001.
//
// Errors of all calls: invalid_argument (no transaction is open, it has failed, or there is no
// store in the schema), and the server's. After an error other than those of Cache the transaction
// has to be rolled back.
class DEDUP_API TransactionCache {
  public:
    explicit TransactionCache(PGconn* connection, CacheOptions options = {},
                              const std::string& schema = "dedup");
    ~TransactionCache();
    TransactionCache(const TransactionCache&) = delete;
    TransactionCache& operator=(const TransactionCache&) = delete;

    // As Cache::claim. Waits while another transaction has the key, at most `wait`, and then gives
    // InFlight without an owner; the caller's transaction goes on in any case.
    [[nodiscard]] Result<ClaimOutcome> claim(
        std::string_view key, const ClaimOptions& options = {},
        std::chrono::milliseconds wait = std::chrono::seconds(5));
    // As in Cache. Where another transaction has the key they wait as long as the last claim would.
    [[nodiscard]] Result<void> complete(const Claim& claim, std::string_view receipt,
                                        const CompleteOptions& options = {});
    [[nodiscard]] Result<bool> release(const Claim& claim);
    [[nodiscard]] Result<RememberOutcome> remember(std::string_view key, std::string_view receipt,
                                                   const ClaimOptions& options = {});
    [[nodiscard]] Result<LookupOutcome> lookup(std::string_view key);

    // The SQLSTATE of the last error that came from the server; empty if there was none.
    [[nodiscard]] const std::string& sqlstate() const;

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

// The work of run_once: uses the connection, within its transaction, and gives the receipt. It is
// told of the claim, and in Claimed::previous of the one before it: what that one noted may have
// had its effect, where the effect is outside of this database. With Code::unavailable it says that
// it may be tried again, as for 40001 and 40P01.
using TransactionWork =
    std::function<Result<std::string>(PGconn* connection, const Claimed& claimed)>;

struct RunOnceOptions {
    CacheOptions cache = {};
    std::string schema = "dedup";
    ClaimOptions claim = {};
    std::chrono::milliseconds wait = std::chrono::seconds(5);
    int attempts_max = 10;  // at least 1
};

// What this call has done: the work is done, and here is its receipt.
struct Ran {
    std::string receipt;
    std::uint64_t claim_sequence = 0;
};

// Can be asked as a ClaimOutcome can.
struct RunOnceOutcome : std::variant<InFlight, Ran, Completed, Mismatch, Held> {
    using variant::variant;
    [[nodiscard]] const InFlight* in_flight() const { return std::get_if<InFlight>(this); }
    [[nodiscard]] const Ran* ran() const { return std::get_if<Ran>(this); }
    [[nodiscard]] const Completed* completed() const { return std::get_if<Completed>(this); }
    [[nodiscard]] const Mismatch* mismatch() const { return std::get_if<Mismatch>(this); }
    [[nodiscard]] const Held* held() const { return std::get_if<Held>(this); }
};

// BEGIN; claim `key`; work; complete; COMMIT. A duplicate gets the receipt. Transactions that the
// server ends with 40001 or 40P01 are run again, the work included. If the work fails, nothing of
// it stays and the key is free.
// Errors: the work's; outcome_unknown (the answer to COMMIT was lost: connect again and run again,
// which does the work only if it was not done); invalid_argument (a transaction is open already).
[[nodiscard]] DEDUP_API Result<RunOnceOutcome> run_once(PGconn* connection, std::string_view key,
                                                        const TransactionWork& work,
                                                        const RunOnceOptions& options = {});

}  // namespace dedup
