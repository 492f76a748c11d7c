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
    return store.substr(0, path) + std::filesystem::absolute(store.substr(path)).string();
}

}  // namespace

std::vector<std::string> exec_environment(const Context& context, const dedup::Claim& claim) {
    return {"DEDUP_STORE=" + reachable_store(context), "DEDUP_NAMESPACE=" + context.ns,
            "DEDUP_KEY=" + claim.key, "DEDUP_CLAIM=" + std::to_string(claim.claim_sequence),
            "DEDUP_ATTEMPT=" + std::to_string(claim.attempt)};
}

}  // namespace dedupctl
