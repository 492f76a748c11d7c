// Small structured values in the catalog: numbers and texts one after the other, and a checksum at
// the end.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "dedup/sweep.hpp"
#include "env/bytes.hpp"

namespace dedup {

class ValueWriter {
  public:
    void number(std::uint64_t value) {
        bytes_.append(sizeof value, '\0');
        store(bytes_.data() + bytes_.size() - sizeof value, value);
    }
    void signed_number(std::int64_t value) { number(static_cast<std::uint64_t>(value)); }
    void text(std::string_view text) {
        number(text.size());
        bytes_ += text;
    }
    void counts(const StateCounts& counts) {
        number(counts.in_flight);
        number(counts.completed);
        number(counts.released);
    }
    [[nodiscard]] std::string finish() {
        number(XXH3_64bits(bytes_.data(), bytes_.size()));
        return std::move(bytes_);
    }

  private:
    std::string bytes_;
};

// Gives zeros and empty texts once it has met something that cannot be.
class ValueReader {
  public:
    explicit ValueReader(std::string_view bytes) {
        if (bytes.size() < sizeof(std::uint64_t)) {
            good_ = false;
            return;
        }
        rest_ = bytes.substr(0, bytes.size() - sizeof(std::uint64_t));
        good_ = load<std::uint64_t>(rest_.data() + rest_.size()) ==
                XXH3_64bits(rest_.data(), rest_.size());
    }

    [[nodiscard]] std::uint64_t number() {
        if (!good_ || rest_.size() < sizeof(std::uint64_t)) {
            good_ = false;
            return 0;
        }
        const auto value = load<std::uint64_t>(rest_.data());
        rest_.remove_prefix(sizeof value);
        return value;
    }
    [[nodiscard]] std::uint32_t number32() {
        const std::uint64_t value = number();
        good_ = good_ && value <= UINT32_MAX;
        return static_cast<std::uint32_t>(value);
    }
    [[nodiscard]] std::int64_t signed_number() { return static_cast<std::int64_t>(number()); }
    [[nodiscard]] std::string text() {
        const std::uint64_t bytes = number();
        if (!good_ || bytes > rest_.size()) {
            good_ = false;
            return {};
        }
        std::string text(rest_.substr(0, bytes));
        rest_.remove_prefix(bytes);
        return text;
    }
    [[nodiscard]] StateCounts counts() {
        StateCounts counts;
        counts.in_flight = number();
        counts.completed = number();
        counts.released = number();
        return counts;
    }

    // What has been read cannot be.
    void refuse() { good_ = false; }

    [[nodiscard]] bool good() const { return good_; }
    // Whether all was intact and there is nothing left.
    [[nodiscard]] bool finished() const { return good_ && rest_.empty(); }

  private:
    std::string_view rest_;
    bool good_ = true;
};

}  // namespace dedup
