#include "engine/context.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "index/index_file.hpp"

namespace dedup {

Result<Path> fixed_path(const Path& path) {
    std::error_code error;
    Path fixed = std::filesystem::weakly_canonical(path, error);
    if (error || !fixed.is_absolute()) {
        fixed = std::filesystem::absolute(path, error);
    }
    if (error) {
        return std::unexpected(os_failure("find", path, error.value()));
    }
    return fixed;
}

StoreContext::StoreContext(Env& files, Path at, const OpenOptions& opened_with,
                           const LogStoreInternals& inner, StoreClock& time)
    : env(files),
      path(std::move(at)),
      log_path(path / "log"),
      catalog_path(path / "catalog"),
      options(opened_with),
      internals(inner),
      clock(time) {}

Result<void> StoreContext::check_process() const {
    if (mark.inherited()) {
        return std::unexpected(mark.inherited_error(name()));
    }
    return {};
}

Result<void> StoreContext::check_writable() const {
    if (mark.inherited()) {
        return check_process();
    }
    if (closed) {
        return std::unexpected(closed_error());
    }
    if (options.read_only) {
        return std::unexpected(Error{Code::read_only, fmt::format("{} is open read-only", name())});
    }
    if (failure.failed()) {
        return std::unexpected(
            Error{Code::failed, fmt::format("{} takes no more writes since one failed ({}); close "
                                            "it and open it again",
                                            name(), failure.reason())});
    }
    return {};
}

std::string StoreContext::name() const {
    return fmt::format("store {}", path.string());
}

Error StoreContext::closed_error() const {
    return {Code::closed, fmt::format("{} has been closed", name())};
}

Error StoreContext::called_back_error(std::string_view call) const {
    return {Code::busy,
            fmt::format("{}: {} was called back from within a sweep of it", name(), call)};
}

Error StoreContext::catalog_problem(std::string_view what) const {
    return {Code::corruption, fmt::format("catalog {}: {}", catalog_path.string(), what)};
}

Error StoreContext::damaged_index(const SealedSegment& sealed) const {
    return {
        Code::corruption,
        fmt::format("{} is damaged; close the store and remove that file: opening the store for "
                    "writing makes it anew from the segment",
                    (log_path / index_file_name(sealed.row.id)).string())};
}

}  // namespace dedup
