#include "adapter.hpp"

#include <chrono>
#include <cstring>

namespace bench {
namespace {

constexpr std::size_t kExpiryBytes = 8;

}  // namespace

Failure failure(const std::string& message) {
    return Failure{.code = "peer", .message = message};
}

std::size_t Session::lookup_many(Keys keys, std::string& receipt) {
    std::size_t completed = 0;
    for (const std::string_view key : keys) {
        completed += lookup(key, receipt) ? 1U : 0U;
    }
    return completed;
}

std::uint64_t Adapter::sweep(std::int64_t /*ahead_ms*/) {
    throw failure("this peer is not swept here");
}

std::int64_t now_ms() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

std::string claimed_value(std::int64_t expires_at_ms) {
    std::string value(kExpiryBytes, '\0');
    std::memcpy(value.data(), &expires_at_ms, kExpiryBytes);
    return value;
}

std::string completed_value(std::int64_t expires_at_ms, std::string_view receipt) {
    std::string value = claimed_value(expires_at_ms);
    value += 'c';
    value += receipt;
    return value;
}

bool receipt_of(std::string_view value, std::string& receipt) {
    if (value.size() <= kExpiryBytes) {
        return false;
    }
    receipt.assign(value.substr(kExpiryBytes + 1));
    return true;
}

}  // namespace bench
