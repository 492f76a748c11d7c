// Keys by namespace, in a bounded number of rows.
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>

#include "key_counts.hpp"

namespace dedupctl {

// Has a row a namespace. Where there are more than kRows, namespaces whose names begin alike share
// one, "a-*": those of the largest crowd. So who may make namespaces of one beginning only, as many
// as they like, fills rows of that beginning and leaves the others theirs.
class NamespaceCounts {
  public:
    static constexpr std::size_t kRows = 1000;
    // So many whose names begin alike are told from others.
    static constexpr std::size_t kCrowd = 60;

    using Rows = std::map<std::string, KeyCounts>;

    // The row that `ns` is in, valid until the next call.
    [[nodiscard]] KeyCounts& of(const std::string& ns);
    [[nodiscard]] const Rows& rows() const { return rows_; }

  private:
    [[nodiscard]] const std::string* shared_beginning(const std::string& ns) const;
    [[nodiscard]] std::string crowd() const;
    void share(const std::string& beginning);

    Rows rows_;
    std::set<std::string> shared_;  // beginnings, none of which begins with another
};

}  // namespace dedupctl
