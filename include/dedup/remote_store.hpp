// A store that another process serves: see dedup/server.hpp and docs/server.md.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "dedup/store.hpp"

namespace dedup {

struct RemoteOptions {
    bool read_only = false;  // refuses what writes before it is sent
    // What the server wants to be told, if anything. Wins over one in the URL.
    std::string password = {};
    // How long one call may take; it gives `unavailable` then, or outcome_unknown. Scans, histories
    // and statistics may take sixty times as long, and a sweep as long as it likes. 100 ms to 1 h.
    std::chrono::milliseconds timeout{10'000};
    // Empty: the server's store's time, which is what all its clients should go by.
    Clock clock = {};
};

// Whether open() takes this for a server rather than for a directory: "unix:PATH",
// "tcp://HOST:PORT" or "tls://HOST:PORT". (A directory with such a name is "./unix:...".)
[[nodiscard]] DEDUP_API bool is_remote_url(std::string_view path);

// Opens the store that a server serves at "unix:PATH[?user=USER]" or
// "tcp://[USER:PASSWORD@]HOST:PORT", or with TLS at "tls://[USER:PASSWORD@]HOST:PORT". Behind that
// may stand "?ca=FILE" (PEM; without it, the authorities that the system trusts) and
// "cert=FILE&key=FILE", a certificate of one's own. All but PATH may have %XX in them. The server's
// certificate has to be for HOST. Any number of processes may have it open.
//
// All threads share one connection, on which their requests follow each other without waiting; what
// reads or changes much of the store goes over a second one, each sweep over its own, and all waits
// for keys over one more, on which the server says what was decided: they do not look. (Where it
// does not, as one that is older or has no room for more, they look, at most every 50 ms. If that
// connection dies in silence, they look two timeouts later.) A lost connection is made again, with
// growing pauses between attempts, within the time of the call that needs it. What reads is asked
// again. An append that was sent and not answered is sent again, and the server knows it if it was
// carried out. If the server has been started again meanwhile and another head is there than the
// append expects, or it fails, it gets outcome_unknown, unless the head can only be what it wanted
// to append.
//
// It fulfils the contract of StreamStore as the store behind the server does, with these freedoms:
// the grace is the server's, Durability and Capacity are those of its store, close() gives up the
// connections alone, the progress of a sweep comes about ten times a second and once at its end,
// and metrics() are of this client: it flushes nothing itself. The server carries out one sweep at
// a time: one that is told to stop while it stands behind others gives `busy` (`closed` if close()
// ends it), and the server does it later all the same. Forked children get `closed`,
// and may destroy it.
// Errors: invalid_argument (the URL, or a password that is missing or wrong), unavailable (nobody
// answers), unsupported_version (the server speaks a newer protocol), failed (later: another store
// is served there now).
[[nodiscard]] DEDUP_API Result<std::unique_ptr<StreamStore>> open_remote(
    const std::string& url, const RemoteOptions& options = {});

}  // namespace dedup
