#include "common/line_key.hpp"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>

#include "common/failure.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

class WholeLine : public LineKey {
  public:
    std::optional<std::string_view> find(std::string_view line, std::string& /*storage*/) override {
        return line;
    }
};

class BlankField : public LineKey {
  public:
    explicit BlankField(std::size_t number) : number_(number) {}

    std::optional<std::string_view> find(std::string_view line, std::string& /*storage*/) override {
        constexpr std::string_view kBlanks = " \t";
        std::size_t end = 0;
        for (std::size_t field = 1;; ++field) {
            const std::size_t start = line.find_first_not_of(kBlanks, end);
            if (start == std::string_view::npos) {
                return std::nullopt;
            }
            end = std::min(line.find_first_of(kBlanks, start), line.size());
            if (field == number_) {
                return line.substr(start, end - start);
            }
        }
    }

  private:
    std::size_t number_;
};

class DelimitedField : public LineKey {
  public:
    DelimitedField(std::size_t number, std::string delimiter)
        : number_(number), delimiter_(std::move(delimiter)) {}

    std::optional<std::string_view> find(std::string_view line, std::string& /*storage*/) override {
        for (std::size_t field = 1;; ++field) {
            const std::size_t end = line.find(delimiter_);
            if (field == number_) {
                return line.substr(0, end);
            }
            if (end == std::string_view::npos) {
                return std::nullopt;
            }
            line.remove_prefix(end + delimiter_.size());
        }
    }

  private:
    std::size_t number_;
    std::string delimiter_;
};

// Lines that are UTF-8 are matched by characters. Bytes that are not would end a match in the
// middle of a line, and make one key of two lines: such a line is matched by bytes.
class RegexMatch : public LineKey {
  public:
    explicit RegexMatch(const std::string& pattern)
        : characters_(pattern, options(false)), bytes_(pattern, options(true)) {}

    // Null if the pattern is right. One that is not UTF-8 itself can only mean bytes.
    [[nodiscard]] const std::string* error() const {
        return bytes_.ok() ? nullptr : characters_.ok() ? &bytes_.error() : &characters_.error();
    }

    std::optional<std::string_view> find(std::string_view line, std::string& /*storage*/) override {
        const RE2& regex = characters_.ok() && is_utf8(line) ? characters_ : bytes_;
        const int group = regex.NumberOfCapturingGroups() > 0 ? 1 : 0;
        std::array<re2::StringPiece, 2> groups;
        if (!regex.Match(re2::StringPiece(line.data(), line.size()), 0, line.size(),
                         RE2::UNANCHORED, groups.data(), group + 1)) {
            return std::nullopt;
        }
        const re2::StringPiece& key = groups[static_cast<std::size_t>(group)];
        if (key.data() == nullptr) {  // the group took no part in the match
            return std::nullopt;
        }
        return std::string_view(key.data(), key.size());
    }

  private:
    static RE2::Options options(bool bytes) {
        RE2::Options options;
        options.set_log_errors(false);
        // "." is any byte then: RE2 knows bytes as the letters of Latin-1.
        options.set_encoding(bytes ? RE2::Options::EncodingLatin1 : RE2::Options::EncodingUTF8);
        return options;
    }

    RE2 characters_;
    RE2 bytes_;
};

class Folded : public LineKey {
  public:
    Folded(std::unique_ptr<LineKey> key, bool trim, bool ignore_case)
        : key_(std::move(key)), trim_(trim), ignore_case_(ignore_case) {}

    std::optional<std::string_view> find(std::string_view line, std::string& storage) override {
        auto found = key_->find(line, storage);
        if (!found) {
            return found;
        }
        if (trim_) {
            constexpr std::string_view kBlanks = " \t\r\n\v\f";
            const std::size_t start = found->find_first_not_of(kBlanks);
            if (start == std::string_view::npos) {
                return std::nullopt;
            }
            *found = found->substr(start, found->find_last_not_of(kBlanks) + 1 - start);
        }
        if (ignore_case_) {
            std::string lower(*found);
            std::ranges::transform(lower, lower.begin(), [](char c) {
                return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
            });
            storage = std::move(lower);
            return storage;
        }
        return found;
    }

  private:
    std::unique_ptr<LineKey> key_;
    bool trim_;
    bool ignore_case_;
};

}  // namespace

std::unique_ptr<LineKey> whole_line_key() {
    return std::make_unique<WholeLine>();
}

std::unique_ptr<LineKey> field_key(std::size_t number, std::string delimiter) {
    if (delimiter.empty()) {
        return std::make_unique<BlankField>(number);
    }
    return std::make_unique<DelimitedField>(number, std::move(delimiter));
}

std::unique_ptr<LineKey> regex_key(const std::string& pattern) {
    auto key = std::make_unique<RegexMatch>(pattern);
    if (const std::string* error = key->error()) {
        throw usage_failure(fmt::format("--regex: '{}': {}", escape(pattern), escape(*error)));
    }
    return key;
}

std::unique_ptr<LineKey> folded_key(std::unique_ptr<LineKey> key, bool trim, bool ignore_case) {
    return std::make_unique<Folded>(std::move(key), trim, ignore_case);
}

}  // namespace dedupctl
