#include "exec_environment.hpp"

#include <filesystem>

namespace dedupctl {
namespace {

// The store as it was opened, from whichever directory the command works in.
std::string reachable_store(const Context& context) {
    static constexpr std::string_view kSocket = "unix:";
    const std::string& store = context.store_path;
    const bool is_socket = store.starts_with(kSocket);
    if (context.has_url() && !is_socket) {
        return store;
    }
    const std::size_t path = is_socket ? kSocket.size() : 0;
    std::error_code error;
    const auto absolute = std::filesystem::absolute(store.substr(path), error);
    return error ? store : store.substr(0, path) + absolute.string();
}

}  // namespace

std::vector<std::string> exec_environment(const Context& context, const dedup::Claim& claim,
                                          const std::optional<dedup::Previous>& previous) {
    // All of them always: an exec within an exec must not pass on what the outer one was told.
    const dedup::Previous before = previous.value_or(dedup::Previous{});
    const auto number = [](auto value) { return value == 0 ? "" : std::to_string(value); };
    return {
        "DEDUP_STORE=" + reachable_store(context),
        "DEDUP_NAMESPACE=" + context.ns,
        "DEDUP_KEY=" + claim.key,
        "DEDUP_CLAIM=" + std::to_string(claim.claim_sequence),
        "DEDUP_ATTEMPT=" + std::to_string(claim.attempt),
        "DEDUP_PREVIOUS_CLAIM=" + number(before.claim_sequence),
        "DEDUP_PREVIOUS_OWNER=" + before.owner,
        "DEDUP_PREVIOUS_BEGAN_MS=" + number(before.began_ms),
        "DEDUP_PREVIOUS_END=" + std::string(previous ? dedup::name(before.end) : ""),
        "DEDUP_PREVIOUS_NOTE=" + before.note,
    };
}

}  // namespace dedupctl
