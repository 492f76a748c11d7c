// dedupctl who: who has the store open for writing.

#include <memory>
#include <optional>

#include "commands.hpp"
#include "common/text.hpp"

namespace dedupctl {
namespace {

int run_who(Context& context) {
    context.check_globals();
    context.need_directory("who", "see pg_stat_activity");
    const std::optional<dedup::Writer> writer = take(dedup::writer_of(context.store_path));
    const auto served = writer ? context.try_server() : std::nullopt;
    const std::string socket = served && *served ? context.socket_beside() : "";
    if (context.json) {
        Json object;
        object["store"] = context.store_path;
        object["writer"] = nullptr;
        if (writer) {
            object["writer"] = {{"pid", writer->pid},
                                {"host", writer->host},
                                {"since_ms", time_or_null(writer->since_ms)},
                                {"text", writer->text},
                                {"socket", socket.empty() ? Json(nullptr) : Json(socket)}};
        }
        context.out.json(object);
    } else {
        context.out.line(writer ? message_text(with_times_told(writer->text)) : "nobody");
        if (!socket.empty()) {
            context.out.line("it serves the store at " + escape(socket));
        }
    }
    return kExitOk;
}

}  // namespace

Command who_command(Context& context) {
    return {.name = "who",
            .help = "Say which process has the store open for writing, and since when",
            .run = [&context] { return run_who(context); }};
}

}  // namespace dedupctl
