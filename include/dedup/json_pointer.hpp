// The value at a JSON pointer (RFC 6901) in a JSON text (RFC 8259).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dedup/error.hpp"

namespace dedup {

// A pointer such as "/id" or "/user/name"; "" leads to the whole text. Immutable: any number of
// threads may use one.
class DEDUP_API JsonPointer {
  public:
    // Errors: invalid_argument.
    [[nodiscard]] static Result<JsonPointer> parse(std::string_view pointer);

    // Puts what the pointer leads to in `text` into `value`: a string as it is, a number with the
    // digits that it is written with, a boolean, or an object or array without white space. What is
    // longer than a key may be is cut off one byte behind that. Of members with one name the last
    // counts. False if `text` is not a JSON text, has no such value, or has a null there; `value`
    // then holds anything.
    [[nodiscard]] bool find(std::string_view text, std::string& value) const;

  private:
    std::vector<std::string> tokens_;
};

}  // namespace dedup
