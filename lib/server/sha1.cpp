#include "server/sha1.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace dedup::server {
namespace {

constexpr std::size_t kBlockBytes = 64;
constexpr std::size_t kRounds = 80;

using Sha1State = std::array<std::uint32_t, 5>;

std::uint32_t word_at(const unsigned char* bytes) {
    return static_cast<std::uint32_t>(bytes[0]) << 24 | static_cast<std::uint32_t>(bytes[1]) << 16 |
           static_cast<std::uint32_t>(bytes[2]) << 8 | static_cast<std::uint32_t>(bytes[3]);
}

void add_block(Sha1State& state, const unsigned char* block) {
    std::array<std::uint32_t, kRounds> words{};
    for (std::size_t i = 0; i < kRounds; ++i) {
        words[i] = i < 16
                       ? word_at(block + 4 * i)
                       : std::rotl(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    }
    auto [a, b, c, d, e] = state;
    for (std::size_t i = 0; i < kRounds; ++i) {
        std::uint32_t mixed = 0;
        if (i < 20) {
            mixed = ((b & c) | (~b & d)) + 0x5a827999;
        } else if (i < 40) {
            mixed = (b ^ c ^ d) + 0x6ed9eba1;
        } else if (i < 60) {
            mixed = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
        } else {
            mixed = (b ^ c ^ d) + 0xca62c1d6;
        }
        const std::uint32_t next = std::rotl(a, 5) + mixed + e + words[i];
        e = d;
        d = c;
        c = std::rotl(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

}  // namespace

std::string sha1_hex(std::string_view bytes) {
    // The message, a 1 bit, zeros, and its size in bits, to a multiple of a block.
    std::string padded(bytes);
    padded += static_cast<char>(0x80);
    while (padded.size() % kBlockBytes != kBlockBytes - 8) {
        padded += '\0';
    }
    const std::uint64_t bits = std::uint64_t{bytes.size()} * 8;
    for (int shift = 56; shift >= 0; shift -= 8) {
        padded += static_cast<char>(bits >> shift & 0xff);
    }
    Sha1State state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (std::size_t at = 0; at < padded.size(); at += kBlockBytes) {
        add_block(state, reinterpret_cast<const unsigned char*>(padded.data()) + at);
    }
    std::string hex;
    for (const std::uint32_t word : state) {
        for (int shift = 28; shift >= 0; shift -= 4) {
            hex += "0123456789abcdef"[word >> shift & 0xf];
        }
    }
    return hex;
}

}  // namespace dedup::server
