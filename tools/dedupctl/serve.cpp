// dedupctl serve: one store for many processes, over the protocol of Redis.

#include "dedup/server.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <utility>

#include "commands.hpp"
#include "common/text.hpp"
#include "dedup/sweeper.hpp"
#include "event_log.hpp"
#include "secret_file.hpp"
#include "serve_page.hpp"
#include "serve_watch.hpp"
#include "service_manager.hpp"
#include "stop_signal.hpp"

namespace dedupctl {
namespace {

struct ServeArguments {
    std::string unix_path;
    bool no_unix = false;
    std::string tcp;
    std::string tls_cert;
    std::string tls_key;
    std::string tls_client_ca;
    std::string password_file;
    std::string users;
    std::string allow_uid;
    std::string http;
    std::string http_token_file;
    std::string sweep_every;
    std::string idle_timeout;
    std::string stall_timeout = "1m";
    std::string connections = "10000";
    bool log_connections = false;
};

// Beside the store, so that whoever knows the store finds it.
std::string socket_for(const Context& context) {
    if (context.has_url()) {
        throw usage_failure(
            "the store is in no directory, and there is no place beside it for a socket: give "
            "--unix PATH, or --no-unix and --tcp HOST:PORT");
    }
    return context.socket_beside();
}

dedup::ServerOptions server_options(const ServeArguments& arguments, const Context& context) {
    dedup::ServerOptions options;
    const GivenSockets given = sockets_of_service_manager();
    options.unix_socket = given.unix_socket;
    options.tcp_socket = given.tcp;
    options.http_socket = given.http;
    if ((given.unix_socket >= 0 && (arguments.no_unix || !arguments.unix_path.empty())) ||
        (given.tcp >= 0 && !arguments.tcp.empty()) ||
        (given.http >= 0 && !arguments.http.empty())) {
        throw usage_failure("the service manager gives a socket: leave out the option for it");
    }
    const bool only_given = given.unix_socket >= 0 || given.tcp >= 0;
    if (!arguments.no_unix && !only_given) {
        options.unix_path = arguments.unix_path.empty() ? socket_for(context) : arguments.unix_path;
    }
    options.tcp = arguments.tcp;
    options.tls_certificate = arguments.tls_cert;
    options.tls_key = arguments.tls_key;
    options.tls_client_ca = arguments.tls_client_ca;
    if (!arguments.password_file.empty()) {
        options.password = read_secret(arguments.password_file, "--password-file");
    }
    options.users = arguments.users;
    for (std::string_view rest = arguments.allow_uid; !rest.empty();) {
        const std::size_t end = std::min(rest.find(','), rest.size());
        options.unix_uids.push_back(static_cast<std::uint32_t>(
            parse_number(rest.substr(0, end), "--allow-uid", 0, UINT32_MAX)));
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    options.http = arguments.http;
    if (!arguments.http_token_file.empty()) {
        if (arguments.http.empty() && given.http < 0) {
            throw usage_failure("--http-token-file is for --http, which is not there");
        }
        options.http_token = read_secret(arguments.http_token_file, "--http-token-file");
    }
    options.connections_max = parse_number(arguments.connections, "--connections", 1, 1'000'000);
    options.stall_timeout = parse_duration(arguments.stall_timeout, "--stall-timeout");
    if (!arguments.idle_timeout.empty()) {
        options.idle_timeout = parse_duration(arguments.idle_timeout, "--idle-timeout");
    }
    return options;
}

// A connection takes a descriptor, and the usual limit is 1,024. The store and HTTP need theirs,
// too, or connections would take those that the store needs to write.
void fit_into_descriptors(dedup::ServerOptions& options, const EventLog& log) {
    constexpr std::size_t kOfStore = 64;
    constexpr std::size_t kOfHttp = 260;
    const bool http = !options.http.empty() || options.http_socket >= 0;
    const std::size_t others = kOfStore + (http ? kOfHttp : 0);
    const std::size_t wanted = options.connections_max + others;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= wanted) {
        return;
    }
    constexpr const char* kWayOut = "raise LimitNOFILE (ulimit -Hn)";
    if (limit.rlim_cur <= others) {
        throw last_failure(
            {.code = dedup::Code::io,
             .message = fmt::format("{} files may be open, and the store{} may need {}: {}",
                                    limit.rlim_cur, http ? " and HTTP" : "", others, kWayOut),
             .os_error = EMFILE});
    }
    options.connections_max = limit.rlim_cur - others;
    log.write("limited", 0,
              fmt::format("{} connections at most, as {} files may be open: {}, or lower "
                          "--connections",
                          options.connections_max, limit.rlim_cur, kWayOut));
}

std::unique_ptr<dedup::Sweeper> start_sweeper(dedup::StreamStore& store, milliseconds every,
                                              const EventLog& log) {
    return take(dedup::Sweeper::start(
        store,
        {.interval = every, .observer = [&log](const dedup::Result<dedup::SweepReport>& swept) {
             log.write(swept);
         }}));
}

// SIGHUP as an event, instead of an end: also where there is nothing to read again, as whoever
// sends it means no harm. It stays blocked: one that nobody has taken would end the process at its
// end.
class Hangup {
  public:
    Hangup() {
        sigset_t signals{};
        sigemptyset(&signals);
        sigaddset(&signals, SIGHUP);
        ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
        fd_ = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    }
    ~Hangup() { ::close(fd_); }
    Hangup(const Hangup&) = delete;
    Hangup& operator=(const Hangup&) = delete;
    [[nodiscard]] int fd() const { return fd_; }
    void take() const {
        signalfd_siginfo signal{};
        while (::read(fd_, &signal, sizeof signal) > 0) {
        }
    }

