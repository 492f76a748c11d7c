// A view of bytes for lists that a call takes, such as StreamKey.
#pragma once

#include <string>
#include <string_view>

namespace dedup {

// As std::string_view, but no temporary string becomes one: in a list it would be gone before the
// call, and the view would name something else. Give the string a name that lives as long.
class BytesView : public std::string_view {
  public:
    constexpr BytesView() = default;
    constexpr BytesView(std::string_view bytes) : std::string_view(bytes) {}
    constexpr BytesView(const char* text) : std::string_view(text) {}
    constexpr BytesView(const char* bytes, std::size_t size) : std::string_view(bytes, size) {}
    constexpr BytesView(const std::string& bytes) : std::string_view(bytes) {}
    BytesView(std::string&&) = delete;
    BytesView(const std::string&&) = delete;
};

}  // namespace dedup
