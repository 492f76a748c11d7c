// What there is instead of PostgreSQL in a library that was built without libpq.
#include "dedup/postgres_store.hpp"
#include "dedup/postgres_transaction.hpp"

namespace dedup {
namespace {

std::unexpected<Error> built_without() {
    return std::unexpected(Error{Code::invalid_argument,
                                 "this library was built without PostgreSQL: build it with "
                                 "-Dpostgres=enabled, where libpq is installed"});
}

}  // namespace

bool is_postgres_url(std::string_view path) {
    return path.starts_with("postgresql://") || path.starts_with("postgres://");
}

Result<std::unique_ptr<StreamStore>> open_postgres(const std::string&, const PostgresOptions&) {
    return built_without();
}

Result<PostgresInit> init_postgres(const std::string&, const PostgresOptions&) {
    return built_without();
}

struct TransactionCache::Parts {
    std::string sqlstate;
};

TransactionCache::TransactionCache(PGconn*, CacheOptions, const std::string&)
    : parts_(std::make_unique<Parts>()) {}

TransactionCache::~TransactionCache() = default;

Result<ClaimOutcome> TransactionCache::claim(std::string_view, const ClaimOptions&,
                                             std::chrono::milliseconds) {
    return built_without();
}

Result<void> TransactionCache::complete(const Claim&, std::string_view, const CompleteOptions&) {
    return built_without();
}

Result<bool> TransactionCache::release(const Claim&) {
    return built_without();
}

Result<RememberOutcome> TransactionCache::remember(std::string_view, std::string_view,
                                                   const ClaimOptions&) {
    return built_without();
}

Result<LookupOutcome> TransactionCache::lookup(std::string_view) {
    return built_without();
}

const std::string& TransactionCache::sqlstate() const {
    return parts_->sqlstate;
}

Result<RunOnceOutcome> run_once(PGconn*, std::string_view, const TransactionWork&,
                                const RunOnceOptions&) {
    return built_without();
}

}  // namespace dedup
