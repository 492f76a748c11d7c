// Steps through encoded fields. Knows their shape, not their meaning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "record/format.hpp"

namespace dedup {

// An unsigned LEB128 number in its shortest form.
struct Varint {
    std::uint64_t value = 0;
    const char* problem = nullptr;  // why there is no number; null if there is one
};

// Reads a varint of at most `bytes_max` bytes (1 to 10) at `position` and moves that behind it.
[[nodiscard]] inline Varint read_varint(std::string_view bytes, std::size_t& position,
                                        std::size_t bytes_max) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes_max; ++i) {
        if (position == bytes.size()) {
            return {0, "is cut off"};
        }
        const auto byte = static_cast<unsigned char>(bytes[position++]);
        const unsigned shift = static_cast<unsigned>(i) * 7;
        if (shift == 63 && byte > 1) {
            return {0, "does not fit 64 bits"};
        }
        value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (byte == 0 && i > 0) {
                return {0, "is not in its shortest form"};
            }
            return {value, nullptr};
        }
    }
    return {0, "has too many bytes"};
}

class FieldReader {
  public:
    // Reads the fields of `bytes` from `position`, whose tags must be above `tag_before`.
    FieldReader(std::string_view bytes, std::size_t position, std::uint8_t tag_before)
        : bytes_(bytes), position_(position), offset_(position), tag_(tag_before) {}

    [[nodiscard]] bool done() const { return position_ == bytes_.size(); }

    // Moves to the next field. False if it is malformed; problem() says how.
    // Precondition: not done().
    [[nodiscard]] bool next() {
        offset_ = position_;
        const auto tag = static_cast<std::uint8_t>(bytes_[position_++]);
        in_order_ = tag > tag_;
        tag_before_ = tag_;
        tag_ = tag;
        if (!in_order_) {
            return false;
        }
        length_ = read_varint(bytes_, position_, record_format::kLengthBytesMax);
        if (length_.problem != nullptr || length_.value > bytes_.size() - position_) {
            return false;
        }
        payload_ = std::string_view(bytes_.data() + position_, length_.value);
        position_ += length_.value;
        return true;
    }

    [[nodiscard]] std::uint8_t tag() const { return tag_; }
    [[nodiscard]] std::size_t offset() const { return offset_; }  // of the tag
    [[nodiscard]] std::string_view payload() const { return payload_; }

    // What is wrong with the field on which next() failed.
    [[nodiscard]] std::string problem() const;

  private:
    std::string_view bytes_;
    std::string_view payload_;
    Varint length_;
    std::size_t position_;
    std::size_t offset_;
    std::uint8_t tag_;
    std::uint8_t tag_before_ = 0;
    bool in_order_ = true;
};

}  // namespace dedup
