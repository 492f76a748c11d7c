#include "namespace_counts.hpp"

#include <algorithm>
#include <array>

namespace dedupctl {
namespace {

std::string row_of(const std::string& beginning) {
    return beginning + "*";
}

}  // namespace

KeyCounts& NamespaceCounts::of(const std::string& ns) {
    if (rows_.size() >= kRows && !rows_.contains(ns) && shared_beginning(ns) == nullptr) {
        share(crowd());
    }
    const std::string* const beginning = shared_beginning(ns);
    return rows_[beginning == nullptr ? ns : row_of(*beginning)];
}

// A beginning of `ns` sorts before it, and what lies between them begins with it, too.
const std::string* NamespaceCounts::shared_beginning(const std::string& ns) const {
    const auto after = shared_.upper_bound(ns);
    return after != shared_.begin() && ns.starts_with(*std::prev(after)) ? &*std::prev(after)
                                                                         : nullptr;
}

// The beginning of the largest crowd: as long as there is a crowd that has it.
std::string NamespaceCounts::crowd() const {
    std::string beginning;
    for (;;) {
        std::array<std::size_t, 256> next{};
        for (const auto& [ns, counts] : rows_) {
            if (ns.size() > beginning.size() && ns.starts_with(beginning)) {
                ++next.at(static_cast<unsigned char>(ns[beginning.size()]));
            }
        }
        const auto most = std::ranges::max_element(next);
        if (!beginning.empty() && *most < kCrowd) {
            return beginning;
        }
        beginning += static_cast<char>(most - next.begin());
    }
}

void NamespaceCounts::share(const std::string& beginning) {
    const auto begins = [&](const std::string& name) { return name.starts_with(beginning); };
    KeyCounts sum;
    for (auto at = rows_.lower_bound(beginning); at != rows_.end() && begins(at->first);) {
        sum += at->second;
        at = rows_.erase(at);
    }
    std::erase_if(shared_, begins);
    shared_.insert(beginning);
    rows_[row_of(beginning)] = sum;
}

}  // namespace dedupctl
