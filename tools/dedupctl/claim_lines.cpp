#include "claim_lines.hpp"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "common/text.hpp"

namespace dedupctl {
namespace {

constexpr std::string_view kTabs = "tabs";
constexpr std::string_view kJson = "json";

std::unexpected<dedup::Error> no_claim(std::string message) {
    return std::unexpected(
        dedup::Error{.code = dedup::Code::invalid_argument, .message = std::move(message)});
}

dedup::Result<dedup::Claim> from_tabs(const std::string& ns, std::string_view line) {
    const std::size_t tab = line.rfind('\t');  // a key may have some
    const std::string_view digits = tab == std::string_view::npos ? "" : line.substr(tab + 1);
    std::uint64_t fence = 0;
    const auto [end, problem] =
        std::from_chars(digits.data(), digits.data() + digits.size(), fence);
    if (problem != std::errc{} || end != digits.data() + digits.size() || fence == 0) {
        return no_claim("the line is not a key, a tab and a claim_sequence");
    }
    return dedup::Claim{.ns = ns, .key = std::string(line.substr(0, tab)), .claim_sequence = fence};
}

// The member, if the object has it: "" if it is no text.
std::optional<std::string> text_member(const nlohmann::json& object, const char* name) {
    const auto member = object.find(name);
    if (member == object.end()) {
        return std::nullopt;
    }
    return member->is_string() ? member->get<std::string>() : "";
}

std::optional<std::string> key_of_object(const nlohmann::json& object) {
    const auto encoded = text_member(object, "key_base64");
    return encoded ? from_base64(*encoded) : text_member(object, "key");
}

dedup::Result<dedup::Claim> from_json(const std::string& ns, std::string_view line) {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    if (!object.is_object()) {
        return no_claim("the line is not a JSON object");
    }
    auto key = key_of_object(object);
    const auto fence = object.find("claim_sequence");
    if (!key || fence == object.end() || !fence->is_number_unsigned() ||
        fence->get<std::uint64_t>() == 0) {
        return no_claim("the object has no key and claim_sequence");
    }
    if (const auto of = text_member(object, "namespace"); of && *of != ns) {
        return no_claim(fmt::format(
            "the claim is of namespace \"{}\"; -n names the namespace, one for all lines",
            escape(*of)));
    }
    // The answers of `claim -` are all there: those about keys that others hold, too.
    if (const auto outcome = text_member(object, "outcome"); outcome && *outcome != "claimed") {
        return no_claim(fmt::format("the outcome was \"{}\", so the claim is somebody else's",
                                    escape(*outcome)));
    }
    return dedup::Claim{
        .ns = ns, .key = *std::move(key), .claim_sequence = fence->get<std::uint64_t>()};
}

}  // namespace

Option claims_option(std::string& form) {
    return {.name = "--claims",
            .to = &form,
            .help =
                "With '-': each line names its claim, as KEY, a tab and the claim_sequence, or "
                "as an object of `ls` or `claim`",
            .type = "FORM",
            .choices = {kTabs, kJson}};
}

std::vector<KeyAnswer> for_claims(const Context& context, std::string_view form,
                                  std::span<const std::string_view> lines, const ClaimWork& work) {
    std::vector<KeyAnswer> answers(lines.size());
    std::vector<dedup::Claim> claims;
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        auto claim =
            form == kJson ? from_json(context.ns, lines[i]) : from_tabs(context.ns, lines[i]);
        if (!claim) {
            answers[i] = error_answer(context, lines[i], claim.error());
            continue;
        }
        claims.push_back(*std::move(claim));
        which.push_back(i);
    }
    std::vector<KeyAnswer> given = work(claims);
    for (std::size_t j = 0; j < given.size(); ++j) {
        given[j].key = claims[j].key;
        answers[which[j]] = std::move(given[j]);
    }
    return answers;
}

}  // namespace dedupctl
