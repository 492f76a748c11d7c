#include <algorithm>
#include <map>
#include <utility>

#include "dedup/metrics.hpp"
#include "dedup/scan.hpp"
#include "dedup/store.hpp"
#include "record/try.hpp"

namespace dedup {

Result<std::vector<OpenClaims>> open_claims(StreamStore& store) {
    std::map<std::string, OpenClaims, std::less<>> found;
    DEDUP_TRY(for_each_page(store, {}, [&](const ScanPage& page) {
        const std::int64_t now_ms = store.now_ms();
        for (const Version& head : page.heads) {
            const Record& record = head.record;
            if (record.state() != State::in_flight ||
                expired(record.expires_at_ms, now_ms, store.grace())) {
                continue;
            }
            auto at = found.find(record.ns);
            if (at == found.end()) {
                at = found.try_emplace(record.ns, OpenClaims{.ns = record.ns}).first;
                at->second.oldest_ms = record.timestamp_ms;
            }
            OpenClaims& of = at->second;
            ++of.count;
            of.past_lease += past_lease(record, now_ms, store.grace()) ? 1U : 0U;
            of.held += held(record, now_ms) ? 1U : 0U;
            of.oldest_ms = std::min(of.oldest_ms, record.timestamp_ms);
        }
    }));
    std::vector<OpenClaims> claims;
    claims.reserve(found.size());
    for (auto& [ns, of] : found) {
        claims.push_back(std::move(of));
    }
    return claims;
}

}  // namespace dedup
