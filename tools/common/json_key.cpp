#include <utility>

#include "common/failure.hpp"
#include "common/line_key.hpp"
#include "dedup/json_pointer.hpp"

namespace dedupctl {
namespace {

class JsonValue : public LineKey {
  public:
    explicit JsonValue(dedup::JsonPointer pointer) : pointer_(std::move(pointer)) {}

    std::optional<std::string_view> find(std::string_view line, std::string& storage) override {
        if (!pointer_.find(line, storage)) {
            return std::nullopt;
        }
        return storage;
    }

  private:
    dedup::JsonPointer pointer_;
};

}  // namespace

std::unique_ptr<LineKey> json_key(const std::string& pointer) {
    auto parsed = dedup::JsonPointer::parse(pointer);
    if (!parsed) {
        throw usage_failure("--json: " + parsed.error().message);
    }
    return std::make_unique<JsonValue>(*std::move(parsed));
}

}  // namespace dedupctl
