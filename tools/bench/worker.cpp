// bench_worker PEER DIRECTORY SEED LOADED CLAIMED: opens a store and does what standard input says.
//
// A command is a line, "claims group=64 ms=1000"; the answer is a line of JSON. With more=1 it is
// for this command and those before it together. One process a store lets the harness see what each
// costs, stop all others meanwhile, and kill it.

#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>

#include "adapter.hpp"
#include "common/failure.hpp"
#include "measure.hpp"

namespace bench {
namespace {

class Command {
  public:
    explicit Command(const std::string& line) {
        std::istringstream words(line);
        words >> name_;
        for (std::string word; words >> word;) {
            const auto equals = word.find('=');
            if (equals == std::string::npos) {
                throw failure("not a parameter: " + word);
            }
            values_[word.substr(0, equals)] = std::stoll(word.substr(equals + 1));
        }
    }

    [[nodiscard]] const std::string& name() const { return name_; }
    // A parameter; without one, `otherwise`.
    [[nodiscard]] std::int64_t get(const std::string& key, std::int64_t otherwise) const {
        const auto found = values_.find(key);
        return found == values_.end() ? otherwise : found->second;
    }
    [[nodiscard]] std::int64_t get(const std::string& key) const {
        if (!values_.contains(key)) {
            throw failure(name_ + " needs " + key);
        }
        return get(key, 0);
    }
    [[nodiscard]] std::size_t count(const std::string& key) const {
        return static_cast<std::size_t>(get(key));
    }

  private:
    std::string name_;
    std::map<std::string, std::int64_t> values_;
};

void answer(const std::string& json) {
    std::puts(json.c_str());
    std::fflush(stdout);
}

std::string as_json(const Measured& measured, const Work& work) {
    const auto us = [](std::uint64_t ns) { return static_cast<double>(ns) / 1e3; };
    return fmt::format(
        "\"operations\": {}, \"seconds\": {:.6f}, \"groups\": {}, \"p50_us\": {:.3f}, "
        "\"p99_us\": {:.3f}, \"max_us\": {:.3f}, \"loaded\": {}, \"claimed\": {}",
        measured.operations, measured.seconds, measured.latency.total(),
        us(measured.latency.quantile(0.5)), us(measured.latency.quantile(0.99)),
        us(measured.latency.max()), work.loaded(), work.claimed());
}

Measured measure(const Command& command, Work& work) {
    const std::string& name = command.name();
    const milliseconds time{command.get("ms", 0)};
    if (name == "load") {
        return work.load(command.count("until"), milliseconds{command.get("budget_ms")},
                         command.count("receipt"), command.get("ttl_ms", kTtlMs));
    }
    if (name == "load_claimed") {
        return work.load_claimed(command.count("until"));
    }
    if (name == "claims") {
        return work.claims(command.count("group"), time);
    }
    if (name == "claims_by_threads") {
        return work.claims_by_threads(static_cast<unsigned>(command.count("threads")), time);
    }
    if (name == "cycles") {
        return work.cycles(command.count("group"), time);
    }
    if (name == "lookups") {
        return work.lookups(static_cast<unsigned>(command.count("threads")),
                            static_cast<Draw>(command.get("draw")), command.count("together"),
                            time);
    }
    if (name == "sweep") {
        return work.sweep(command.get("ahead_ms"));
    }
    throw failure("no command: " + name);
}

// Answers; `measured` is what the last command did.
void execute(const Command& command, Work& work, Measured& measured) {
    if (command.name() == "claims_beside_sweep") {
        Measured swept;
        const Measured claims =
            work.claims_beside_sweep(command.count("group"), command.get("ahead_ms"), swept);
        answer(
            fmt::format("{{{}, \"sweep\": {{{}}}}}", as_json(claims, work), as_json(swept, work)));
    } else if (command.name() == "index_expiry" || command.name() == "tidy") {
        command.name() == "tidy" ? work.adapter().tidy() : work.adapter().index_expiry();
        answer("{}");
    } else {
        if (command.get("more", 0) == 0) {
            measured = {};
        }
        measured.add(measure(command, work));
        answer(fmt::format("{{{}}}", as_json(measured, work)));
    }
}

std::unique_ptr<Adapter> open_peer(const std::string& peer, const std::string& directory) {
    const std::map<std::string, std::unique_ptr<Adapter> (*)(const std::string&)> peers = {
        {"dedup", open_dedup},       {"dedup_postgres", open_dedup_postgres},
        {"limit", open_limit},       {"lmdb", open_lmdb},
        {"postgres", open_postgres}, {"redis", open_redis},
        {"rocksdb", open_rocksdb},   {"sqlite", open_sqlite},
    };
    const auto found = peers.find(peer);
    if (found == peers.end()) {
        throw failure("no such peer: " + peer);
    }
    return found->second(directory);
}

int run(const std::vector<std::string>& arguments) {
    try {
        const auto adapter = open_peer(arguments.at(0), arguments.at(1));
        Work work(*adapter, std::stoull(arguments.at(2)), std::stoull(arguments.at(3)),
                  std::stoull(arguments.at(4)));
        if (work.loaded() > 0) {
            work.probe();
        }
        answer("{\"ready\": true}");
        Measured measured;
        for (std::string line; std::getline(std::cin, line);) {
            execute(Command(line), work, measured);
        }
        return 0;
    } catch (const Failure& failed) {
        std::cerr << "bench_worker: " << arguments.at(0) << ": " << failed.message << '\n';
        return 1;
    }
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    if (argc != 6) {
        std::cerr << "usage: bench_worker PEER DIRECTORY SEED LOADED CLAIMED\n";
        return 2;
    }
    return bench::run({argv + 1, argv + argc});
}
