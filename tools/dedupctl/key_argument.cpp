#include "key_argument.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "common/text.hpp"
#include "line_batch.hpp"
#include "line_reader.hpp"
#include "stop_signal.hpp"
#include "writer_turns.hpp"

namespace dedupctl {
namespace {

constexpr std::size_t kKeyColumns = 80;

std::string_view key_of(std::string_view line, const KeyAnswer& answer) {
    return answer.key.empty() ? line : std::string_view(answer.key);
}

class ManyKeys {
  public:
    ManyKeys(Context& context, char end_of_key, bool writes, const KeyWork& work,
             const Unwritten& unwritten)
        : context_(context),
          end_of_key_(end_of_key),
          work_(work),
          unwritten_(unwritten),
          reader_(STDIN_FILENO, end_of_key),
          turns_(context, [this] { return stop_.requested(); }) {
        if (!writes) {
            reading_ = context.open_reader();
        }
    }

    int run() {
        std::vector<std::string_view> lines;
        while (!stop_.requested()) {
            reader_.take_lines(kBatchLinesMax, lines);
            if (!lines.empty()) {
                answer(lines);
            } else if (reader_.ended()) {
                break;
            } else {
                read_more();
            }
        }
        turns_.close();
        return stop_.signal() ? kExitSignalBase + *stop_.signal() : exit_code_;
    }

  private:
    void read_more() {
        if (reader_.bytes_buffered() > kLineBytesMax) {
            throw Failure{.code = "invalid_argument",
                          .message = "a line of standard input is longer than " +
                                     human_bytes(kLineBytesMax) + ", and so no key"};
        }
        turns_.rest(STDIN_FILENO);
        if (stop_.requested_before(STDIN_FILENO)) {
            return;
        }
        if (const int error = reader_.fill_ready(kBufferedBytesEnough); error != 0) {
            throw system_failure("cannot read standard input", error);
        }
    }

    void answer(std::vector<std::string_view>& keys) {
        for (std::string_view& key : keys) {
            if (key.ends_with(end_of_key_)) {
                key.remove_suffix(1);
            }
        }
        dedup::StreamStore* const store = reading_ ? reading_.get() : turns_.store();
        if (store == nullptr) {
            return;  // told to stop
        }
        const std::vector<KeyAnswer> answers = work_(*store, keys);
        std::vector<std::uint64_t> ends;  // of the answers, in the output
        try {
            for (std::size_t i = 0; i < answers.size(); ++i) {
                print(key_of(keys[i], answers[i]), answers[i], ends);
            }
            context_.out.flush();
        } catch (Failure& failure) {
            // Whoever reads lines takes one for whole that lacks nothing but its end.
            const auto cut = std::ranges::upper_bound(ends, context_.out.bytes_written() + 1);
            const auto written = static_cast<std::size_t>(cut - ends.begin());
            if (unwritten_) {
                unwritten_(*store, std::span(keys).subspan(written),
                           std::span(answers).subspan(written), failure);
            }
            throw;
        }
    }

    void print(std::string_view key, const KeyAnswer& answer, std::vector<std::uint64_t>& ends) {
        exit_code_ = std::max(exit_code_, answer.exit_code);
        const std::string line = context_.json ? json_line(answer.json) : answer_line(key, answer);
        ends.push_back(context_.out.bytes_given() + line.size());
        context_.out.write(line);
        if (!answer.message.empty()) {
            note(fmt::format("key \"{}\": {}", preview(key, kKeyColumns), answer.message));
        }
    }

    static std::string answer_line(std::string_view key, const KeyAnswer& answer) {
        return fmt::format("{}\t{}\t{}\n", answer.word,
                           answer.sequence == 0 ? "-" : std::to_string(answer.sequence),
                           escape(key));
    }

    Context& context_;
    char end_of_key_;
    const KeyWork& work_;
    const Unwritten& unwritten_;
    StopSignal stop_;
    LineReader reader_;
    std::unique_ptr<dedup::StreamStore> reading_;
    WriterTurns turns_;
    int exit_code_ = kExitOk;
};

}  // namespace

Option KeyArgument::as_argument() {
    return {.name = "KEY",
            .to = &key,
            .help = "1 to 1,024 bytes, any bytes; '-': many, one a line of standard input",
            .given = &given};
}

Option KeyArgument::as_null() {
    return {.name = "-0,--null",
            .to = &null_ended,
            .help = "Many keys from standard input, each ended by a NUL"};
}

void KeyArgument::check(const Context& context) const {
    if (!given && !null_ended) {
        throw usage_failure("KEY is required\n  '-' reads keys from standard input");
    }
    if (null_ended && given && key != "-") {
        throw usage_failure("-0 reads keys from standard input, so there can be no KEY");
    }
    if (!many()) {
        context.check_key(key);
    }
}

KeyAnswer error_answer(const Context& context, std::string_view key, const dedup::Error& error) {
    const Failure failure = library_failure(error);
    Json json = context.outcome("error", key);
    json["error"] = {{"code", failure.code}, {"message", failure.message}};
    return {"error", 0, std::move(json), failure.exit_code, failure.message};
}

int for_many_keys(Context& context, const KeyArgument& keys, bool writes, const KeyWork& work,
                  const Unwritten& unwritten) {
    return ManyKeys(context, keys.null_ended ? '\0' : '\n', writes, work, unwritten).run();
}

Unwritten say_outcomes(std::string_view word) {
    return [word](dedup::StreamStore&, auto keys, auto answers, Failure& failure) {
        const auto first = std::ranges::find(answers, word, &KeyAnswer::word);
        if (first == answers.end()) {
            return;
        }
        const auto count =
            static_cast<std::uint64_t>(std::ranges::count(answers, word, &KeyAnswer::word));
        const auto place = static_cast<std::size_t>(first - answers.begin());
        say_done(failure,
                 fmt::format("but {} recorded as {}, from \"{}\" on; only the {} could "
                             "not be printed",
                             count == 1 ? "1 key is" : count_of(count, "key") + " are", word,
                             preview(key_of(keys[place], answers[place]), kKeyColumns),
                             count == 1 ? "answer" : "answers"));
    };
}

}  // namespace dedupctl
