// SPDX-License-Identifier: Apache-2.0
/// The reader of states, on small ones made here.
#include "error.hpp"
#include "state_blob.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

namespace client {
namespace {

using testing::HasSubstr;
using bytes = std::vector<std::byte>;

constexpr std::int32_t f16 = 1;
constexpr std::int32_t q8_0 = 8;

template <typename T>
void put(bytes& to, T value) {
    to.resize(to.size() + sizeof value);
    std::memcpy(to.data() + to.size() - sizeof value, &value, sizeof value);
}

struct sketch {
    std::uint32_t magic = 0xaf143cd8U;
    std::uint32_t streams = 1;
    std::vector<std::int32_t> positions{0, 1, 5};
    std::uint32_t sequences = 1;
    std::int32_t sequence = 0;
    std::uint32_t transposed = 0;
    std::uint32_t layers = 2;
    std::int32_t type = f16;
    std::uint64_t row_bytes = 16;
    bool values = true;
};

void put_cache(bytes& to, const sketch& how) {
    put(to, how.streams);
    put(to, static_cast<std::uint32_t>(how.positions.size()));
    for (const std::int32_t position : how.positions) {
        put(to, position);
        put(to, how.sequences);
        put(to, how.sequence);
    }
    if (how.positions.empty()) {
        return;
    }
    put(to, how.transposed);
    put(to, how.layers);
    for (std::uint32_t l = 0; l < (how.values ? 2 : 1) * how.layers; ++l) {
        put(to, how.type);
        put(to, how.row_bytes);
        for (std::size_t i = 0; i < how.positions.size() * how.row_bytes; ++i) {
            put(to, static_cast<std::uint8_t>(l * 31 + i));
        }
    }
}

bytes state_of(const sketch& how) {
    bytes state;
    put(state, how.magic);
    put(state, std::int32_t{0});
    put_cache(state, how);
    return state;
}

std::string refusal(const bytes& state, std::size_t num_caches = 1) {
    try {
        static_cast<void>(parse_state(state, num_caches));
    } catch (const lab::input_error& error) {
        return error.what();
    }
    return "nothing was refused";
}

bytes rewritten(const state_blob& blob) {
    state_draft draft = draft_state(blob, blob.caches.front().positions);
    for (std::size_t l = 0; l < draft.keys.size(); ++l) {
        std::memcpy(
            draft.keys[l].data(), blob.caches.front().keys[l].bytes.data(), draft.keys[l].size());
        std::memcpy(draft.values[l].data(),
                    blob.caches.front().values[l].bytes.data(),
                    draft.values[l].size());
    }
    return {draft.bytes.all().begin(), draft.bytes.all().end()};
}

TEST(StateBlob, IsReadAndWrittenByteByByte) {
    for (const std::int32_t type : {f16, q8_0}) {
        const bytes state = state_of({.type = type, .row_bytes = 34});
        const state_blob blob = parse_state(state);
        EXPECT_EQ(blob.caches.front().positions, (std::vector<std::int32_t>{0, 1, 5}));
        EXPECT_EQ(blob.caches.front().keys[1].bytes.size(), 3U * 34U);
        EXPECT_EQ(rewritten(blob), state);
    }
}

TEST(StateBlob, OfTwoCachesTheSecondIsCopiedAsItIs) {
    bytes state = state_of({});
    put_cache(state, {.positions = {700, 701, 190}, .layers = 5}); // a window that has wrapped
    const state_blob blob = parse_state(state, 2);
    EXPECT_EQ(blob.caches[1].num_layers(), 5U);
    EXPECT_EQ(rewritten(blob), state);
    EXPECT_THAT(refusal(state, 1), HasSubstr("bytes behind its 1 cache"));
}

TEST(StateBlob, EveryCutAndEveryAddedByteIsRefused) {
    const bytes state = state_of({});
    for (std::size_t size = 0; size < state.size(); ++size) {
        ASSERT_NE(refusal({state.begin(), state.begin() + static_cast<std::ptrdiff_t>(size)}),
                  "nothing was refused")
            << size;
    }
    bytes longer = state;
    longer.push_back(std::byte{0});
    EXPECT_THAT(refusal(longer), HasSubstr("goes on for 1 bytes"));
}

TEST(StateBlob, SaysWhatItDoesNotRead) {
    EXPECT_THAT(refusal(state_of({.magic = 1})), HasSubstr("version 3"));
    EXPECT_THAT(refusal(state_of({.streams = 2})), HasSubstr("2 streams; allowed: 1"));
    EXPECT_THAT(refusal(state_of({.positions = {}})), HasSubstr("no cells"));
    EXPECT_THAT(refusal(state_of({.positions = {0, 0}})),
                HasSubstr("cell 1 of the state has position 0; allowed: from 1 on"));
    EXPECT_THAT(refusal(state_of({.positions = {-1}})),
                HasSubstr("position -1; allowed: from 0 on"));
    EXPECT_THAT(refusal(state_of({.sequences = 2})), HasSubstr("M-RoPE"));
    EXPECT_THAT(refusal(state_of({.sequence = 1})),
                HasSubstr("of sequence 1; the state is of sequence 0"));
    EXPECT_THAT(refusal(state_of({.transposed = 1})), HasSubstr("flash attention is off"));
    EXPECT_THAT(refusal(state_of({.layers = 0})), HasSubstr("without layers"));
    EXPECT_THAT(refusal(state_of({.type = 12})), HasSubstr("ggml type 12; allowed: f32"));
    EXPECT_THAT(refusal(state_of({.row_bytes = 0})), HasSubstr("0 bytes per row"));
    EXPECT_THAT(refusal(state_of({.values = false})), HasSubstr("ends within values"));
}

TEST(StateBlob, NoLengthIsBelieved) {
    const bytes state = state_of({});
    for (std::size_t at = 0; at + 8 <= state.size(); ++at) {
        for (const std::uint64_t value : {std::uint64_t{0},
                                          ~std::uint64_t{0},
                                          std::uint64_t{1} << 63U,
                                          std::uint64_t{0x7fffffff}}) {
            bytes hostile = state;
            std::memcpy(hostile.data() + at, &value, sizeof value);
            static_cast<void>(refusal(
                hostile)); // an error or not, but no crash, and no memory for what is not there
        }
    }
}

} // namespace
} // namespace client
