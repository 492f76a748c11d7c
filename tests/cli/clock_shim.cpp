// Preloaded into dedupctl: sets its clock forward by the seconds that are written in the file that
// CLOCK_AHEAD names, from the moment that they are.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
    const long failed = ::syscall(SYS_clock_gettime, clock, now);
    const char* const name = std::getenv("CLOCK_AHEAD");
    if (failed == 0 && clock == CLOCK_REALTIME && name != nullptr) {
        if (std::FILE* const file = std::fopen(name, "r")) {
            long seconds = 0;
            if (std::fscanf(file, "%ld", &seconds) == 1) {
                now->tv_sec += seconds;
            }
            std::fclose(file);
        }
    }
    return static_cast<int>(failed);
}
