// The streams of a store as a transaction of somebody else's sees and changes them.
#pragma once

#include <libpq-fe.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dedup/store.hpp"
#include "postgres/connection.hpp"
#include "postgres/statements.hpp"

namespace dedup::pg {

// Not a whole store: a Cache needs heads and appends. Blocks on the connection, which it leaves as
// it found it, but for what it has written.
class TransactionStore final : public StreamStore {
  public:
    TransactionStore(PGconn* connection, const std::string& schema);

    // How long an append waits for another transaction that has its key.
    void set_wait(std::chrono::milliseconds wait) { wait_ = wait; }
    [[nodiscard]] const std::string& sqlstate() const { return sqlstate_; }

    // Errors an item: busy, if another transaction has the key for longer than that.
    std::vector<Result<std::uint64_t>> append(std::span<const Append> batch, Batch mode) override;
    std::vector<Result<std::optional<Record>>> heads(std::span<const StreamKey> streams) override;
    Result<std::vector<Version>> history(StreamKey stream, const HistoryLimits& limits) override;
    Result<ScanPage> scan(const ScanOptions& options) override;
    Result<SweepReport> sweep(const SweepOptions& options) override;
    Result<std::vector<SweepReport>> sweep_history() override;
    Result<StoreStats> stats() override;
    Result<void> flush() override { return {}; }
    Result<void> close() override { return {}; }

    // Whether a transaction is open that can go on, in a database with a store.
    [[nodiscard]] Result<void> check();
    // Runs one statement.
    [[nodiscard]] Result<Table> run(const Query& query);

  private:
    [[nodiscard]] Result<std::uint64_t> append_one(const Append& item);
    [[nodiscard]] Result<std::uint64_t> write(const Append& item);
    [[nodiscard]] std::int64_t server_ms();

    PGconn* conn_;
    const Result<std::string> schema_;
    const Statements statements_;
    const Statement now_;
    const Statement set_wait_;
    std::chrono::milliseconds wait_{5'000};
    std::string sqlstate_;
    bool checked_ = false;
};

}  // namespace dedup::pg
