// The value is found while the text is parsed: no tree is built, no depth of nesting overflows the
// stack, and a number keeps the digits that it was written with. A tree would hold a long number as
// a double, and two such ids could become one.
#include "dedup/json_pointer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "dedup/record.hpp"
#include "record/check.hpp"

namespace dedup {
namespace {

using nlohmann::json;

// Text beyond the longest key is not kept; one byte more shows that the key is too long.
constexpr std::size_t kCaptureBytesMax = kKeyBytesMax + 1;

class PointerFinder : public nlohmann::json_sax<json> {
  public:
    // Both must outlive the finder. `value` is overwritten.
    PointerFinder(const std::vector<std::string>& tokens, std::string& value)
        : tokens_(tokens), value_(value) {
        value_.clear();
    }

    [[nodiscard]] bool found() const { return found_; }

    bool null() override {
        const bool wanted = is_target();
        scalar("null", "null");
        found_ = found_ && !wanted;
        return true;
    }
    bool boolean(bool value) override {
        const std::string_view text = value ? "true" : "false";
        return scalar(text, text);
    }
    bool number_integer(number_integer_t value) override {
        const std::string text = std::to_string(value);
        return scalar(text, text);
    }
    bool number_unsigned(number_unsigned_t value) override {
        const std::string text = std::to_string(value);
        return scalar(text, text);
    }
    bool number_float(number_float_t /*value*/, const string_t& text) override {
        return scalar(text, text);
    }
    bool string(string_t& value) override {
        return capturing() ? scalar(value, json(value).dump()) : scalar(value, value);
    }
    bool binary(binary_t& /*value*/) override { return false; }  // not in JSON texts

    bool start_object(std::size_t /*elements*/) override { return open('{', false); }
    bool start_array(std::size_t /*elements*/) override { return open('[', true); }
    bool end_object() override { return close('}'); }
    bool end_array() override { return close(']'); }

    bool key(string_t& name) override {
        Level& level = levels_.back();
        if (capturing()) {
            append(level.members == 0 ? "" : ",");
            append(json(name).dump());
            append(":");
        }
        level.member_matches =
            levels_.size() <= tokens_.size() && tokens_[levels_.size() - 1] == name;
        return true;
    }

    bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                     const nlohmann::detail::exception& /*error*/) override {
        return false;
    }

  private:
    static constexpr std::size_t kNotCapturing = SIZE_MAX;

    struct Level {
        bool is_array;
        bool on_path;                 // the pointer leads through here, or to here
        bool member_matches = false;  // in an object: the name just read is the pointer's next
        std::size_t members = 0;
    };

    [[nodiscard]] bool capturing() const { return capturing_from_ != kNotCapturing; }

    // Whether the pointer leads to, or through, the value that starts now.
    [[nodiscard]] bool on_path() const {
        if (levels_.empty()) {
            return true;
        }
        const Level& level = levels_.back();
        if (!level.on_path || levels_.size() > tokens_.size()) {
            return false;
        }
        return level.is_array ? tokens_[levels_.size() - 1] == std::to_string(level.members)
                              : level.member_matches;
    }

    [[nodiscard]] bool is_target() const { return levels_.size() == tokens_.size() && on_path(); }

    void append(std::string_view text) {
        if (value_.size() < kCaptureBytesMax) {
            value_.append(text.substr(0, kCaptureBytesMax - value_.size()));
        }
    }

    void separate() {
        if (capturing() && levels_.back().is_array && levels_.back().members != 0) {
            append(",");
        }
    }

    void count_member() {
        if (!levels_.empty()) {
            ++levels_.back().members;
        }
    }

    bool scalar(std::string_view plain, std::string_view within) {
        if (capturing()) {
            separate();
            append(within);
        } else if (is_target()) {
            found_ = true;  // of members with one name, the last counts
            value_.clear();
            append(plain);
        }
        count_member();
        return true;
    }

    bool open(char bracket, bool is_array) {
        if (capturing()) {
            separate();
        } else if (is_target()) {
            found_ = true;
            value_.clear();
            capturing_from_ = levels_.size();
        }
        if (capturing()) {
            append({&bracket, 1});
        }
        levels_.push_back({.is_array = is_array, .on_path = on_path()});
        return true;
    }

    bool close(char bracket) {
        levels_.pop_back();
        if (capturing()) {
            append({&bracket, 1});
        }
        if (capturing_from_ == levels_.size()) {
            capturing_from_ = kNotCapturing;
        }
        count_member();
        return true;
    }

    const std::vector<std::string>& tokens_;
    std::string& value_;
    bool found_ = false;
    std::size_t capturing_from_ = kNotCapturing;  // the depth at which the wanted value started
    std::vector<Level> levels_;
};

}  // namespace

Result<JsonPointer> JsonPointer::parse(std::string_view pointer) {
    try {
        JsonPointer parsed;
        for (json::json_pointer rest{std::string(pointer)}; !rest.empty(); rest.pop_back()) {
            parsed.tokens_.push_back(rest.back());
        }
        std::reverse(parsed.tokens_.begin(), parsed.tokens_.end());
        return parsed;
    } catch (const json::exception&) {
        return std::unexpected(Error{
            .code = Code::invalid_argument,
            .message = fmt::format("{} is not a JSON pointer; write one such as /id or /user/name",
                                   quoted_bytes(pointer))});
    }
}

bool JsonPointer::find(std::string_view text, std::string& value) const {
    PointerFinder finder(tokens_, value);
    return json::sax_parse(text.begin(), text.end(), &finder) && finder.found();
}

}  // namespace dedup
