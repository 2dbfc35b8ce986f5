// SPDX-License-Identifier: Apache-2.0
// You will know how to write a codec, to give it a kernel that works on rows as they lie, and to store a cache with it.
#include <kvcrush/kvcrush.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>
using namespace kvcrush;
/// A byte per channel for numbers within 1.98, and nothing beside them.
struct byte_codec {
    static constexpr std::string_view name = "byte";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const noexcept {}
    void validate_for(std::size_t) const noexcept {}                 // channels
    static constexpr std::size_t group_size() noexcept { return 1; } // rows stored together
    static constexpr std::size_t group_bytes(std::size_t dim) noexcept { return dim; }

    static float number(std::byte code) noexcept {
        return static_cast<float>(static_cast<std::int8_t>(code)) / 64.0F;
    }
    using row = std::span<const float>;
    /// @return false, with nothing written, if a number, or NaN, does not fit; its row stays in f16
    bool encode(row from, std::size_t, std::span<std::byte> to, simd::isa) const noexcept {
        if (!std::ranges::all_of(from, [](float x) { return std::abs(x) < 1.98F; })) {
            return false;
        }
        const auto code = [](float x) { return static_cast<std::byte>(std::lround(64 * x)); };
        std::ranges::transform(from, to.begin(), code);
        return true;
    }
    using codes = std::span<const std::byte>;
    void decode(codes from, std::size_t, std::span<float> to, simd::isa) const noexcept {
        std::ranges::transform(from, to.begin(), number);
    }
};
static_assert(Codec<byte_codec>);

/// out[query, row] = query . row, without decoding first.
void byte_dots(const row_kernels&,
               const tile_rows& rows,
               const float* queries,
               std::size_t num_queries,
               std::size_t dim,
               float* out,
               float* /*scratch*/) noexcept {
    for (std::size_t i = 0; i < num_queries * rows.count; ++i) {
        const std::size_t q = i / rows.count, t = i % rows.count;
        float& sum = out[q * attend_tile + t] = 0.0F;
        for (std::size_t c = 0; c < dim; ++c) {
            sum += queries[q * dim + c] * byte_codec::number(rows.group[t][c]);
        }
    }
}
/// Replaces what it likes in a table that does everything with decode() already.
template <>
struct kvcrush::row_kernels_for<byte_codec> {
    static void take(const byte_codec&, arithmetic, row_kernels& table) { table.dots = byte_dots; }
};

int main() {
    const model_shape model{.num_layers = 1, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 64};
    std::vector<float> keys(600 * 2 * 64), exact(4 * 64), found(4 * 64);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = random_unit(1, 0, i); // and values, and a query
    }
    kv_cache full(model), small(model, {.rows = {.tiers = {{byte_codec{}, byte_codec{}}}}});
    const bool fits = full.append(0, keys, keys) && small.append(0, keys, keys);
    const std::size_t bytes = small.compress().bytes_held;
    full.attend(0, std::span(keys).first(4 * 64), exact);
    small.attend(0, std::span(keys).first(4 * 64), found);
    float off = 0.0F;
    for (std::size_t i = 0; i < found.size(); ++i) {
        off = (std::max)(off, std::abs(found[i] - exact[i]));
    }
    std::printf("%zu bytes, f16 %zu, attention off by %g\n", bytes, 4 * keys.size(), double{off});
    const bool own_kernel = any_codec(byte_codec{}).kernels().dots == byte_dots;
    return fits && own_kernel && 10 * bytes < 21 * keys.size() && off < 0.002F ? 0 : 1;
}
