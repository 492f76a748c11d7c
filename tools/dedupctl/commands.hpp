// One function a command; each is in the file of its name and adds its options to `app`. The
// command itself runs when the arguments are parsed, and leaves its exit code in `context`.
#pragma once

#include <CLI/CLI.hpp>

#include "context.hpp"

namespace dedupctl {

void add_init(CLI::App& app, Context& context);
void add_claim(CLI::App& app, Context& context);
void add_complete(CLI::App& app, Context& context);
void add_release(CLI::App& app, Context& context);
void add_renew(CLI::App& app, Context& context);
void add_lookup(CLI::App& app, Context& context);
void add_remember(CLI::App& app, Context& context);
void add_inspect(CLI::App& app, Context& context);
void add_ls(CLI::App& app, Context& context);
void add_clock(CLI::App& app, Context& context);
void add_sweep(CLI::App& app, Context& context);
void add_stats(CLI::App& app, Context& context);
void add_export(CLI::App& app, Context& context);
void add_import(CLI::App& app, Context& context);
void add_watch(CLI::App& app, Context& context);
void add_verify(CLI::App& app, Context& context);
void add_repair(CLI::App& app, Context& context);
void add_hash(CLI::App& app, Context& context);
void add_filter(CLI::App& app, Context& context);
void add_exec(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);

// For options whose empty value means nothing: `--ttl "$TTL"` with an unset TTL is a mistake.
[[nodiscard]] CLI::Validator not_empty();

}  // namespace dedupctl
