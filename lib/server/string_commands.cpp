// GET, SET and what else reads and writes Redis' strings.
#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "server/command_table.hpp"
#include "server/string_command.hpp"

namespace dedup::server {
namespace {

// GET, STRLEN, TYPE: what a key is, and nothing changes.
class GetCommand final : public StringCommand {
  public:
    using StringCommand::StringCommand;
    [[nodiscard]] bool appends() const override { return false; }

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        value_ = seen.exists() ? std::optional(seen.value()) : std::nullopt;
        return std::nullopt;
    }
    void write(ReplyWriter& writer) override { value_ ? writer.bulk(*value_) : writer.null(); }

  private:
    std::optional<std::string> value_;
};

class StrlenCommand final : public StringCommand {
  public:
    using StringCommand::StringCommand;
    [[nodiscard]] bool appends() const override { return false; }

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        bytes_ = seen.exists() ? seen.value().size() : 0;
        return std::nullopt;
    }
    void write(ReplyWriter& writer) override { writer.integer(static_cast<std::int64_t>(bytes_)); }

  private:
    std::size_t bytes_ = 0;
};

class TypeCommand final : public StringCommand {
  public:
    using StringCommand::StringCommand;
    [[nodiscard]] bool appends() const override { return false; }

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        type_ = seen.exists() ? "string" : "none";
        return std::nullopt;
    }
    std::optional<Append> decide_claim(const StringSeen& /*seen*/) override {
        type_ = "claim";
        return std::nullopt;
    }
    void write(ReplyWriter& writer) override { writer.simple(type_); }

  private:
    std::string_view type_;
};

struct SetOptions {
    std::string value = {};
    bool if_absent = false;                    // NX
    bool if_present = false;                   // XX
    std::optional<std::string> if_equal = {};  // IFEQ
    bool gives_old = false;                    // GET
    Expiry expiry = {};
    // What is replied where nothing else is asked for: OK or nil, or as SETNX does 1 or 0.
    bool as_number = false;
};

class SetCommand final : public StringCommand {
  public:
    SetCommand(const Request& request, std::string_view key, SetOptions options)
        : StringCommand(request, key), options_(std::move(options)) {}

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        old_ = seen.exists() && options_.gives_old ? std::optional(seen.value()) : std::nullopt;
        done_ = !(options_.if_absent && seen.exists()) &&
                !(options_.if_present && !seen.exists()) &&
                !(options_.if_equal && !seen.equals(*options_.if_equal));
        if (!done_) {
            return std::nullopt;
        }
        const std::int64_t kept_ms = seen.exists() ? seen.expires_at_ms() : 0;
        return seen.put(options_.value, options_.expiry.at_ms(seen.now_ms(), kept_ms));
    }
    // It exists, whatever it is.
    std::optional<Append> decide_claim(const StringSeen& seen) override {
        done_ = false;
        return options_.if_absent && !options_.gives_old ? std::nullopt
                                                         : StringCommand::decide_claim(seen);
    }
    void write(ReplyWriter& writer) override {
        if (options_.gives_old) {
            old_ ? writer.bulk(*old_) : writer.null();
        } else if (options_.as_number) {
            writer.integer(done_ ? 1 : 0);
        } else {
            done_ ? writer.ok() : writer.null();
        }
    }

  private:
    SetOptions options_;
    bool done_ = false;
    std::optional<std::string> old_;
};

// GETEX with an expiry, and GETDEL: the value, and then it changes how long the key stays.
class GetAndCommand final : public StringCommand {
  public:
    GetAndCommand(const Request& request, std::string_view key, std::optional<Expiry> expiry)
        : StringCommand(request, key), expiry_(expiry) {}

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        value_.reset();
        if (!seen.exists()) {
            return std::nullopt;
        }
        value_ = seen.value();
        if (!expiry_) {
            return seen.remove();
        }
        if (expiry_->kind == Expiry::Kind::never) {
            return seen.persist();
        }
        return seen.expire(expiry_->at_ms(seen.now_ms(), 0));
    }
    void write(ReplyWriter& writer) override { value_ ? writer.bulk(*value_) : writer.null(); }

  private:
    std::optional<Expiry> expiry_;  // none: delete
    std::optional<std::string> value_;
};

// DEL, UNLINK, EXISTS and MGET: a part for each key. DEL IFEQ: DELEX, DELIFEQ.
class KeysCommand final : public Command {
  public:
    enum class What : std::uint8_t { remove, count, get };

