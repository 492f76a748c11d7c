// Values as the server's protocol has them in binary: big-endian numbers, bytes as they are, and
// arrays of both.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace dedup::pg {

// PostgreSQL's numbers for its types; the same in every installation.
enum class Type : std::uint32_t { bytea = 17, int8 = 20, int2 = 21, int4 = 23, text = 25 };

template <std::integral T>
void put_number(std::string& out, T value) {
    auto bits = static_cast<std::make_unsigned_t<T>>(value);
    std::array<char, sizeof(T)> bytes{};
    for (std::size_t i = sizeof(T); i > 0; --i) {
        bytes[i - 1] = static_cast<char>(bits);
        bits = static_cast<std::make_unsigned_t<T>>(bits >> 4U >> 4U);
    }
    out.append(bytes.data(), bytes.size());
}

// Precondition: `bytes` has sizeof(T) of them.
template <std::integral T>
[[nodiscard]] T get_number(const char* bytes) {
    std::make_unsigned_t<T> bits = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
        bits = static_cast<std::make_unsigned_t<T>>((bits << 8U) |
                                                    static_cast<unsigned char>(bytes[i]));
    }
    return static_cast<T>(bits);
}

// Builds an array of one dimension, element by element.
class ArrayWriter {
  public:
    explicit ArrayWriter(Type type) {
        put_number<std::int32_t>(bytes_, 1);  // dimensions
        put_number<std::int32_t>(bytes_, 0);  // has nulls
        put_number(bytes_, static_cast<std::uint32_t>(type));
        put_number<std::int32_t>(bytes_, 0);  // elements
        put_number<std::int32_t>(bytes_, 1);  // number of the first
    }

    template <std::integral T>
    void number(T value) {
        put_number<std::int32_t>(bytes_, sizeof(T));
        put_number(bytes_, value);
        added(4 + sizeof(T));
    }
    void bytes(std::string_view value) {
        put_number(bytes_, static_cast<std::int32_t>(value.size()));
        bytes_ += value;
        added(4 + value.size());
    }
    void null() {
        put_number<std::int32_t>(bytes_, -1);
        bytes_[kHasNulls] = 1;
        added(4);
    }

    // Keeps the first element if all are the same.
    void fold() {
        if (all_same_ && elements_ > 1) {
            bytes_.resize(kBegin + first_size_);
            elements_ = 1;
        }
    }

    [[nodiscard]] std::string finish() {
        std::string count;
        put_number(count, elements_);
        bytes_.replace(kElements, count.size(), count);
        return std::move(bytes_);
    }

  private:
    void added(std::size_t size) {
        const std::string_view elements = std::string_view(bytes_).substr(kBegin);
        first_size_ = elements_ == 0 ? size : first_size_;
        all_same_ = all_same_ && size == first_size_ &&
                    elements.substr(elements.size() - size) == elements.substr(0, size);
        ++elements_;
    }

    static constexpr std::size_t kHasNulls = 7;
    static constexpr std::size_t kElements = 12;
    static constexpr std::size_t kBegin = 20;  // of the first element

    std::string bytes_;
    std::uint32_t elements_ = 0;
    std::size_t first_size_ = 0;
    bool all_same_ = true;
};

template <std::integral T>
[[nodiscard]] std::string number_parameter(T value) {
    std::string bytes;
    put_number(bytes, value);
    return bytes;
}

}  // namespace dedup::pg
