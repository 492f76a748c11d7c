// Writes replies in RESP, in the version that the client asked for.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dedup/error.hpp"

namespace dedup::server {

enum class Protocol : std::uint8_t { resp2 = 2, resp3 = 3 };

class ReplyWriter {
  public:
    ReplyWriter(std::string& out, Protocol protocol) : out_(out), protocol_(protocol) {}

    void simple(std::string_view text) { line('+', text); }
    void ok() { out_ += "+OK\r\n"; }
    // "CODE and a message": the first word is for programs.
    void error(std::string_view text) { line('-', text); }
    void error(const Error& error);
    void integer(std::int64_t number) { head(':', number); }
    void bulk(std::string_view bytes);
    void null() { out_ += protocol_ == Protocol::resp3 ? "_\r\n" : "$-1\r\n"; }
    void null_array() { out_ += protocol_ == Protocol::resp3 ? "_\r\n" : "*-1\r\n"; }
    // So many replies follow.
    void array(std::size_t count) { head('*', count); }
    // So many pairs follow; in RESP2 a flat array.
    void map(std::size_t pairs) {
        protocol_ == Protocol::resp3 ? head('%', pairs) : head('*', 2 * pairs);
    }

    [[nodiscard]] Protocol protocol() const { return protocol_; }

  private:
    template <std::integral Number>
    void head(char mark, Number number) {
        char text[24];
        char* const end = std::to_chars(text, text + sizeof text, number).ptr;
        out_ += mark;
        out_.append(text, end);
        out_ += "\r\n";
    }
    void line(char mark, std::string_view text);

    std::string& out_;
    Protocol protocol_;
};

// A map whose size is known when all of it is.
class MapWriter {
  public:
    explicit MapWriter(Protocol protocol) : protocol_(protocol) {}

    void text(std::string_view name, std::string_view value) { value_of(name).bulk(value); }
    template <std::integral Number>
    void number(std::string_view name, Number value) {
        value_of(name).integer(static_cast<std::int64_t>(value));
    }
    // A time, or null where 0 stands for "never" or "none".
    void time_or_null(std::string_view name, std::int64_t time_ms) {
        time_ms == 0 ? value_of(name).null() : value_of(name).integer(time_ms);
    }
    void map(std::string_view name, const MapWriter& value) {
        value_of(name);
        value.add_to(body_);
    }
    // A value that has been written already.
    void raw(std::string_view name, std::string_view value) {
        value_of(name);
        body_ += value;
    }
    void list(std::string_view name, const std::vector<MapWriter>& rows) {
        value_of(name).array(rows.size());
        for (const MapWriter& row : rows) {
            row.add_to(body_);
        }
    }
    // The writer of the value, which is to follow before anything else is added.
    ReplyWriter value_of(std::string_view name) {
        ++pairs_;
        ReplyWriter writer(body_, protocol_);
        writer.bulk(name);
        return writer;
    }
    void add_to(std::string& out) const;
    [[nodiscard]] Protocol protocol() const { return protocol_; }

  private:
    std::string body_;
    Protocol protocol_;
    std::size_t pairs_ = 0;
};

}  // namespace dedup::server
