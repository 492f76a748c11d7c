// A PostgreSQL server of a test program's own: made when it is first asked for, on a Unix socket in
// a temporary directory, gone when the program ends, however that ends.
#pragma once

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/temp_dir.hpp"

namespace dedup::test {

class PostgresServer {
  public:
    // Where Debian and others put the newest server's programs; nothing if there is none.
    static std::optional<std::filesystem::path> programs() {
        std::vector<std::filesystem::path> found;
        std::error_code none;
        for (const auto& version :
             std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
            if (std::filesystem::exists(version.path() / "bin" / "initdb") &&
                std::filesystem::exists(version.path() / "bin" / "postgres")) {
                found.push_back(version.path() / "bin");
            }
        }
        return found.empty() ? std::nullopt : std::optional(*std::ranges::max_element(found));
    }

    // The one that the tests of this program share.
    static PostgresServer& shared() {
        static PostgresServer server;
        return server;
    }

    explicit PostgresServer(std::vector<std::string> settings = {}) : PostgresServer(Bare{}) {
        run_to_end({"initdb", "-D", data(), "-U", "dedup", "-A", "trust", "-E", "UTF8",
                    "--locale=C", "--no-sync"});
        start_with(std::move(settings));
    }
    // A standby of `primary`, which it follows from now on.
    explicit PostgresServer(const PostgresServer& primary, const std::string& name)
        : PostgresServer(Bare{}) {
        run_to_end({"pg_basebackup", "-D", data(), "-R", "-c", "fast", "--no-sync", "-d",
                    primary.url() + "&application_name=" + name});
        start_with({});
    }
    ~PostgresServer() { stop(SIGQUIT); }
    PostgresServer(const PostgresServer&) = delete;
    PostgresServer& operator=(const PostgresServer&) = delete;

    void start() {
        std::vector<std::string> command = {"postgres", "-D", data()};
        for (const std::string& setting : settings_) {
            command.push_back("-c");
            command.push_back(setting);
        }
        pid_ = spawn(command);
        for (int i = 0; i < 1'000; ++i) {
            if (finish(spawn({"pg_isready", "-q", "-h", directory(), "-U", "dedup"})) == 0) {
                return;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        throw std::runtime_error("the PostgreSQL server did not start; see " + directory() +
                                 "/log");
    }
    // SIGQUIT is a crash, as far as the server's data are concerned; SIGINT an orderly end.
    void stop(int signal) {
        if (pid_ > 0) {
            ::kill(pid_, signal);
            finish(pid_);
            pid_ = 0;
        }
    }

    // Of database `database`; parameters follow as "&name=value".
    [[nodiscard]] std::string url(const std::string& database = "postgres") const {
        return "postgresql://dedup@/" + database + "?host=" + directory();
    }
    [[nodiscard]] std::string socket() const { return directory() + "/.s.PGSQL.5432"; }
    [[nodiscard]] std::string directory() const { return directory_.path().string(); }
    // Gives the server's user a directory.
    void give(const std::filesystem::path& path) const {
        if (uid_ != 0 && ::chown(path.c_str(), uid_, gid_) != 0) {
            throw std::runtime_error("chown of " + path.string() + " failed");
        }
    }

    // Puts a line before all others in pg_hba.conf: who may connect, and how.
    void admit(const std::string& line) {
        const std::string file = data() + "/pg_hba.conf";
        std::ifstream in(file);
        const std::string rest((std::istreambuf_iterator<char>(in)),
                               std::istreambuf_iterator<char>());
        std::ofstream(file) << line << '\n' << rest;
        sql("SELECT pg_reload_conf()");
    }

    // Runs a text of SQL with psql; its output, without decoration.
    std::string sql(const std::string& text) const {
        static std::atomic<int> calls = 0;
        const std::string file = directory() + "/sql-" + std::to_string(++calls);
        const std::string output = file + ".out";
        std::ofstream(file) << text;
        const pid_t child = ::fork();
        if (child == 0) {
            write_into(output);
            const std::string program = bin_ / "psql";
            ::execl(program.c_str(), "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", file.c_str(),
                    url().c_str(), nullptr);
            ::_exit(127);
        }
        const int status = finish(child);
        std::ifstream in(output);
        std::string got((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
        if (status != 0) {
            throw std::runtime_error("psql: " + got);
        }
        while (!got.empty() && got.back() == '\n') {
            got.pop_back();
        }
        return got;
    }

  private:
    struct Bare {};  // a directory without a server's data
    explicit PostgresServer(Bare /*bare*/) : bin_(programs().value()) {
        // A server refuses to run as root.
        if (::geteuid() == 0) {
            const passwd* user = ::getpwnam("postgres");
            user = user == nullptr ? ::getpwnam("nobody") : user;
            uid_ = user->pw_uid;
            gid_ = user->pw_gid;
            give(directory());
        }
    }
    void start_with(std::vector<std::string> settings) {
        settings.insert(
            settings.begin(),
            {"listen_addresses=", "unix_socket_directories=" + directory(), "max_connections=200",
             "shared_buffers=64MB", "fsync=on", "recovery_init_sync_method=syncfs"});
        settings_ = std::move(settings);
        start();
    }

    [[nodiscard]] std::string data() const { return directory() + "/data"; }

    pid_t spawn(const std::vector<std::string>& command) const {
        const std::string program = bin_ / command.front();
        const std::string log = directory() + "/log";
        std::vector<char*> arguments;
        for (const std::string& word : command) {
            arguments.push_back(const_cast<char*>(word.c_str()));
        }
        arguments.push_back(nullptr);
        const pid_t child = ::fork();
        if (child != 0) {
            return child;
        }
        if (uid_ != 0 && (::setgid(gid_) != 0 || ::setuid(uid_) != 0)) {
            ::_exit(126);
        }
        ::prctl(PR_SET_PDEATHSIG, SIGQUIT);  // behind setuid, which clears it
        ::setpgid(0, 0);                     // a terminal's ^C is for the tests
        write_into(log);
        if (::chdir("/") != 0) {
            ::_exit(126);
        }
        ::execv(program.c_str(), arguments.data());
        ::_exit(127);
    }
    // In a child: its output goes there.
    static void write_into(const std::string& file) {
        const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0 || ::dup2(fd, STDOUT_FILENO) < 0 || ::dup2(fd, STDERR_FILENO) < 0) {
            ::_exit(126);
        }
    }
    static int finish(pid_t child) {
        int status = 0;
        while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    void run_to_end(const std::vector<std::string>& command) const {
        if (finish(spawn(command)) != 0) {
            throw std::runtime_error(command.front() + " failed; see " + directory() + "/log");
        }
    }

    TempDir directory_;
    std::filesystem::path bin_;
    uid_t uid_ = 0;
    gid_t gid_ = 0;
    pid_t pid_ = 0;
    std::vector<std::string> settings_;
};

}  // namespace dedup::test
