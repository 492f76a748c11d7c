// Takes requests out of the bytes that a client sends: RESP arrays of bulk strings, as every client
// library sends them, or a line of words, as a person types them.
//
// The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/store.hpp"

namespace dedup::server {

// What one request may have. A client that exceeds them gets an error and is disconnected, as what
// follows cannot be told apart.
struct RequestLimits {
    std::size_t argument_bytes_max = 18 * 1024 * 1024;  // any record fits
    // Any batch fits: so many items, an expected sequence and a record each.
    std::size_t arguments_max = 2 * kBatchItemsMax + 4;
    std::size_t request_bytes_max = kAtomicBatchBytesMax + 8 * 1024 * 1024;
    std::size_t line_bytes_max = 16 * 1024;  // of a request in words
};

// Whoever has not said a password yet, where there is one, gets no memory for the asking.
inline constexpr RequestLimits kUnauthenticatedLimits{.argument_bytes_max = 1024,
                                                      .arguments_max = 10,
                                                      .request_bytes_max = 4096,
                                                      .line_bytes_max = 1024};

// For one connection, on one thread. Allocates for arguments that have come, never for those that
// were announced; looks at no byte twice, however small the pieces are in which a request comes.
class RequestParser {
  public:
    enum class Found : std::uint8_t {
        request,     // arguments() has it, and it took the first size() bytes
        nothing,     // the first size() bytes say nothing: an empty line or array
        incomplete,  // call again with the same bytes and more behind them
        garbage,     // error() says what is wrong; nothing can follow
    };

    // `bytes` begin where a request begins. After request and nothing, the next call is to get what
    // follows the first size() bytes.
    [[nodiscard]] Found parse(std::string_view bytes, const RequestLimits& limits);

    // They lie in the bytes that parse got.
    [[nodiscard]] const std::vector<std::string_view>& arguments() const { return arguments_; }
    [[nodiscard]] std::size_t size() const { return at_; }
    [[nodiscard]] const std::string& error() const { return error_; }
    // Whether bytes of an unfinished request have been seen.
    [[nodiscard]] bool under_way() const { return under_way_; }

  private:
    struct Piece {
        std::size_t offset;
        std::size_t size;
    };
    enum class Part : std::uint8_t { done, missing, bad };

    Part number_after(char mark, std::string_view bytes, std::int64_t& number);
    Part take_array(std::string_view bytes, const RequestLimits& limits);
    Part take_argument(std::string_view bytes, const RequestLimits& limits);
    Part take_words(std::string_view bytes, const RequestLimits& limits);
    Part bad(std::string what);
    void begin();

    std::size_t at_ = 0;          // all before it has been understood
    std::size_t looked_at_ = 0;   // no end of line before it
    std::int64_t missing_ = -1;   // arguments; -1: their number has not come yet
    std::int64_t argument_ = -1;  // size of the argument under way; -1: has not come yet
    bool under_way_ = false;
    std::vector<Piece> pieces_;
    std::vector<std::string_view> arguments_;
    std::string error_;
};

}  // namespace dedup::server
