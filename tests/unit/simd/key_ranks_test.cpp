// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/key_ranks.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

static_assert(noexcept(simd::count_keys<std::uint8_t>({}, {}, {})));
static_assert(noexcept(simd::mark_ranks<std::uint8_t>({}, {}, {}, {}, {}, {})));
static_assert(noexcept(simd::scatter_tokens<std::uint16_t>({}, {}, {}, {})));

enum class key_kind { uniform, binomial, mostly_zero, all_largest, ascending };

/// Keys of some tokens, which of them are taken, and what follows from that.
template <typename Key>
struct keyed_tokens {
    reference::guarded_buffer<Key> keys;
    reference::guarded_buffer<std::uint64_t> taken;
    std::vector<std::uint32_t> counts;
    std::vector<std::uint32_t> begins;
    std::vector<std::uint32_t> order; ///< candidates by (key, index)

    keyed_tokens(std::size_t n, std::size_t num_keys, key_kind kind, bool descending)
        : keys(n), taken(simd::bitmap_words(n)), counts(num_keys), begins(num_keys) {
        for (std::size_t t = 0; t < n; ++t) {
            const std::uint64_t bits = kvcrush::random_bits(n, num_keys, t);
            keys[t] = static_cast<Key>(key_of(kind, bits, t, n, num_keys));
            if (kvcrush::random_bits(7, n, t) % 4 == 0) {
                taken[t / 64] |= std::uint64_t{1} << (t % 64);
            } else {
                order.push_back(static_cast<std::uint32_t>(t));
                ++counts[keys[t]];
            }
        }
        // Bits of no token must not matter.
        if (n % 64 != 0 && n % 2 != 0) {
            taken[n / 64] |= ~std::uint64_t{0} << (n % 64);
        }
        std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
            return descending ? keys[a] > keys[b] : keys[a] < keys[b];
        });
        std::uint32_t begin = 0;
        for (std::size_t i = 0; i < num_keys; ++i) {
            const std::size_t key = descending ? num_keys - 1 - i : i;
            begins[key] = begin;
            begin += counts[key];
        }
    }

private:
    static std::size_t
    key_of(key_kind kind, std::uint64_t bits, std::size_t t, std::size_t n, std::size_t num_keys) {
        switch (kind) {
        case key_kind::uniform: return bits % num_keys;
        case key_kind::binomial:
            return static_cast<std::size_t>(std::popcount(bits & 0xFFFFFFFFU)) * (num_keys - 1) /
                   32;
        case key_kind::mostly_zero: return bits % 8 == 0 ? (bits >> 8) % num_keys : 0;
        case key_kind::all_largest: return num_keys - 1;
        case key_kind::ascending: return t * num_keys / n;
        }
        return 0;
    }
};

template <typename Key, typename Check>
void for_many_tokens(std::initializer_list<std::size_t> sizes, Check check) {
    constexpr std::size_t most = std::numeric_limits<Key>::max() == 255 ? 256 : 4097;
    for (const std::size_t num_keys :
         std::initializer_list<std::size_t>{1, 2, 8, 9, 33, 63, 64, 65, 128, 255, 256, 257, most}) {
        for (const std::size_t n : sizes) {
            if (num_keys > most) {
                continue;
            }
            for (const key_kind kind : std::initializer_list<key_kind>{key_kind::uniform,
                                                                       key_kind::binomial,
                                                                       key_kind::mostly_zero,
                                                                       key_kind::all_largest,
                                                                       key_kind::ascending}) {
                SCOPED_TRACE(testing::Message() << num_keys << " keys, " << n << " tokens, kind "
                                                << static_cast<int>(kind));
                const bool descending = (n + num_keys) % 2 == 0;
                keyed_tokens<Key> tokens(n, num_keys, kind, descending);
                check(tokens);
                if (testing::Test::HasFatalFailure()) {
                    return;
                }
            }
        }
    }
}

constexpr std::initializer_list<std::size_t> sizes{
    0, 1, 63, 64, 65, 128, 1000, 2047, 2048, 2049, 5000};
/// Two of them large enough to be split in quarters.
constexpr std::initializer_list<std::size_t> more_sizes{
    0, 1, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 5000, 16384, 17001};

