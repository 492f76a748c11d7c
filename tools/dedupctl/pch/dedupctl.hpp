// Precompiled: the headers that take most of dedupctl's compile time.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
