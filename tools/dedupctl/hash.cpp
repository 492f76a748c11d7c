// dedupctl hash: a key's FNV-1a and its stream's name. Needs no store.

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"

namespace dedupctl {
namespace {

int run_hash(const std::string& key, Context& context) {
    context.check_globals();
    context.check_key(key);
    const std::string hash = fmt::format("{:016x}", dedup::fnv1a_64(key));
    const std::string stream = dedup::stream_name(context.ns, key);
    if (context.json) {
        Json object;
        object["namespace"] = context.ns;
        add_bytes(object, "key", key);
        object["hash"] = hash;
        object["stream"] = stream;
        context.out.json(object);
    } else {
        context.out.line(fmt::format("{}  {}", hash, stream));
    }
    return kExitOk;
}

}  // namespace

Command hash_command(Context& context) {
    const auto key = std::make_shared<std::string>();
    return {.name = "hash",
            .help = "Print a key's FNV-1a 64 and its stream's name",
            .options = {key_argument(*key)},
            .run = [key, &context] { return run_hash(*key, context); }};
}

}  // namespace dedupctl
