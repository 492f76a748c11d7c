// One function a command, each in the file of its name, which says what the command takes and does.
#pragma once

#include "command.hpp"
#include "context.hpp"

namespace dedupctl {

[[nodiscard]] Command init_command(Context& context);
[[nodiscard]] Command claim_command(Context& context);
[[nodiscard]] Command complete_command(Context& context);
[[nodiscard]] Command release_command(Context& context);
[[nodiscard]] Command renew_command(Context& context);
[[nodiscard]] Command note_command(Context& context);
[[nodiscard]] Command hold_command(Context& context);
[[nodiscard]] Command held_command(Context& context);
[[nodiscard]] Command resolve_command(Context& context);
[[nodiscard]] Command forget_command(Context& context);
[[nodiscard]] Command lookup_command(Context& context);
[[nodiscard]] Command done_command(Context& context);
[[nodiscard]] Command remember_command(Context& context);
[[nodiscard]] Command inspect_command(Context& context);
[[nodiscard]] Command ls_command(Context& context);
[[nodiscard]] Command namespaces_command(Context& context);
[[nodiscard]] Command who_command(Context& context);
[[nodiscard]] Command sweep_command(Context& context);
[[nodiscard]] Command stats_command(Context& context);
[[nodiscard]] Command report_command(Context& context);
[[nodiscard]] Command clock_command(Context& context);
[[nodiscard]] Command watch_command(Context& context);
[[nodiscard]] Command export_command(Context& context);
[[nodiscard]] Command import_command(Context& context);
[[nodiscard]] Command migrate_command(Context& context);
[[nodiscard]] Command verify_command(Context& context);
[[nodiscard]] Command repair_command(Context& context);
[[nodiscard]] Command backup_command(Context& context);
[[nodiscard]] Command restore_command(Context& context);
[[nodiscard]] Command dump_command(Context& context);
[[nodiscard]] Command hash_command(Context& context);
[[nodiscard]] Command filter_command(Context& context);
[[nodiscard]] Command exec_command(Context& context);
[[nodiscard]] Command bench_command(Context& context);
// `program` outlives it, here and below.
[[nodiscard]] Command config_command(Context& context, const Program& program);
// For the build: completions and manual pages.
[[nodiscard]] Command generate_command(Context& context, const Program& program);
[[nodiscard]] Command serve_command(Context& context);
[[nodiscard]] Command user_command(Context& context);

// The KEY of the commands about one key.
[[nodiscard]] inline Option key_argument(std::string& key) {
    return {.name = "KEY", .to = &key, .help = "1 to 1,024 bytes, any bytes", .required = true};
}

}  // namespace dedupctl