    KeysCommand(const Request& request, What what, std::optional<std::string> if_equal = {})
        : Command(Kind::parts, request.session.protocol),
          what_(what),
          if_equal_(std::move(if_equal)),
          ns_(request.session.database_namespace()) {
        const std::size_t end = if_equal_ ? 2 : request.size();
        for (std::size_t i = 1; i < end; ++i) {
            keys_.emplace_back(request.argument(i));
        }
        found_.resize(keys_.size());
    }
    [[nodiscard]] std::size_t parts() const override { return keys_.size(); }
    [[nodiscard]] StreamKey stream(std::size_t part) const override { return {ns_, keys_[part]}; }
    [[nodiscard]] bool appends() const override { return what_ == What::remove; }

    void begin(std::int64_t /*now_ms*/) override { names_claim_ = false; }
    // One of the keys is a claim: none is removed.
    bool refuses(std::size_t part, const Seen& seen) override {
        names_claim_ = what_ == What::remove && StringSeen(seen, stream(part)).is_claim();
        return names_claim_;
    }
    std::optional<Append> decide(std::size_t part, const Seen& head) override {
        const StringSeen seen(head, stream(part));
        Found& found = found_[part];
        found = {};
        if (what_ == What::get) {
            if (seen.exists()) {
                found.value = seen.value();
            }
            return std::nullopt;
        }
        if (what_ == What::count) {
            found.counts = seen.exists() || seen.is_claim();
            return std::nullopt;
        }
        if (seen.is_claim()) {  // it has become one since refuses() looked
            names_claim_ = true;
            return std::nullopt;
        }
        found.counts = if_equal_ ? seen.equals(*if_equal_) : seen.exists();
        return found.counts ? std::optional(seen.remove()) : std::nullopt;
    }

  protected:
    void reply(ReplyWriter& writer, std::string& /*out*/) override {
        if (names_claim_) {
            writer.error("ERR a key is a claim in flight; DEDUP.RELEASE gives it up");
            return;
        }
        if (what_ != What::get) {
            std::int64_t count = 0;
            for (const Found& found : found_) {
                count += found.counts ? 1 : 0;
            }
            writer.integer(count);
            return;
        }
        writer.array(found_.size());
        for (const Found& found : found_) {
            found.value ? writer.bulk(*found.value) : writer.null();
        }
    }

  private:
    struct Found {
        bool counts = false;
        std::optional<std::string> value = {};
    };
    const What what_;
    const std::optional<std::string> if_equal_;
    const std::string ns_;
    std::vector<std::string> keys_;
    std::vector<Found> found_;
    bool names_claim_ = false;
};

CommandPtr make_keys(const Request& request, KeysCommand::What what) {
    for (std::size_t i = 1; i < request.size(); ++i) {
        if (const auto problem = key_problem(request.argument(i))) {
            return request.error(*problem);
        }
    }
    return std::make_unique<KeysCommand>(request, what);
}

CommandPtr make_del(const Request& request) {
    return make_keys(request, KeysCommand::What::remove);
}

CommandPtr make_exists(const Request& request) {
    return make_keys(request, KeysCommand::What::count);
}

CommandPtr make_mget(const Request& request) {
    return make_keys(request, KeysCommand::What::get);
}

CommandPtr del_if_equal(const Request& request, std::string_view value) {
    if (const auto problem = key_problem(request.argument(1))) {
        return request.error(*problem);
    }
    return std::make_unique<KeysCommand>(request, KeysCommand::What::remove, std::string(value));
}

CommandPtr make_delifeq(const Request& request) {
    return del_if_equal(request, request.argument(2));
}

CommandPtr make_delex(const Request& request) {
    if (request.size() == 2) {
        return make_del(request);
    }
    if (request.size() != 4 || !is_word(request.argument(2), "IFEQ")) {
        return request.error(kSyntaxError);
    }
    return del_if_equal(request, request.argument(3));
}

CommandPtr make_get(const Request& request) {
    return make_string_command<GetCommand>(request);
}

CommandPtr make_strlen(const Request& request) {
    return make_string_command<StrlenCommand>(request);
}

CommandPtr make_type(const Request& request) {
    return make_string_command<TypeCommand>(request);
}

std::optional<std::string> value_problem(std::string_view value) {
    return value.size() <= kReceiptBytesMax
               ? std::nullopt
               : std::optional(fmt::format("ERR the value is {} bytes; at most {} are allowed",
                                           value.size(), kReceiptBytesMax));
}

