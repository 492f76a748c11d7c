// Precompiled: the headers that most of dedupctl's files spend their compile time on. Not
// CLI/CLI.hpp: its variables' constructors would be compiled into every object file.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
