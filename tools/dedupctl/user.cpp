// dedupctl user: a line for the file of users of a server.

#include <fmt/format.h>

#include <memory>
#include <string>

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/server.hpp"
#include "secret_file.hpp"

namespace dedupctl {
namespace {

struct UserArguments {
    std::string name;
    std::string rights = "read,claim,complete";
    std::string namespaces = "*";
    std::string secret_file;
};

int run_user(const UserArguments& arguments, Context& context) {
    const bool made_up = arguments.secret_file.empty();
    const std::string secret =
        made_up ? dedup::random_secret() : read_secret(arguments.secret_file, "--secret-file");
    const auto line = dedup::user_line({.name = arguments.name,
                                        .secret = secret,
                                        .rights = arguments.rights,
                                        .namespaces = arguments.namespaces});
    if (!line) {
        throw usage_failure(line.error().message);
    }
    if (context.json) {
        Json object;
        object["line"] = *line;
        if (made_up) {
            object["secret"] = secret;
        }
        context.out.json(object);
        return kExitOk;
    }
    context.out.line(*line);
    if (made_up) {
        note("the secret, which is kept nowhere: " + secret);
    }
    return kExitOk;
}

}  // namespace

Command user_command(Context& context) {
    const auto arguments = std::make_shared<UserArguments>();
    return {.name = "user",
            .help = "Make a line for the file of users of `serve`, and a secret",
            .options = {{.name = "NAME",
                         .to = &arguments->name,
                         .help = "Letters, digits, '.', '_' and '-'",
                         .required = true},
                        {.name = "--rights",
                         .to = &arguments->rights,
                         .help = "Some of read, claim, complete, sweep and admin, or 'all'",
                         .type = "LIST",
                         .shows_default = true},
                        {.name = "--namespaces",
                         .to = &arguments->namespaces,
                         .help = "Names, and what they begin with and '*'",
                         .type = "LIST",
                         .shows_default = true},
                        {.name = "--secret-file",
                         .to = &arguments->secret_file,
                         .help = "The secret is the first line of this file; else one is made up "
                                 "and said on standard error",
                         .type = "FILE",
                         .filled = true}},
            .run = [arguments, &context] { return run_user(*arguments, context); },
            .examples = "  dedupctl user billing --namespaces 'invoices,pay-*' >>users\n"};
}

}  // namespace dedupctl
