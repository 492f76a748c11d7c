#include "dedup/postgres_transaction.hpp"

#include <utility>

#include "postgres/libpq.hpp"
#include "postgres/transaction_store.hpp"
#include "record/try.hpp"

namespace dedup {

struct TransactionCache::Parts {
    Parts(PGconn* connection, CacheOptions options, const std::string& schema)
        : store(connection, schema), cache(store, std::move(options)) {}

    // Runs `call` if a transaction is open.
    template <class Call>
    auto within(const Call& call) -> decltype(call()) {
        DEDUP_TRY(store.check());
        return call();
    }

    pg::TransactionStore store;
    Cache cache;
};

TransactionCache::TransactionCache(PGconn* connection, CacheOptions options,
                                   const std::string& schema)
    : parts_(std::make_unique<Parts>(connection, std::move(options), schema)) {}

TransactionCache::~TransactionCache() = default;

Result<ClaimOutcome> TransactionCache::claim(std::string_view key, const ClaimOptions& options,
                                             std::chrono::milliseconds wait) {
    parts_->store.set_wait(wait);
    auto outcome = parts_->within([&] { return parts_->cache.claim(key, options); });
    if (!outcome && outcome.error().code == Code::busy) {
        return InFlight();
    }
    return outcome;
}

Result<void> TransactionCache::complete(const Claim& claim, std::string_view receipt,
                                        const CompleteOptions& options) {
    return parts_->within([&] { return parts_->cache.complete(claim, receipt, options); });
}

Result<bool> TransactionCache::release(const Claim& claim) {
    return parts_->within([&] { return parts_->cache.release(claim); });
}

Result<RememberOutcome> TransactionCache::remember(std::string_view key, std::string_view receipt,
                                                   const ClaimOptions& options) {
    auto outcome = parts_->within([&] { return parts_->cache.remember(key, receipt, options); });
    if (!outcome && outcome.error().code == Code::busy) {
        return InFlight();
    }
    return outcome;
}

Result<LookupOutcome> TransactionCache::lookup(std::string_view key) {
    return parts_->within([&] { return parts_->cache.lookup(key); });
}

const std::string& TransactionCache::sqlstate() const {
    return parts_->store.sqlstate();
}

namespace {

struct Statement {
    Result<void> result;
    std::string sqlstate;
};

// BEGIN, COMMIT or ROLLBACK on the caller's connection.
Statement run_statement(PGconn* connection, const char* sql) {
    const pg::Table table(PQexec(connection, sql));
    if (table.failed()) {
        return {std::unexpected(table.error()), table.sqlstate()};
    }
    return {};
}

bool may_run_again(std::string_view sqlstate) {
    return sqlstate == "40001" || sqlstate == "40P01";
}

// One attempt of run_once; what it gives without a value is to be tried again.
class Attempt {
  public:
    Attempt(PGconn* connection, const RunOnceOptions& options)
        : connection_(connection), cache_(connection, options.cache, options.schema) {}

    Result<RunOnceOutcome> run(std::string_view key, const TransactionWork& work,
                               const RunOnceOptions& options) {
        if (auto begun = run_statement(connection_, "BEGIN ISOLATION LEVEL READ COMMITTED");
            !begun.result) {
            return std::unexpected(std::move(begun.result).error());
        }
        Result<RunOnceOutcome> outcome = std::unexpected(Error());
        try {
            outcome = within(key, work, options);
        } catch (...) {
            static_cast<void>(run_statement(connection_, "ROLLBACK"));
            throw;
        }
        if (!outcome || !std::holds_alternative<Ran>(*outcome)) {
            again_ = again_ || may_run_again(cache_.sqlstate());
            static_cast<void>(run_statement(connection_, "ROLLBACK"));
        }
        return outcome;
    }
    [[nodiscard]] bool again() const { return again_; }

  private:
    Result<RunOnceOutcome> within(std::string_view key, const TransactionWork& work,
                                  const RunOnceOptions& options) {
        auto claimed = DEDUP_TRY(cache_.claim(key, options.claim, options.wait));
        if (auto* const held = std::get_if<InFlight>(&claimed)) {
            return std::move(*held);
        }
        if (auto* const known = std::get_if<Completed>(&claimed)) {
            return std::move(*known);
        }
        if (auto* const other = std::get_if<Mismatch>(&claimed)) {
            return std::move(*other);
        }
        if (auto* const unanswered = std::get_if<Held>(&claimed)) {
            return std::move(*unanswered);
        }
        const auto& mine = std::get<Claimed>(claimed);
        auto receipt = work(connection_, mine);
        if (!receipt) {
            again_ = receipt.error().code == Code::unavailable;
            return std::unexpected(std::move(receipt).error());
        }
        DEDUP_TRY(cache_.complete(mine.claim, *receipt));
        auto committed = run_statement(connection_, "COMMIT");
        if (!committed.result) {
            again_ = may_run_again(committed.sqlstate);
            Error error = std::move(committed.result).error();
            if (PQstatus(connection_) != CONNECTION_OK) {
                error.code = Code::outcome_unknown;
                error.message += "; connect again and run again: what was done is not done twice";
            }
            return std::unexpected(std::move(error));
        }
        return Ran{*std::move(receipt), mine.claim.claim_sequence};
    }

    PGconn* connection_;
    TransactionCache cache_;
    bool again_ = false;
};

}  // namespace

Result<RunOnceOutcome> run_once(PGconn* connection, std::string_view key,
                                const TransactionWork& work, const RunOnceOptions& options) {
    DEDUP_TRY(pg::load_libpq());
    if (PQtransactionStatus(connection) != PQTRANS_IDLE) {
        return std::unexpected(Error{Code::invalid_argument,
                                     "a transaction is open on the connection, or it is lost; "
                                     "run_once begins its own"});
    }
    for (int attempts = 1;; ++attempts) {
        Attempt attempt(connection, options);
        auto outcome = attempt.run(key, work, options);
        if (outcome || !attempt.again() || attempts >= options.attempts_max) {
            return outcome;
        }
    }
}

}  // namespace dedup
