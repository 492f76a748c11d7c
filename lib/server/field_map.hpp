// Writes maps by the lists in wire/store_fields.hpp.
#pragma once

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/reply_writer.hpp"
#include "wire/store_fields.hpp"

namespace dedup::server {

template <class T>
[[nodiscard]] MapWriter field_map(Protocol protocol, const T& value);

class FieldWriter {
  public:
    explicit FieldWriter(MapWriter& map) : map_(map) {}

    void operator()(std::string_view name, std::integral auto value) {
        map_.number(name, static_cast<std::int64_t>(value));
    }
    void operator()(std::string_view name, const std::string& value) { map_.text(name, value); }
    void operator()(std::string_view name, const std::optional<std::int64_t>& value) {
        value ? map_.number(name, *value) : map_.value_of(name).null();
    }
    template <class T>
    void operator()(std::string_view name, const std::optional<T>& value) {
        value ? map_.map(name, field_map(map_.protocol(), *value)) : map_.value_of(name).null();
    }
    template <class T>
    void operator()(std::string_view name, const std::vector<T>& rows) {
        std::vector<MapWriter> maps;
        maps.reserve(rows.size());
        for (const T& row : rows) {
            maps.push_back(field_map(map_.protocol(), row));
        }
        map_.list(name, maps);
    }
    template <class T>
    requires std::is_class_v<T>
    void operator()(std::string_view name, const T& value) {
        map_.map(name, field_map(map_.protocol(), value));
    }
    void time(std::string_view name, std::int64_t time_ms) { map_.time_or_null(name, time_ms); }
    void text(std::string_view name, const std::string& text) {
        if (!text.empty()) {
            map_.text(name, text);
        }
    }

  private:
    MapWriter& map_;
};

template <class T>
MapWriter field_map(Protocol protocol, const T& value) {
    MapWriter map(protocol);
    FieldWriter writer(map);
    wire::visit_fields(value, writer);
    return map;
}

}  // namespace dedup::server
