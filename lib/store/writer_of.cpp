// Who writes to a store.

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "env/lock_holder.hpp"
#include "record/invalid.hpp"
#include "record/try.hpp"
#include "store/creation.hpp"
#include "store/log_store.hpp"

namespace dedup {

Result<std::optional<Writer>> writer_of(const std::filesystem::path& path) {
    Env& env = posix_env();
    if (!DEDUP_TRY(find_store(env, path))) {
        return invalid(fmt::format("there is no store at {}", path.string()));
    }
    const Path file = path / kLockName;
    const auto free = env.lock_out(file);
    if (free) {
        return std::nullopt;
    }
    if (free.error().code != Code::busy) {
        return std::unexpected(free.error());
    }
    std::ifstream input(file);
    const Holder holder = holder_in(std::string(std::istreambuf_iterator<char>(input), {}));
    return Writer{.pid = static_cast<std::uint64_t>(holder.pid),
                  .since_ms = std::int64_t{holder.since} * 1000,
                  .host = holder.host,
                  .text = free.error().message};
}

}  // namespace dedup