CommandPtr make_set_with(const Request& request, SetOptions options) {
    if (const auto problem = value_problem(options.value)) {
        return request.error(*problem);
    }
    return make_string_command<SetCommand>(request, std::move(options));
}

CommandPtr make_set(const Request& request) {
    SetOptions options{.value = std::string(request.argument(2))};
    std::string_view unit;  // of the expiry, if there is one
    std::string_view number;
    int conditions = 0;
    for (std::size_t i = 3; i < request.size(); ++i) {
        const std::string_view word = request.argument(i);
        const bool has_value = i + 1 < request.size();
        if (is_word(word, "NX")) {
            conditions += options.if_absent ? 0 : 1;
            options.if_absent = true;
        } else if (is_word(word, "XX")) {
            conditions += options.if_present ? 0 : 1;
            options.if_present = true;
        } else if (is_word(word, "IFEQ") && has_value) {
            ++conditions;
            options.if_equal = request.argument(++i);
        } else if (is_word(word, "GET")) {
            options.gives_old = true;
        } else if (is_word(word, "KEEPTTL") && unit.empty()) {
            unit = word;
            options.expiry.kind = Expiry::Kind::keep;
        } else if (is_expiry_unit(word) && has_value && unit.empty()) {
            unit = word;
            number = request.argument(++i);
        } else {
            return request.error(kSyntaxError);
        }
    }
    if (conditions > 1) {
        return request.error(kSyntaxError);
    }
    if (is_expiry_unit(unit)) {
        const auto expiry = expiry_in(unit, number);
        if (!expiry) {
            return bad_expiry(request, number);
        }
        options.expiry = *expiry;
    }
    return make_set_with(request, std::move(options));
}

CommandPtr make_setnx(const Request& request) {
    return make_set_with(
        request, {.value = std::string(request.argument(2)), .if_absent = true, .as_number = true});
}

CommandPtr set_for(const Request& request, std::string_view unit) {
    const auto expiry = expiry_in(unit, request.argument(2));
    if (!expiry) {
        return bad_expiry(request, request.argument(2));
    }
    return make_set_with(request, {.value = std::string(request.argument(3)), .expiry = *expiry});
}

CommandPtr make_setex(const Request& request) {
    return set_for(request, "EX");
}

CommandPtr make_psetex(const Request& request) {
    return set_for(request, "PX");
}

CommandPtr make_getdel(const Request& request) {
    return make_string_command<GetAndCommand>(request, std::optional<Expiry>());
}

CommandPtr make_getex(const Request& request) {
    if (request.size() == 2) {
        return make_get(request);
    }
    if (request.size() == 3 && is_word(request.argument(2), "PERSIST")) {
        return make_string_command<GetAndCommand>(request, std::optional(Expiry{}));
    }
    if (request.size() != 4 || !is_expiry_unit(request.argument(2))) {
        return request.error(kSyntaxError);
    }
    const auto expiry = expiry_in(request.argument(2), request.argument(3));
    return expiry ? make_string_command<GetAndCommand>(request, expiry)
                  : bad_expiry(request, request.argument(3));
}

}  // namespace

std::span<const CommandEntry> string_commands() {
    static constexpr std::array<CommandEntry, 15> kCommands = {{
        {"DEL", -2, 1, -1, 1, true, kRewrites, make_del},
        {"DELEX", -2, 1, 1, 1, true, kRewrites, make_delex},
        {"DELIFEQ", 3, 1, 1, 1, true, kRewrites, make_delifeq},
        {"EXISTS", -2, 1, -1, 1, false, kReads, make_exists},
        {"GET", 2, 1, 1, 1, false, kReads, make_get},
        {"GETDEL", 2, 1, 1, 1, true, kRewrites, make_getdel},
        {"GETEX", -2, 1, 1, 1, true, kRewrites, make_getex},
        {"MGET", -2, 1, -1, 1, false, kReads, make_mget},
        {"PSETEX", 4, 1, 1, 1, true, kRewrites, make_psetex},
        {"SET", -3, 1, 1, 1, true, kRewrites, make_set},
        {"SETEX", 4, 1, 1, 1, true, kRewrites, make_setex},
        {"SETNX", 3, 1, 1, 1, true, kRewrites, make_setnx},
        {"STRLEN", 2, 1, 1, 1, false, kReads, make_strlen},
        {"TYPE", 2, 1, 1, 1, false, kReads, make_type},
        {"UNLINK", -2, 1, -1, 1, true, kRewrites, make_del},
    }};
    return kCommands;
}

}  // namespace dedup::server
