// The command line, parsed. The only file that includes the parser, CLI11, is command_line.cpp: it
// takes longer to compile than most commands.
#pragma once

#include <string>

#include "command.hpp"
#include "config_file.hpp"

namespace dedupctl {

// Puts the options where they go: first what the environment says, then what the arguments say.
// Gives the command to run, or none if `text` has what was asked for instead, a help or the
// version, and in `settings` what came from where. Throws a usage Failure; the program's flags are
// set then too, as far as they came before what is wrong.
[[nodiscard]] const Command* parse(const Program& program, int argc, const char* const* argv,
                                   std::string& text, Settings& settings);

}  // namespace dedupctl
