// Answers as C sees them, packed: structs of one size, and the bytes that they point into.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/cache.hpp"
#include "dedup/dedup.h"

namespace dedup {

// Collects answers. While it grows, its texts move, so pointers are places in them until finish().
class Answers {
  public:
    // Each adds one answer, or none if memory runs out.
    void add(const Result<ClaimOutcome>& outcome, std::uint64_t tag = 0);
    void add(const Result<LookupOutcome>& outcome, std::uint64_t tag = 0);
    void add(const Result<RememberOutcome>& outcome, std::uint64_t tag = 0);
    void add(const Result<Claim>& renewed, std::uint64_t tag = 0);
    void add(const Result<bool>& released, std::uint64_t tag = 0);
    void add(const Result<void>& completed, std::uint64_t tag = 0);

    // Makes room for so many answers in all: add_unknown() needs no memory up to there.
    void reserve(std::size_t count);
    // That nobody knows what became of a request. Does not throw behind reserve().
    void add_unknown(std::uint64_t tag);

    void finish();

    [[nodiscard]] const std::vector<dedup_answer>& all() const { return all_; }
    [[nodiscard]] const std::vector<dedup_previous>& previous() const { return previous_; }
    [[nodiscard]] const std::string& texts() const { return texts_; }

  private:
    template <class T>
    void add_result(const Result<T>& result, std::uint64_t tag);

    void fill(dedup_answer& answer, const Error& error);
    void fill(dedup_answer& answer, const InFlight& outcome);
    void fill(dedup_answer& answer, const Absent& outcome);
    void fill(dedup_answer& answer, const New& outcome);
    void fill(dedup_answer& answer, const Claimed& outcome);
    void fill(dedup_answer& answer, const Completed& outcome);
    void fill(dedup_answer& answer, const Mismatch& outcome);
    void fill(dedup_answer& answer, const Held& outcome);
    void fill(dedup_answer& answer, const Claim& renewed);
    void fill(dedup_answer& answer, bool released);
    void fill_previous(dedup_answer& answer, const Previous& previous);

    dedup_bytes keep(std::string_view text);
    void point(dedup_bytes& text) const;

    std::vector<dedup_answer> all_;
    std::vector<dedup_previous> previous_;
    std::string texts_ = std::string(1, '\0');  // at 0: the empty text
};

}  // namespace dedup

struct dedup_outcome {
    dedup::Answers answers;
};
