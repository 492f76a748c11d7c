// What systemd, or another manager that speaks its protocol, wants to be told (man sd_notify).
#pragma once

#include <string_view>
#include <thread>

namespace dedupctl {

// The sockets that it listens on for this process (man sd_listen_fds), by kind; -1: none. The one
// of HTTP has the name "http" (FileDescriptorName=). Throws a Failure where there are two of a
// kind, or one of none.
struct GivenSockets {
    int unix_socket = -1;
    int tcp = -1;
    int http = -1;
};
[[nodiscard]] GivenSockets sockets_of_service_manager();

// "READY=1", "STOPPING=1", ...; more than one, on lines of their own. Does nothing if nobody asked
// for it, by NOTIFY_SOCKET.
void tell_service_manager(std::string_view state);

// While it lives, what the service does before it is ready, for people, and that it needs more
// time: as long as the process works, and does not only wait.
class StartNotice {
  public:
    explicit StartNotice(std::string_view what);

  private:
    std::jthread thread_;
};

}  // namespace dedupctl
