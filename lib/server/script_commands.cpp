// Lua scripts. None is run: those that libraries for locks and idempotency send are known by their
// SHA-1, and what they do is done here. Any other is answered NOSCRIPT.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "server/command_table.hpp"
#include "server/sha1.hpp"
#include "server/string_command.hpp"

namespace dedup::server {
namespace {

// What a script does with KEYS[1], if its value is ARGV[1] unless said otherwise.
enum class Script : std::uint8_t {
    remove,            // 1; 0 if it is not
    remove_or_absent,  // 1; -1 if there is no such key, 0 if it has another value
    pexpire,           // for ARGV[2] ms: 1; 0 if it is not
    pexpire_or_set,    // likewise, and a key that is not there is set so: 1; 0 if it has another
                       // value
    extend,  // has an expiry, which becomes ARGV[2] ms, from now or, if ARGV[3] is "0", on
             // top of what is left: 1; else 0
    expire_or_persist,  // for ARGV[2] s, or for ever if that is not above 0: 1; 0 if it is not
    add,                // whatever its value: if it is not there, becomes ARGV[1] for ARGV[2] s: OK
};

struct KnownScript {
    std::string_view sha1;
    Script script;
    std::size_t arguments;
};

constexpr std::array<KnownScript, 12> kScripts = {{
    // redis-py: Lock.release, extend, reacquire
    {"c3f8721cbb97f72bc19e972846bd7aaf91901658", Script::remove, 1},
    {"a4e8783852e6b949f9ef3a97212805108459a890", Script::extend, 3},
    {"1cac51482acf5858da00f6d685d68f886cd6b6b2", Script::pexpire, 2},
    // redsync: Unlock, Extend, Extend with SetNXOnExtend; Unlock of older versions
    {"e950836ed1e694540c503ef9972b8de518044d3b", Script::remove_or_absent, 1},
    {"d75bb8b5bd13532ddedd17762e772346e39b321e", Script::pexpire, 2},
    {"b6b55c439e02c6f52ffb8be7ec8c0d0ac816ea79", Script::pexpire_or_set, 2},
    {"00583931c4e4d483f6233879c133c71ed5393f9d", Script::remove, 1},
    // Laravel: RedisLock::release, refresh; RedisStore::add
    {"647c65a442733a1aa440f99908d249d13b4d6c4a", Script::remove, 1},
    {"d5f94f1848f0c54fff99d99dbc4d54184a157c02", Script::expire_or_persist, 2},
    {"a08c9c69b7c07ae2485190873b90d128a23e502d", Script::add, 2},
    // Redis' documentation of SET: in one line, in several
    {"b70c2384248f88e6b75b9f89241a180f856ad852", Script::remove, 1},
    {"bd75051e9049411d4a96c0df196ac2667d38f481", Script::remove, 1},
}};

constexpr std::string_view kNoScript =
    "NOSCRIPT No matching script. This server knows those of some libraries, which docs/server.md "
    "lists, and runs no other.";

const KnownScript* find_script(std::string_view sha1) {
    const auto* const found = std::ranges::find_if(kScripts, [sha1](const KnownScript& known) {
        return std::ranges::equal(sha1, known.sha1, [](char given, char digit) {
            return (given >= 'A' && given <= 'F' ? given - 'A' + 'a' : given) == digit;
        });
    });
    return found == kScripts.end() ? nullptr : found;
}

class ScriptCommand final : public StringCommand {
  public:
    ScriptCommand(const Request& request, std::string_view key, Script script, std::string value,
                  std::int64_t ms, bool on_top)
        : StringCommand(request, key),
          script_(script),
          value_(std::move(value)),
          ms_(ms),
          on_top_(on_top) {}

  protected:
    std::optional<Append> decide_key(const StringSeen& seen) override {
        if (script_ == Script::add) {
            answer_ = seen.exists() ? 0 : 1;
            return seen.exists() ? std::nullopt
                                 : std::optional(seen.put(value_, later(seen.now_ms())));
        }
        if (!seen.equals(value_)) {
            return decide_other(seen);
        }
        answer_ = 1;
        switch (script_) {
            case Script::remove:
            case Script::remove_or_absent:
                return seen.remove();
            case Script::extend:
                if (seen.expires_at_ms() == 0) {
                    answer_ = 0;
                    return std::nullopt;
                }
                return seen.expire(later(on_top_ ? seen.expires_at_ms() : seen.now_ms()));
            case Script::expire_or_persist:
                if (ms_ <= 0) {
                    return seen.expires_at_ms() == 0 ? std::nullopt : std::optional(seen.persist());
                }
                [[fallthrough]];
            default:
                return seen.expire(later(seen.now_ms()));
        }
    }
    void write(ReplyWriter& writer) override {
        if (script_ == Script::add) {
            answer_ == 1 ? writer.ok() : writer.null();
        } else {
            writer.integer(answer_);
        }
    }

