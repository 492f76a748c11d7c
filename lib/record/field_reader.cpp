#include "record/field_reader.hpp"

#include <fmt/format.h>

#include "record/check.hpp"

namespace dedup {

std::string FieldReader::problem() const {
    const std::string field = fmt::format("{} at byte {}", display_name(tag_), offset_);
    if (!in_order_) {
        return tag_ == 0 ? fmt::format("tag at byte {} is 0, which no field uses", offset_)
                         : fmt::format("{} is out of order: tag 0x{:02x} comes after 0x{:02x}",
                                       field, tag_, tag_before_);
    }
    if (length_.problem != nullptr) {
        return fmt::format("{} has a length that {}", field, length_.problem);
    }
    return fmt::format("{} is {} bytes long, but only {} are left", field, grouped(length_.value),
                       grouped(bytes_.size() - position_));
}

}  // namespace dedup
