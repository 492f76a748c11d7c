// What a user needs to have a record written as it is, by what that makes of its stream: the right
// of the command that would have done the same, or `admin`.
#pragma once

#include <optional>

#include "dedup/store.hpp"
#include "server/users.hpp"

namespace dedup::server {

// Whatever the stream's head is: nobody without it is told anything of that.
[[nodiscard]] unsigned rights_for(const Record& record);

// With the head that it follows; nullopt: none. Nobody but an admin takes a completion back, gives
// another receipt, brings an old fence back, or says that somebody else has decided. `now_ms` and
// `grace` are the store's.
[[nodiscard]] unsigned rights_for(const Record& record, const std::optional<Record>& head,
                                  std::int64_t now_ms, std::chrono::milliseconds grace);

}  // namespace dedup::server
