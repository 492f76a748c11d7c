// Replies as a client reads them: RESP 2, with the maps of RESP 3 taken for lists of pairs.
//
// The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dedup::wire {

// A request as client libraries send it.
class RequestWriter {
  public:
    explicit RequestWriter(std::size_t arguments);
    RequestWriter& add(std::string_view argument);
    RequestWriter& add_number(std::uint64_t number);
    [[nodiscard]] const std::string& bytes() const { return bytes_; }

  private:
    std::string bytes_;
};

struct Reply {
    enum class Kind : std::uint8_t { null, integer, text, error, list };

    Kind kind = Kind::null;
    std::int64_t integer = 0;
    std::string text;  // also of an error
    std::vector<Reply> list;

    [[nodiscard]] bool is_null() const { return kind == Kind::null; }
    [[nodiscard]] bool is_integer() const { return kind == Kind::integer; }
    [[nodiscard]] bool is_text() const { return kind == Kind::text; }
    [[nodiscard]] bool is_error() const { return kind == Kind::error; }
    [[nodiscard]] bool is_list() const { return kind == Kind::list; }
    // Of a list of names and values; null if the name is not there.
    [[nodiscard]] const Reply* value_of(std::string_view name) const;
};

// Takes replies out of the bytes that come. For one thread at a time. Allocates for what has come,
// not for what was announced.
class ReplyReader {
  public:
    enum class Found : std::uint8_t { reply, incomplete, garbage };

    void feed(std::string_view bytes) { input_ += bytes; }
    // The next reply that is there as a whole. After `garbage` nothing can follow.
    [[nodiscard]] Found next(Reply& reply);

  private:
    struct Open {
        Reply list;
        std::uint64_t missing = 0;
    };

    Found take_one(Reply& reply);
    [[nodiscard]] bool open_list(std::uint64_t count);

    std::string input_;
    std::size_t at_ = 0;      // what comes before has been understood
    std::vector<Open> open_;  // lists that are not whole yet, the outermost first
};

}  // namespace dedup::wire
