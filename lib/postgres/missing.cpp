// What there is instead of PostgreSQL in a library that was built without libpq.
#include "dedup/postgres_store.hpp"

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

}  // namespace dedup