class KeyRanks : public reference::every_rung {
protected:
    template <typename Key>
    static void expect_counts() {
        for_many_tokens<Key>(sizes, [](keyed_tokens<Key>& tokens) {
            std::vector<std::uint32_t> counts(tokens.counts.size(), 77);
            simd::count_keys<Key>(tokens.keys.span(), tokens.taken.span(), counts, rung());
            ASSERT_EQ(tokens.counts, counts);
        });
    }

    template <typename Key>
    static void expect_ranks() {
        for_many_tokens<Key>(sizes, [](keyed_tokens<Key>& tokens) {
            const std::size_t num = tokens.order.size();
            for (const std::size_t wanted :
                 std::initializer_list<std::size_t>{0, 1, 2, num / 16, num / 2, num}) {
                if (wanted > num) {
                    continue;
                }
                std::vector<std::uint32_t> ranks(wanted);
                reference::guarded_buffer<std::uint64_t> marked(tokens.taken.span().size());
                std::vector<std::uint64_t> expected(marked.span().size());
                // Evenly, the last one included; other bits stay.
                for (std::size_t i = 0; i < expected.size(); ++i) {
                    expected[i] = marked[i] = std::uint64_t{1} << (i % 64);
                }
                for (std::size_t i = 0; i < wanted; ++i) {
                    const std::size_t rank = wanted == 1 ? num / 2 : i * (num - 1) / (wanted - 1);
                    ranks[i] = static_cast<std::uint32_t>(rank);
                    const std::uint32_t token = tokens.order[rank];
                    expected[token / 64] |= std::uint64_t{1} << (token % 64);
                }
                simd::mark_ranks<Key>(tokens.keys.span(),
                                      tokens.taken.span(),
                                      tokens.begins,
                                      tokens.counts,
                                      ranks,
                                      marked.span(),
                                      rung());
                ASSERT_TRUE(std::equal(expected.begin(), expected.end(), marked.span().begin()))
                    << wanted << " ranks";
            }
        });
    }

    template <typename Key>
    static void expect_order() {
        for_many_tokens<Key>(more_sizes, [](keyed_tokens<Key>& tokens) {
            std::vector<std::uint32_t> cursors = tokens.begins;
            reference::guarded_buffer<std::uint32_t> out(tokens.order.size());
            simd::scatter_tokens<Key>(
                tokens.keys.span(), tokens.taken.span(), cursors, out.span(), rung());
            ASSERT_TRUE(std::equal(tokens.order.begin(), tokens.order.end(), out.span().begin()));
            for (std::size_t key = 0; key < cursors.size(); ++key) {
                ASSERT_EQ(tokens.begins[key] + tokens.counts[key], cursors[key]) << key;
            }
        });
    }
};

TEST_P(KeyRanks, CountsTheKeysOfCandidates) {
    expect_counts<std::uint8_t>();
    expect_counts<std::uint16_t>();
}

TEST_P(KeyRanks, MarksTheTokensOfTheRanks) {
    expect_ranks<std::uint8_t>();
    expect_ranks<std::uint16_t>();
}

TEST_P(KeyRanks, ScattersInTheOrderOfKeyAndIndex) {
    expect_order<std::uint8_t>();
    expect_order<std::uint16_t>();
}

TEST_P(KeyRanks, TakesMoreCountsThanAByteHasValues) {
    const std::vector<std::uint8_t> keys{255, 0, 255, 7};
    const std::vector<std::uint64_t> taken{1};
    std::vector<std::uint32_t> counts(300);
    simd::count_keys<std::uint8_t>(keys, taken, counts, rung());
    EXPECT_EQ(1U, counts[255]);
    EXPECT_EQ(1U, counts[0]);
    EXPECT_EQ(0U, counts[256]);
    std::vector<std::uint32_t> begins(300, 2);
    begins[0] = 0;
    begins[7] = 1;
    const std::vector<std::uint32_t> ranks{0, 2};
    std::vector<std::uint64_t> marked(1);
    simd::mark_ranks<std::uint8_t>(keys, taken, begins, counts, ranks, marked, rung());
    EXPECT_EQ(0b0110U, marked[0]);
}

KVCRUSH_ON_EVERY_RUNG(KeyRanks);

} // namespace
