// What systemd, or another manager that speaks its protocol, wants to be told (man sd_notify).
#pragma once

#include <string_view>

namespace dedupctl {

// "READY=1", "STOPPING=1". Does nothing if nobody asked for it, by NOTIFY_SOCKET.
void tell_service_manager(std::string_view state);

}  // namespace dedupctl