  private:
    std::optional<Append> decide_other(const StringSeen& seen) {
        answer_ = 0;
        if (!seen.exists() && script_ == Script::remove_or_absent) {
            answer_ = -1;
        }
        if (!seen.exists() && script_ == Script::pexpire_or_set) {
            answer_ = 1;
            return seen.put(value_, later(seen.now_ms()));
        }
        return std::nullopt;
    }
    [[nodiscard]] std::int64_t later(std::int64_t than_ms) const {
        return Expiry{Expiry::Kind::in, ms_}.at_ms(than_ms, 0);
    }

    const Script script_;
    const std::string value_;
    const std::int64_t ms_;
    const bool on_top_;
    std::int64_t answer_ = 0;
};

// Argument 1 named the script; then come the number of keys, the keys, and the script's arguments.
CommandPtr run_script(const Request& request, const KnownScript* known) {
    const auto keys = whole_number(request.argument(2));
    if (!keys || *keys < 0) {
        return request.error(keys ? "ERR Number of keys can't be negative" : kNotAnInteger);
    }
    if (std::cmp_greater(*keys, request.size() - 3)) {
        return request.error("ERR Number of keys can't be greater than number of args");
    }
    if (known == nullptr) {
        return request.error(kNoScript);
    }
    if (*keys != 1 || request.size() != 4 + known->arguments) {
        return request.error(
            fmt::format("ERR this script takes 1 key and {} arguments", known->arguments));
    }
    const std::string_view key = request.argument(3);
    if (const auto problem = key_problem(key)) {
        return request.error(*problem);
    }
    std::int64_t ms = 0;
    if (known->arguments > 1) {
        constexpr std::int64_t kMsPerSecond = 1000;
        constexpr std::int64_t kMost = INT64_MAX / kMsPerSecond;
        const auto number = whole_number(request.argument(5));
        if (!number || *number > kMost || *number < -kMost) {
            return request.error(kNotAnInteger);
        }
        const bool in_seconds =
            known->script == Script::expire_or_persist || known->script == Script::add;
        ms = in_seconds ? *number * kMsPerSecond : *number;
        if (ms <= 0 && (known->script == Script::add || known->script == Script::pexpire_or_set)) {
            return request.error("ERR invalid expire time in script");
        }
    }
    const bool on_top = known->arguments > 2 && request.argument(6) == "0";
    return std::make_unique<ScriptCommand>(request, key, known->script,
                                           std::string(request.argument(4)), ms, on_top);
}

CommandPtr make_eval(const Request& request) {
    return run_script(request, find_script(sha1_hex(request.argument(1))));
}

CommandPtr make_evalsha(const Request& request) {
    return run_script(request, find_script(request.argument(1)));
}

CommandPtr make_script(const Request& request) {
    const std::string_view what = request.argument(1);
    if (is_word(what, "LOAD") && request.size() == 3) {
        const std::string sha1 = sha1_hex(request.argument(2));
        return find_script(sha1) == nullptr
                   ? request.error(kNoScript)
                   : request.reply([&sha1](ReplyWriter& writer) { writer.bulk(sha1); });
    }
    if (is_word(what, "EXISTS") && request.size() > 2) {
        return request.reply([&request](ReplyWriter& writer) {
            writer.array(request.size() - 2);
            for (std::size_t i = 2; i < request.size(); ++i) {
                writer.integer(find_script(request.argument(i)) == nullptr ? 0 : 1);
            }
        });
    }
    if (is_word(what, "FLUSH")) {  // there is nothing that could go
        const bool known =
            request.size() == 2 || (request.size() == 3 && (is_word(request.argument(2), "SYNC") ||
                                                            is_word(request.argument(2), "ASYNC")));
        if (!known) {
            return request.error("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
        }
        return request.reply([](ReplyWriter& writer) { writer.ok(); });
    }
    return request.error("ERR unknown subcommand of SCRIPT, or wrong number of arguments");
}

}  // namespace

std::span<const CommandEntry> script_commands() {
    static constexpr std::array<CommandEntry, 3> kCommands = {{
        {"EVAL", -3, 0, 0, 0, true, kRewrites, make_eval},
        {"EVALSHA", -3, 0, 0, 0, true, kRewrites, make_evalsha},
        {"SCRIPT", -2, 0, 0, 0, false, kOfConnection, make_script},
    }};
    return kCommands;
}

}  // namespace dedup::server
