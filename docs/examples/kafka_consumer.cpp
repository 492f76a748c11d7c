// A Kafka consumer that takes each event's effect once, however often the event is delivered and
// whenever the process is killed: effect, receipt and offset are one commit in PostgreSQL.
//
//     kafka_consumer BROKERS TOPIC DATABASE_URL
//
// DATABASE_URL is libpq's. The database has the store's schema (`dedupctl init`) and two tables:
//
//     CREATE TABLE payment (event_id text PRIMARY KEY, payload text);
//     CREATE TABLE next_offset (kafka_partition int PRIMARY KEY, kafka_offset bigint NOT NULL);
//
// Kafka's own offsets are not used: the one in the database is exact, as it moves with the effect.
// An event's id is its message's key, so that two messages with one key, which a producer that
// tried again has sent, are one event.

#include <libpq-fe.h>
#include <librdkafka/rdkafkacpp.h>

#include <array>
#include <iostream>
#include <memory>
#include <string>

#include "dedup/postgres_transaction.hpp"

namespace {

constexpr int kPartition = 0;
constexpr int kTimeoutMs = 1'000;

// Runs a statement with text parameters; false, and a line on stderr, if the server refuses it.
bool run(PGconn* database, const char* sql, const std::array<std::string, 2>& values) {
    const std::array<const char*, 2> texts = {values[0].c_str(), values[1].c_str()};
    PGresult* const result =
        PQexecParams(database, sql, 2, nullptr, texts.data(), nullptr, nullptr, 0);
    const bool good = PQresultStatus(result) == PGRES_COMMAND_OK;
    if (!good) {
        std::cerr << "kafka_consumer: " << PQresultErrorMessage(result);
    }
    PQclear(result);
    return good;
}

bool move_offset(PGconn* database, std::int64_t next) {
    return run(database,
               "INSERT INTO next_offset VALUES ($1, $2) ON CONFLICT (kafka_partition) "
               "DO UPDATE SET kafka_offset = excluded.kafka_offset",
               {std::to_string(kPartition), std::to_string(next)});
}

std::int64_t stored_offset(PGconn* database) {
    PGresult* const result = PQexec(database, "SELECT kafka_offset FROM next_offset");
    const bool found = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    const std::int64_t offset = found ? std::stoll(PQgetvalue(result, 0, 0)) : 0;
    PQclear(result);
    return offset;
}

// False: nothing of it has happened, and the process should end, to be started again.
bool handle(PGconn* database, RdKafka::Message& message) {
    const std::int64_t next = message.offset() + 1;
    const std::string payload(static_cast<const char*>(message.payload()), message.len());
    const auto outcome = dedup::run_once(
        database, *message.key(),
        [&](PGconn* transaction, const dedup::Claimed& claimed) -> dedup::Result<std::string> {
            const bool done = run(transaction, "INSERT INTO payment VALUES ($1, $2)",
                                  {claimed.claim.key, payload}) &&
                              move_offset(transaction, next);
            if (!done) {
                return std::unexpected(
                    dedup::Error{dedup::Code::failed, "the payment could not be booked"});
            }
            return "booked";
        });
    if (!outcome) {
        std::cerr << "kafka_consumer: " << outcome.error().message << '\n';
        return false;
    }
    if (std::holds_alternative<dedup::Ran>(*outcome)) {
        return true;
    }
    // A duplicate of an event that was handled before: its offset alone moves. One that somebody
    // else has in flight is delivered again.
    return std::holds_alternative<dedup::Completed>(*outcome) && move_offset(database, next);
}

std::unique_ptr<RdKafka::KafkaConsumer> consumer_of(const std::string& brokers) {
    const std::unique_ptr<RdKafka::Conf> conf(RdKafka::Conf::create(RdKafka::Conf::CONF_GLOBAL));
    std::string error;
    const std::array<std::pair<const char*, std::string>, 4> settings = {
        {{"bootstrap.servers", brokers},
         {"group.id", "payments"},  // librdkafka wants one
         {"enable.auto.commit", "false"},
         {"auto.offset.reset", "earliest"}}};
    for (const auto& [name, value] : settings) {
        if (conf->set(name, value, error) != RdKafka::Conf::CONF_OK) {
            std::cerr << "kafka_consumer: " << error << '\n';
            return nullptr;
        }
    }
    std::unique_ptr<RdKafka::KafkaConsumer> consumer(
        RdKafka::KafkaConsumer::create(conf.get(), error));
    if (!consumer) {
        std::cerr << "kafka_consumer: " << error << '\n';
    }
    return consumer;
}

int consume(const std::string& brokers, const std::string& topic, PGconn* database) {
    const auto consumer = consumer_of(brokers);
    if (!consumer) {
        return 1;
    }
    const std::unique_ptr<RdKafka::TopicPartition> place(
        RdKafka::TopicPartition::create(topic, kPartition, stored_offset(database)));
    if (const auto error = consumer->assign({place.get()}); error != RdKafka::ERR_NO_ERROR) {
        std::cerr << "kafka_consumer: " << RdKafka::err2str(error) << '\n';
        return 1;
    }
    while (true) {
        const std::unique_ptr<RdKafka::Message> message(consumer->consume(kTimeoutMs));
        if (message->err() == RdKafka::ERR__TIMED_OUT) {
            continue;
        }
        if (message->err() != RdKafka::ERR_NO_ERROR) {
            std::cerr << "kafka_consumer: " << message->errstr() << '\n';
            continue;  // librdkafka goes on by itself
        }
        if (!handle(database, *message)) {
            return 1;
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: kafka_consumer BROKERS TOPIC DATABASE_URL\n";
        return 2;
    }
    const std::unique_ptr<PGconn, decltype(&PQfinish)> database(PQconnectdb(argv[3]), PQfinish);
    if (PQstatus(database.get()) != CONNECTION_OK) {
        std::cerr << "kafka_consumer: " << PQerrorMessage(database.get());
        return 1;
    }
    return consume(argv[1], argv[2], database.get());
}
