// SPDX-License-Identifier: Apache-2.0
// See attend/detail/float_kernels.hpp; included by simd/detail/rungs/each.inl. Two rows for four queries at a time.

/// Reads rows that lie so, as floats.
template <typename Lying>
struct float_rows;

template <Element T>
struct float_rows<elements<T>> {
    static constexpr bool has_gain = false;
    /// As many channels as lanes, from c on.
    KVCRUSH_PART static ops::floats load(const std::byte* row, std::size_t c) noexcept {
        const std::byte* const from = row + c * sizeof(T);
        if constexpr (std::is_same_v<T, float>) {
            return ops::load_floats(reinterpret_cast<const float*>(from));
        } else if constexpr (std::is_same_v<T, f16>) {
            return ops::load_halves(from);
        } else {
            return ops::load_bfloats(from);
        }
    }
    /// Channels c ... c + rest - 1, less than lanes, then zeros.
    KVCRUSH_PART static ops::floats
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        T kept[ops::width / 4] = {};
        std::memcpy(kept, row + c * sizeof(T), rest * sizeof(T));
        return load(reinterpret_cast<const std::byte*>(kept), 0);
    }
};

/// The scale is left to logits and weights.
template <>
struct float_rows<scaled_bytes> {
    static constexpr bool has_gain = true;
    KVCRUSH_PART static float gain(const std::byte* row) noexcept {
        float scale = 0.0F;
        std::memcpy(&scale, row, sizeof scale);
        return scale;
    }
    KVCRUSH_PART static ops::floats load(const std::byte* row, std::size_t c) noexcept {
        return ops::load_signed(row + sizeof(float) + c);
    }
    KVCRUSH_PART static ops::floats
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        std::byte kept[ops::width / 4] = {};
        std::memcpy(kept, row + sizeof(float) + c, rest);
        return ops::load_signed(kept);
    }
};

/// Rows t and t + 1 with sizeof...(Is) / 2 queries.
template <typename Rows, std::size_t... Is>
KVCRUSH_PART void float_dots_block(const std::byte* const* rows,
                                   const float* queries,
                                   std::size_t dim,
                                   float* out,
                                   std::index_sequence<Is...>) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    const ops::floats zero = ops::all_floats(0.0F);
    ops::floats sums[8] = {zero, zero, zero, zero, zero, zero, zero, zero};
    const std::byte* const r0 = rows[0];
    const std::byte* const r1 = rows[1];
    std::size_t c = 0;
    for (; c + lanes <= dim; c += lanes) {
        const ops::floats k[2] = {Rows::load(r0, c), Rows::load(r1, c)};
        ((sums[Is] =
              ops::multiply_add(k[Is % 2], ops::load_floats(queries + Is / 2 * dim + c), sums[Is])),
         ...);
    }
    if (c < dim) {
        const std::size_t rest = dim - c;
        const ops::floats k[2] = {Rows::load_first(r0, c, rest), Rows::load_first(r1, c, rest)};
        ((sums[Is] = ops::multiply_add(
              k[Is % 2], ops::load_first(queries + Is / 2 * dim + c, rest, zero), sums[Is])),
         ...);
    }
    float logits[8];
    ops::add_lanes(sums, logits);
    float gains[2] = {1.0F, 1.0F};
    if constexpr (Rows::has_gain) {
        gains[0] = Rows::gain(r0);
        gains[1] = Rows::gain(r1);
    }
    ((out[Is / 2 * attend_tile + Is % 2] = gains[Is % 2] * logits[Is]), ...);
}

template <typename Rows, std::size_t Queries>
KVCRUSH_KERNEL void
float_dots_tile(const tile_rows& rows, const float* queries, std::size_t dim, float* out) noexcept {
    for (std::size_t t = 0; t < rows.count; t += 2) {
        float_dots_block<Rows>(
            rows.group + t, queries, dim, out + t, std::make_index_sequence<2 * Queries>());
    }
}

/// out[q * attend_tile + t] = query q . row t
template <typename Lying>
KVCRUSH_KERNEL void float_dots(const tile_rows& rows,
                               const float* queries,
                               std::size_t num_queries,
                               std::size_t dim,
                               float* out) noexcept {
    using Rows = float_rows<Lying>;
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = queries + q * dim;
        float* const to = out + q * attend_tile;
        switch (num_queries - q) {
        case 1: float_dots_tile<Rows, 1>(rows, from, dim, to); break;
        case 2: float_dots_tile<Rows, 2>(rows, from, dim, to); break;
        case 3: float_dots_tile<Rows, 3>(rows, from, dim, to); break;
        default: float_dots_tile<Rows, 4>(rows, from, dim, to); break;
        }
    }
}

