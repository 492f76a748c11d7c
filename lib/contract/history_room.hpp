// How much of a stream's history is read.
#pragma once

#include <cstddef>

#include "dedup/store.hpp"

namespace dedup {

// Of HistoryLimits, what is left.
class HistoryRoom {
  public:
    explicit HistoryRoom(const HistoryLimits& limits) : limits_(limits) {}

    // Whether there is room for more versions behind this one.
    [[nodiscard]] bool is_left_after(const Record& record) {
        ++versions_;
        bytes_ += record.metadata.size() + (record.receipt ? record.receipt->size() : 0);
        return versions_ < limits_.versions_max && bytes_ < limits_.bytes_max;
    }

  private:
    const HistoryLimits limits_;
    std::size_t versions_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace dedup
