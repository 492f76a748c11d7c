// For the test of kafka_consumer: a Kafka of librdkafka's own (its mock cluster) that has EVENTS
// events, each of them sent twice, out of order. Prints where it listens; ends with its input.
//
//     kafka_broker EVENTS
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

int main(int argc, char** argv) {
    const int events = argc == 2 ? std::atoi(argv[1]) : 0;
    std::array<char, 512> error{};
    rd_kafka_conf_t* conf = rd_kafka_conf_new();
    rd_kafka_t* const owner = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error.data(), error.size());
    rd_kafka_mock_cluster_t* const cluster = rd_kafka_mock_cluster_new(owner, 1);
    if (owner == nullptr || cluster == nullptr || events < 1) {
        std::fprintf(stderr, "kafka_broker: cannot start: %s\n", error.data());
        return 1;
    }
    rd_kafka_mock_topic_create(cluster, "payments", 1, 1);
    const char* const brokers = rd_kafka_mock_cluster_bootstraps(cluster);
    conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers, error.data(), error.size());
    rd_kafka_t* const producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error.data(), error.size());
    rd_kafka_topic_t* const topic = rd_kafka_topic_new(producer, "payments", nullptr);
    for (int i = 0; i < 2 * events; ++i) {
        // Each event once in order, and once between those that come five later.
        const int event = i % 2 == 0 ? i / 2 : (i / 2 + events - 5) % events;
        const std::string key = "event-" + std::to_string(event);
        std::string payload = "pay " + std::to_string(event);
        rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, payload.data(), payload.size(), key.data(),
                         key.size(), nullptr);
    }
    rd_kafka_flush(producer, 30'000);
    std::printf("%s\n", brokers);
    std::fflush(stdout);
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) > 0) {
    }
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(producer);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(owner);
    return 0;
}
