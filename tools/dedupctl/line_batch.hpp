// One batch of lines on its way through `filter`: which of them are new, and remembering those.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/line_key.hpp"
#include "dedup/cache.hpp"

namespace dedupctl {

inline constexpr std::size_t kBatchLinesMax = 16'384;

struct LineCounts {
    std::uint64_t read = 0;
    std::uint64_t fresh = 0;      // printed and remembered
    std::uint64_t repeated = 0;   // not printed
    std::uint64_t no_key = 0;     // the rest is printed and not remembered
    std::uint64_t in_flight = 0;  // somebody else holds a claim on the key

    LineCounts& operator+=(const LineCounts& other);
};

class LineBatch {
  public:
    LineBatch(LineKey& line_key, char end_of_line, dedup::ClaimOptions options);

    // Looks all lines up; gives those to print, one after the other. The lines must live until
    // remember. Throws a Failure.
    [[nodiscard]] std::string_view sort_out(dedup::Cache& cache,
                                            std::span<const std::string_view> lines);

    // Makes the new ones among them known, with one flush. Throws a Failure.
    void remember(dedup::Cache& cache);

    // Of the lines that were sorted out last.
    [[nodiscard]] const LineCounts& counts() const { return counts_; }

    // Called with the key of each repeated line; empty: nobody is.
    std::function<void(std::string_view)> on_repeated;

  private:
    // A line without a key; any other has what its key's lookup says.
    static constexpr std::uint32_t kNoKey = UINT32_MAX;
    static constexpr std::uint32_t kRepeatBit = 1U << 31U;  // not the first line with this key

    void find_keys(std::span<const std::string_view> lines);
    [[nodiscard]] std::uint32_t slot_of(std::string_view key);
    void look_up(dedup::Cache& cache);

    enum class Known : std::uint8_t { no, yes, in_flight };

    LineKey& line_key_;
    char end_of_line_;
    std::uint64_t hash_seed_;
    std::vector<std::string> storage_;    // a line: for keys that are not a part of the line
    std::vector<std::uint32_t> key_of_;   // a line: its key's place in keys_, or what is fixed
    std::vector<std::string_view> keys_;  // the distinct keys, in order
    std::vector<Known> known_;            // a distinct key
    std::vector<std::uint32_t> table_;    // open addressing over keys_; 0 is free, else place + 1
    std::vector<dedup::RememberRequest> requests_;
    std::size_t requests_used_ = 0;
    std::string text_;
    LineCounts counts_;
};

}  // namespace dedupctl