  private:
    int fd_ = -1;
};

// What SIGHUP has the server read again: the files that the options name.
class Reload {
  public:
    Reload(const ServeArguments& arguments, dedup::Server& server, const EventLog& log)
        : arguments_(arguments), server_(server), log_(log) {}

    void run() const {
        if (!arguments_.users.empty()) {
            tell("users", server_.reload_users());
        }
        if (!arguments_.tls_cert.empty()) {
            tell("certificates", server_.reload_certificates());
        }
        if (!arguments_.password_file.empty()) {
            take_secret("password", arguments_.password_file, "--password-file",
                        &dedup::Server::replace_password);
        }
        if (!arguments_.http_token_file.empty()) {
            take_secret("http_token", arguments_.http_token_file, "--http-token-file",
                        &dedup::Server::replace_http_token);
        }
    }

  private:
    void tell(const std::string& what, const dedup::Result<void>& done) const {
        done ? log_.write(what + "_reloaded", 0, "")
             : log_.write(what + "_kept", 0, to_string(done.error()));
    }
    void take_secret(const std::string& what, const std::string& path, std::string_view option,
                     dedup::Result<void> (dedup::Server::*replace)(std::string_view)) const {
        try {
            tell(what, (server_.*replace)(read_secret(path, option)));
        } catch (const Failure& failure) {
            log_.write(what + "_kept", 0, failure.message);
        }
    }