/// Two registers of channels from c on, sizeof...(Is) / 2 queries.
template <typename Rows, std::size_t... Is>
KVCRUSH_PART void float_sums_block(const tile_rows& rows,
                                   const float* weights,
                                   std::size_t c,
                                   std::size_t dim,
                                   float* out,
                                   std::index_sequence<Is...>) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    ops::floats sums[] = {ops::load_floats(out + Is / 2 * dim + c + Is % 2 * lanes)...};
    for (std::size_t t = 0; t < rows.count; ++t) {
        const ops::floats v[2] = {Rows::load(rows.group[t], c),
                                  Rows::load(rows.group[t], c + lanes)};
        ((sums[Is] = ops::multiply_add(
              v[Is % 2], ops::all_floats(weights[Is / 2 * attend_tile + t]), sums[Is])),
         ...);
    }
    (ops::store_floats(out + Is / 2 * dim + c + Is % 2 * lanes, sums[Is]), ...);
}

/// At most one register of channels, those from c on, sizeof...(Is) queries.
template <typename Rows, std::size_t... Is>
KVCRUSH_PART void float_sums_rest(const tile_rows& rows,
                                  const float* weights,
                                  std::size_t c,
                                  std::size_t dim,
                                  float* out,
                                  std::index_sequence<Is...>) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    const std::size_t rest = dim - c < lanes ? dim - c : lanes;
    ops::floats sums[] = {ops::load_first(out + Is * dim + c, rest, ops::all_floats(0.0F))...};
    for (std::size_t t = 0; t < rows.count; ++t) {
        const ops::floats v =
            rest == lanes ? Rows::load(rows.group[t], c) : Rows::load_first(rows.group[t], c, rest);
        ((sums[Is] =
              ops::multiply_add(v, ops::all_floats(weights[Is * attend_tile + t]), sums[Is])),
         ...);
    }
    (ops::store_first(out + Is * dim + c, rest, sums[Is]), ...);
}

template <typename Rows, std::size_t Queries>
KVCRUSH_KERNEL void
float_sums_tile(const tile_rows& rows, const float* weights, std::size_t dim, float* out) noexcept {
    constexpr std::size_t lanes = ops::width / 4;
    float scaled[4 * attend_tile];
    if constexpr (Rows::has_gain) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            const float gain = Rows::gain(rows.group[t]);
            for (std::size_t q = 0; q < Queries; ++q) {
                scaled[q * attend_tile + t] = gain * weights[q * attend_tile + t];
            }
        }
        weights = scaled;
    }
    std::size_t c = 0;
    for (; c + 2 * lanes <= dim; c += 2 * lanes) {
        float_sums_block<Rows>(rows, weights, c, dim, out, std::make_index_sequence<2 * Queries>());
    }
    for (; c < dim; c += lanes) {
        float_sums_rest<Rows>(rows, weights, c, dim, out, std::make_index_sequence<Queries>());
    }
}

/// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t
template <typename Lying>
KVCRUSH_KERNEL void float_sums(const tile_rows& rows,
                               const float* weights,
                               std::size_t num_queries,
                               std::size_t dim,
                               float* sums) noexcept {
    using Rows = float_rows<Lying>;
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = weights + q * attend_tile;
        float* const to = sums + q * dim;
        switch (num_queries - q) {
        case 1: float_sums_tile<Rows, 1>(rows, from, dim, to); break;
        case 2: float_sums_tile<Rows, 2>(rows, from, dim, to); break;
        case 3: float_sums_tile<Rows, 3>(rows, from, dim, to); break;
        default: float_sums_tile<Rows, 4>(rows, from, dim, to); break;
        }
    }
}

/// As row_kernels wants them.
template <typename Lying>
KVCRUSH_KERNEL void dots_as_stored(const row_kernels&,
                                   const tile_rows& rows,
                                   const float* prepared,
                                   std::size_t num_queries,
                                   std::size_t dim,
                                   float* out,
                                   float*) noexcept {
    float_dots<Lying>(rows, prepared, num_queries, dim, out);
}
template <typename Lying>
KVCRUSH_KERNEL void accumulate_as_stored(const row_kernels&,
                                         const tile_rows& rows,
                                         const float* weights,
                                         std::size_t num_queries,
                                         std::size_t dim,
                                         float* sums,
                                         float*) noexcept {
    float_sums<Lying>(rows, weights, num_queries, dim, sums);
}
template <typename Lying>
void take_float_kernels(row_kernels& table) noexcept {
    table.dots = dots_as_stored<Lying>;
    table.accumulate = accumulate_as_stored<Lying>;
}
