// A response as a receipt. Numbers are little-endian:
//
//     "HR" | u8 version (1) | u16 status | u16 headers | per header: u16 name bytes, u32 value
//     bytes, name, value | body, to the end

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "dedup/http.hpp"

namespace dedup::http {
namespace {

constexpr std::string_view kMagic = "HR";  // tells it from receipts of other kinds
constexpr std::uint8_t kVersion = 1;
constexpr int kStatusMin = 100;
constexpr int kStatusMax = 599;
constexpr std::size_t kNameBytesMax = 255;

bool is_token(std::string_view text) {
    static constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";  // RFC 9110, section 5.6.2
    return !text.empty() && std::ranges::all_of(text, [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               kMarks.find(c) != std::string_view::npos;
    });
}

// What is wrong with a response, whether it is to be stored or was; empty: nothing.
std::string fault(const Response& response) {
    if (response.status < kStatusMin || response.status > kStatusMax) {
        return fmt::format("status {} is not one from {} to {}", response.status, kStatusMin,
                           kStatusMax);
    }
    if (response.headers.size() > kHeadersMax) {
        return fmt::format("there are more than {} headers", kHeadersMax);
    }
    for (const auto& [name, value] : response.headers) {
        if (name.size() > kNameBytesMax || !is_token(name)) {
            return "a header's name is not a token";
        }
        if (value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
            return fmt::format("header {} has a line end or a NUL in it", name);
        }
    }
    return "";
}

template <class Number>
void append_number(std::string& out, Number number) {
    for (std::size_t i = 0; i < sizeof(Number); ++i) {
        out += static_cast<char>(number >> (8 * i) & 0xffU);
    }
}

class Reader {
  public:
    explicit Reader(std::string_view bytes) : rest_(bytes) {}

    template <class Number>
    Number number() {
        std::uint64_t value = 0;
        const std::string_view bytes = take(sizeof(Number));
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
        }
        return static_cast<Number>(value);
    }
    std::string_view take(std::size_t size) {
        if (size > rest_.size()) {
            cut_ = true;
            return {};
        }
        const std::string_view bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return bytes;
    }
    [[nodiscard]] std::string_view rest() const { return rest_; }
    [[nodiscard]] bool cut() const { return cut_; }

  private:
    std::string_view rest_;
    bool cut_ = false;
};

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_name(std::string_view a, std::string_view b) {
    return std::ranges::equal(a, b, {}, lower, lower);
}

}  // namespace

Headers kept_headers(const Headers& headers) {
    static constexpr std::array<std::string_view, 13> kDropped{"connection",
                                                               "keep-alive",
                                                               "proxy-authenticate",
                                                               "proxy-authorization",
                                                               "proxy-connection",
                                                               "te",
                                                               "trailer",
                                                               "transfer-encoding",
                                                               "upgrade",
                                                               "content-length",
                                                               "date",
                                                               "set-cookie",
                                                               kReplayedHeader};
    Headers kept;
    std::ranges::copy_if(headers, std::back_inserter(kept), [](const auto& header) {
        return std::ranges::none_of(
            kDropped, [&](std::string_view name) { return same_name(name, header.first); });
    });
    return kept;
}

Result<std::string> encode_response(const Response& response) {
    if (std::string why = fault(response); !why.empty()) {
        return std::unexpected(
            Error{.code = Code::invalid_argument, .message = "the response: " + std::move(why)});
    }
    std::string receipt(kMagic);
    append_number(receipt, kVersion);
    append_number(receipt, static_cast<std::uint16_t>(response.status));
    append_number(receipt, static_cast<std::uint16_t>(response.headers.size()));
    for (const auto& [name, value] : response.headers) {
        append_number(receipt, static_cast<std::uint16_t>(name.size()));
        append_number(receipt, static_cast<std::uint32_t>(value.size()));
        receipt += name;
        receipt += value;
    }
    receipt += response.body;
    if (receipt.size() > kReceiptBytesMax) {
        return std::unexpected(
            Error{.code = Code::invalid_argument,
                  .message = fmt::format("the response takes {} bytes; a receipt has at most {}",
                                         receipt.size(), kReceiptBytesMax)});
    }
    return receipt;
}

Result<Response> decode_response(std::string_view receipt) {
    const auto damaged = [](std::string why) {
        return std::unexpected(
            Error{.code = Code::corruption,
                  .message = "the receipt is no stored response: " + std::move(why)});
    };
    Reader reader(receipt);
    if (reader.take(kMagic.size()) != kMagic) {
        return damaged("it does not begin with HR");
    }
    const auto version = reader.number<std::uint8_t>();
    if (!reader.cut() && version > kVersion) {
        return std::unexpected(
            Error{.code = Code::unsupported_version,
                  .message = fmt::format("the stored response has version {}, and this library "
                                         "knows {}; use a newer one",
                                         version, kVersion)});
    }
    if (reader.cut() || version != kVersion) {
        return damaged("it has no version");
    }
    Response response;
    response.status = reader.number<std::uint16_t>();
    const auto count = reader.number<std::uint16_t>();
    for (std::size_t i = 0; i < count && !reader.cut(); ++i) {
        const auto name_bytes = reader.number<std::uint16_t>();
        const auto value_bytes = reader.number<std::uint32_t>();
        const std::string_view name = reader.take(name_bytes);
        const std::string_view value = reader.take(value_bytes);
        response.headers.emplace_back(name, value);
    }
    if (reader.cut()) {
        return damaged("it ends too early");
    }
    if (std::string why = fault(response); !why.empty()) {
        return damaged(std::move(why));
    }
    response.body = reader.rest();
    return response;
}

}  // namespace dedup::http
