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

class RegexMatch : public LineKey {
  public:
    RegexMatch(const std::string& pattern, const RE2::Options& options)
        : regex_(pattern, options), group_(regex_.NumberOfCapturingGroups() > 0 ? 1 : 0) {}

    [[nodiscard]] const RE2& regex() const { return regex_; }

    std::optional<std::string_view> find(std::string_view line, std::string& /*storage*/) override {
        std::array<re2::StringPiece, 2> groups;
        if (!regex_.Match(re2::StringPiece(line.data(), line.size()), 0, line.size(),
                          RE2::UNANCHORED, groups.data(), group_ + 1)) {
            return std::nullopt;
        }
        const re2::StringPiece& key = groups[static_cast<std::size_t>(group_)];
        if (key.data() == nullptr) {  // the group took no part in the match
            return std::nullopt;
        }
        return std::string_view(key.data(), key.size());
    }

  private:
    RE2 regex_;
    int group_;
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
    RE2::Options options;
    options.set_log_errors(false);
    auto key = std::make_unique<RegexMatch>(pattern, options);
    if (!key->regex().ok()) {
        throw usage_failure(
            fmt::format("--regex: '{}': {}", escape(pattern), escape(key->regex().error())));
    }
    return key;
}

}  // namespace dedupctl
