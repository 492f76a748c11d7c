#include "store/raise.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "dedup/store_clock.hpp"
#include "record/try.hpp"

namespace dedup {
namespace {

// They go on at so many times the time in milliseconds: more than a store can assign, and until the
// year 2248 less than 2^53, above which JavaScript's numbers are not exact.
constexpr std::uint64_t kSequencesPerMs = 1024;
// Or so far above the last one, if the clock tells less than the store does: more than were
// assigned behind it.
constexpr std::uint64_t kSequencesPassed = std::uint64_t{1} << 40;

}  // namespace

Result<void> pass_lost_sequences(LogWriter& writer, const Turn& turn, Env& env) {
    std::array<char, sizeof(std::uint64_t)> random{};
    DEDUP_TRY(env.random(random));
    // A part of it is random: another store may be made of the same copy.
    const std::uint64_t passed =
        kSequencesPassed + std::bit_cast<std::uint64_t>(random) % kSequencesPassed;
    const auto now = static_cast<std::uint64_t>(std::max<std::int64_t>(system_now_ms(), 0));
    const std::uint64_t next = std::min(writer.next_sequence(turn), kSequenceMax - passed);
    const std::uint64_t last = std::max(next + passed, now * kSequencesPerMs);
    DEDUP_TRY(writer.write_mark(turn, last));
    writer.set_next_sequence(turn, last + 1);
    return {};
}

}  // namespace dedup
