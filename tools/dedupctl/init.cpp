// dedupctl init: makes the store, or brings its schema in a database up to date.

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/postgres_store.hpp"

namespace dedupctl {
namespace {

std::string_view init_database(const Context& context) {
    switch (take(dedup::init_postgres(context.store_path))) {
        case dedup::PostgresInit::created:
            return "created";
        case dedup::PostgresInit::upgraded:
            return "upgraded";
        case dedup::PostgresInit::was_there:
            break;
    }
    return "was_there";
}

std::string_view init_directory(const Context& context) {
    if (context.behind_server()) {
        take(context.open_reader()->stats());  // there, or an error
        return "was_there";
    }
    if (context.try_open_writer(context.lock_timeout)) {
        return "was_there";
    }
    bool created = false;
    take(context.open_or_create(created)->close());
    return created ? "created" : "was_there";
}

int run_init(Context& context) {
    context.check_globals();
    const std::string_view outcome =
        context.in_database() ? init_database(context) : init_directory(context);
    if (context.json) {
        context.out.json({{"outcome", outcome}, {"store", context.shown_store()}});
    } else {
        context.out.line(std::string(outcome == "was_there" ? "was there" : outcome) + ": " +
                         escape(context.shown_store()));
    }
    return kExitOk;
}

}  // namespace

Command init_command(Context& context) {
    return {.name = "init",
            .help = "Make the store; in a database also bring its schema up to date",
            .run = [&context] { return run_init(context); }};
}

}  // namespace dedupctl
