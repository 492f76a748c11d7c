// KEY, or "-" for many keys from standard input, for the commands about keys.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "command.hpp"
#include "context.hpp"

namespace dedupctl {

struct KeyArgument {
    std::string key;
    bool null_ended = false;
    bool given = false;

    // Both stand in the list of the command's options.
    [[nodiscard]] Option as_argument();
    [[nodiscard]] Option as_null();

    [[nodiscard]] bool many() const { return null_ended || key == "-"; }
    // Throws a usage Failure for a missing key, or one that cannot be.
    void check(const Context& context) const;
};

// What became of one of many keys. `word` is its outcome, "-" stands for a sequence of 0.
struct KeyAnswer {
    std::string word;
    std::uint64_t sequence = 0;
    Json json = {};
    int exit_code = kExitOk;   // of the command, if no key has a higher one
    std::string message = {};  // of an error, or of why nothing was done
    std::string key = {};      // empty: the line itself
};

// An error about one key among many, which does not keep the others from theirs.
[[nodiscard]] KeyAnswer error_answer(const Context& context, std::string_view key,
                                     const dedup::Error& error);

// Reads keys from standard input, hands them to `work` in batches of what can be had at once, and
// prints its answers, one a line, in order. Gives the exit code. `writes`: the store is opened for
// writing, for one batch after the other; `work` costs it one flush.
using KeyWork = std::function<std::vector<KeyAnswer>(dedup::StreamStore& store,
                                                     std::span<const std::string_view> keys)>;

// What became of the last keys of a batch, whose answers could not be written: adds it to the
// failure's message.
using Unwritten =
    std::function<void(dedup::StreamStore& store, std::span<const std::string_view> keys,
                       std::span<const KeyAnswer> answers, Failure& failure)>;

[[nodiscard]] int for_many_keys(Context& context, const KeyArgument& keys, bool writes,
                                const KeyWork& work, const Unwritten& unwritten = nullptr);

// Says how many of them had `word` as their outcome, which holds all the same.
[[nodiscard]] Unwritten say_outcomes(std::string_view word);

}  // namespace dedupctl