    const ServeArguments& arguments_;
    dedup::Server& server_;
    const EventLog& log_;
};

void wait_for_end(StopSignal& stop, const Hangup& hangup, const Reload& reload) {
    while (!stop.requested_before(hangup.fd())) {
        hangup.take();
        reload.run();
    }
}

// The watch outlives the server, whose pages ask it, and looks at the server.
class Watched {
  public:
    Watched(ServeWatch* watch, const dedup::Server& server) : watch_(watch) {
        if (watch_ != nullptr) {
            watch_->watch(&server);
        }
    }
    ~Watched() {
        if (watch_ != nullptr) {
            watch_->watch(nullptr);
        }
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;

  private:
    ServeWatch* watch_;
};

int run_serve(const ServeArguments& arguments, Context& context) {
    context.check_globals();
    if (context.ns_given) {
        throw usage_failure(
            "--namespace is not for serve: clients name theirs; --users says who may");
    }
    context.needs_lock = true;
    dedup::ServerOptions options = server_options(arguments, context);
    const std::optional<milliseconds> every =
        arguments.sweep_every.empty()
            ? std::nullopt
            : std::optional(parse_duration(arguments.sweep_every, "--sweep-every"));
    const EventLog log(context.json, arguments.log_connections);
    options.observer = [&log](const dedup::ServerEvent& event) { log.write(event); };
    fit_into_descriptors(options, log);

    StopSignal stop;
    const Hangup hangup;  // before there are threads, which take no signals
    const bool quiet = context.quiet;
    context.quiet = quiet || context.json;  // standard error is for the log's lines
    std::optional<StartNotice> starting(std::in_place, "opening the store");
    const auto store = context.open_writer();
    starting.reset();
    context.quiet = quiet;
    if (context.made_store && context.json) {
        log.write("created", 0, context.absolute_store());
    }
    const auto watch = options.http.empty() && options.http_socket < 0
                           ? nullptr
                           : std::make_unique<ServeWatch>(*store);
    if (watch) {
        options.http_pages = serve_pages(*watch, context.shown_store());
        options.http_metrics = [&watch] { return open_claims_text(*watch); };
    }
    auto started = dedup::Server::start(*store, std::move(options));
    if (!started) {
        throw last_failure(started.error());  // `busy` is the socket here, not the store's lock
    }
    const auto server = *std::move(started);
    const Watched watched(watch.get(), *server);
    const auto sweeper = every ? start_sweeper(*store, *every, log) : nullptr;
    tell_service_manager("READY=1\nSTATUS=serving the store");
    wait_for_end(stop, hangup, Reload(arguments, *server, log));
    tell_service_manager("STOPPING=1");
    server->stop();
    if (sweeper) {
        sweeper->stop();
    }
    take(store->close());
    return kExitOk;
}

}  // namespace

Command serve_command(Context& context) {
    const auto arguments = std::make_shared<ServeArguments>();
    return {
        .name = "serve",
        .help =
            "Serve the store to other processes, over the protocol of Redis, until SIGINT "
            "or SIGTERM",
        .options = {{.name = "--unix",
                     .to = &arguments->unix_path,
                     .help = "Path of the Unix socket; without it STORE.sock, beside the store",
                     .type = "PATH",
                     .filled = true},
                    {.name = "--no-unix",
                     .to = &arguments->no_unix,
                     .help = "No Unix socket",
                     .excludes = {"--unix"}},
                    {.name = "--tcp",
                     .to = &arguments->tcp,
                     .help = "Listen here too; an address beyond loopback needs a password",
                     .type = "HOST:PORT",
                     .filled = true},
                    {.name = "--tls-cert",
                     .to = &arguments->tls_cert,
                     .help = "TLS on TCP: the server's certificate, in PEM; SIGHUP reads it again",
                     .type = "FILE",
                     .filled = true},
                    {.name = "--tls-key",
                     .to = &arguments->tls_key,
                     .help = "The key of the certificate, in PEM",
                     .type = "FILE",
                     .filled = true,
                     .needs = "--tls-cert"},
                    {.name = "--tls-client-ca",
                     .to = &arguments->tls_client_ca,
                     .help = "Clients have to show a certificate of one of the authorities in this "
                             "file; its CN says which user it is",
                     .type = "FILE",
                     .filled = true,
                     .needs = "--tls-cert"},
                    {.name = "--password-file",
                     .to = &arguments->password_file,
                     .help = "Clients have to say the first line of this file (AUTH); SIGHUP reads "
                             "it again",
                     .type = "FILE",
                     .filled = true},
                    {.name = "--users",
                     .to = &arguments->users,
                     .help = "Every client has to log in as one of the users of this file, and "
                             "may do what its line says; SIGHUP reads it again",
                     .type = "FILE",
                     .filled = true},
                    {.name = "--allow-uid",
                     .to = &arguments->allow_uid,
                     .help = "Only processes of these users of the system, by number, may "
                             "connect to the Unix socket",
                     .type = "UID,...",
                     .filled = true},
                    {.name = "--http",
                     .to = &arguments->http,
                     .help = "Answer HTTP here: /metrics, /healthz, /readyz, /stats.json, and a "
                             "page for people; an address beyond loopback needs a token",
                     .type = "HOST:PORT",
                     .filled = true},
                    {.name = "--http-token-file",
                     .to = &arguments->http_token_file,
                     .help = "HTTP clients have to say the first line of this file, which SIGHUP "
                             "reads again; the page then shows receipts",
                     .type = "FILE",
                     .filled = true},
                    {.name = "--sweep-every",
                     .to = &arguments->sweep_every,
                     .help = "Remove what has expired, this long apart",
                     .type = "D",
                     .filled = true},
                    {.name = "--connections",
                     .to = &arguments->connections,
                     .help = "At most so many at once",
                     .type = "N",
                     .filled = true,
                     .shows_default = true},
                    {.name = "--idle-timeout",
                     .to = &arguments->idle_timeout,
                     .help = "Close a connection that asks for nothing for this long",
                     .type = "D",
                     .filled = true},
                    {.name = "--stall-timeout",
                     .to = &arguments->stall_timeout,
                     .help = "Close one that leaves a request unfinished, or replies untaken, "
                             "for this long",
                     .type = "D",
                     .filled = true,
                     .shows_default = true},
                    {.name = "--log-connections",
                     .to = &arguments->log_connections,
                     .help = "Log each connection's begin and end"}},
        .run = [arguments, &context] { return run_serve(*arguments, context); }};
}

}  // namespace dedupctl
