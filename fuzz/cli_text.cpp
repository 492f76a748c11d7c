// Attacks what dedupctl reads from people: durations, sizes, numbers, JSON pointers and the lines
// they are applied to, patterns; and what it writes for them. Anything is either refused with a
// usage failure, or means what it says.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "common/failure.hpp"
#include "common/line_key.hpp"
#include "common/text.hpp"
#include "common/time_text.hpp"
#include "input.hpp"

namespace dedup::fuzz {
namespace {

using nlohmann::json;

template <class Parse>
auto parsed(Parse parse) -> std::optional<decltype(parse())> {
    try {
        return parse();
    } catch (const dedupctl::Failure& failure) {
        require(failure.exit_code == dedupctl::kExitUsage && !failure.message.empty());
        require(dedupctl::is_utf8(failure.message), "a message that is no text");
        return std::nullopt;
    }
}

void durations(std::string_view text) {
    const auto duration = parsed([&] { return dedupctl::parse_duration(text, "--ttl"); });
    if (duration) {
        require(duration->count() >= 1);
        // Written without rounding, it is read as the same.
        const std::string exact = std::to_string(duration->count()) + "ms";
        require(dedupctl::parse_duration(exact, "--ttl") == *duration);
        require(!dedupctl::format_duration(*duration).empty());
    }
    (void)parsed([&] { return dedupctl::parse_ttl(text); });
}

void numbers(std::string_view text) {
    if (const auto size = parsed([&] { return dedupctl::parse_size(text, "--max", 1 << 30); })) {
        require(*size >= 1 && *size <= 1 << 30);
    }
    if (const auto number = parsed([&] { return dedupctl::parse_number(text, "-n", 3, 999); })) {
        require(*number >= 3 && *number <= 999);
    }
}

void times(Input& input) {
    const auto time_ms = static_cast<std::int64_t>(input.number());
    const auto now_ms = static_cast<std::int64_t>(input.number());
    require(!dedupctl::format_time_and_age(time_ms, now_ms).empty());
    require(!dedupctl::format_duration(dedupctl::milliseconds(time_ms)).empty());
    require(!dedupctl::human_bytes(input.number()).empty());
}

// Whatever bytes a key has, a terminal gets text without control characters.
void escapes(std::string_view text) {
    const std::string escaped = dedupctl::escape(text);
    require(dedupctl::is_utf8(escaped));
    for (const char byte : escaped) {
        require(static_cast<unsigned char>(byte) >= 0x20 && byte != 0x7f);
    }
    require(dedupctl::message_text(escaped) == escaped, "nothing is escaped twice");
    const std::string cut = dedupctl::preview(text, 10);
    const std::string shown = dedupctl::json_text(
        json(std::string(text)).dump(-1, ' ', false, json::error_handler_t::replace));
    require(dedupctl::message_text(shown) == shown, "JSON has what cannot be seen");
    require(!dedupctl::is_utf8(text) || json::parse(shown) == json(std::string(text)));
    require(dedupctl::is_utf8(cut) && dedupctl::columns(cut) <= 10);
    require(dedupctl::base64(text).size() == (text.size() + 2) / 3 * 4);
}

// Of a key that is short and no number, what a tree of the same text has at the pointer.
void json_keys(const std::string& pointer, std::string_view line) {
    const auto key = parsed([&] { return dedupctl::json_key(pointer); });
    if (!key) {
        return;
    }
    std::string storage;
    const auto found = (*key)->find(line, storage);
    const json tree = json::parse(line, nullptr, false);
    if (tree.is_discarded()) {
        require(!found, "a key in what is not JSON");
        return;
    }
    require(!found || found->size() <= 1025);
    const json::json_pointer path(pointer);
    if (!tree.contains(path)) {
        require(!found, "a key where there is nothing");
        return;
    }
    const json& value = tree.at(path);
    require(found.has_value() == !value.is_null(), "a value is no key, or null is one");
    if (found && value.is_string()) {
        require(*found == std::string_view(value.get_ref<const std::string&>()).substr(0, 1025));
    } else if (found && value.is_structured() && found->size() < 1025) {
        require(json::parse(*found, nullptr, false) == value);
    }
}

void line_keys(Input& input) {
    std::string storage;
    const std::size_t number = 1 + input.below(4);
    const std::string delimiter(input.bytes(input.below(3)));
    const std::string pattern(input.text());
    const std::string_view line = input.rest();
    const auto inside = [&](const std::optional<std::string_view>& key) {
        require(!key || (key->data() >= line.data() &&
                         key->data() + key->size() <= line.data() + line.size()));
    };
    inside(dedupctl::field_key(number, delimiter)->find(line, storage));
    if (const auto key = parsed([&] { return dedupctl::regex_key(pattern); })) {
        inside((*key)->find(line, storage));
    }
}

}  // namespace
}  // namespace dedup::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace dedup::fuzz;
    Input input(data, size);
    switch (input.below(8)) {
        case 0:
            durations(input.rest());
            break;
        case 1:
            numbers(input.rest());
            break;
        case 2:
            times(input);
            break;
        case 3:
            escapes(input.rest());
            break;
        case 4:
            line_keys(input);
            break;
        default: {
            const std::string pointer(input.text());
            json_keys(pointer, input.rest());
            break;
        }
    }
    return 0;
}
