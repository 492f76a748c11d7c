// The value at a JSON pointer, found while the text is parsed: no tree is built, no depth of
// nesting overflows the stack, and a number keeps the digits that it was written with. A tree
// would hold a long number as a double, and two such ids could become one key.

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "dedup/record.hpp"
#include "failure.hpp"
#include "line_key.hpp"
#include "text.hpp"

namespace dedupctl {
namespace {

using nlohmann::json;

// Text beyond the longest key is not kept; one byte more shows that the key is too long.
constexpr std::size_t kCaptureBytesMax = dedup::kKeyBytesMax + 1;

class PointerFinder : public nlohmann::json_sax<json> {
  public:
    explicit PointerFinder(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}

    void start(std::string& key) {
        key_ = &key;
        key_->clear();
        found_ = false;
        capturing_from_ = kNotCapturing;
        levels_.clear();
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
        if (key_->size() < kCaptureBytesMax) {
            key_->append(text.substr(0, kCaptureBytesMax - key_->size()));
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
            key_->clear();
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
            key_->clear();
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

    std::vector<std::string> tokens_;
    std::string* key_ = nullptr;
    bool found_ = false;
    std::size_t capturing_from_ = kNotCapturing;  // the depth at which the wanted value started
    std::vector<Level> levels_;
};

class JsonValue : public LineKey {
  public:
    explicit JsonValue(std::vector<std::string> tokens) : finder_(std::move(tokens)) {}

    std::optional<std::string_view> find(std::string_view line, std::string& storage) override {
        finder_.start(storage);
        if (!json::sax_parse(line.begin(), line.end(), &finder_) || !finder_.found()) {
            return std::nullopt;
        }
        return storage;
    }

  private:
    PointerFinder finder_;
};

}  // namespace

std::unique_ptr<LineKey> json_key(const std::string& pointer) {
    try {
        std::vector<std::string> tokens;
        for (json::json_pointer rest(pointer); !rest.empty(); rest.pop_back()) {
            tokens.push_back(rest.back());
        }
        std::reverse(tokens.begin(), tokens.end());
        return std::make_unique<JsonValue>(std::move(tokens));
    } catch (const json::exception&) {
        throw usage_failure(
            fmt::format("--json: '{}' is not a JSON pointer; write one such as "
                        "/id or /user/name",
                        escape(pointer)));
    }
}

}  // namespace dedupctl
