// SPDX-License-Identifier: Apache-2.0
// encode/*: rows leave the dense window. A "token" of these rows is one row of one head; rows and codes stay in L2.
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/core/random.hpp>

#include "bars.hpp"
#include "baseline_quantise.hpp"
#include "ggml_rival.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_rows = 1024;

/// Rows with the spread that keys and values have, more or less: sums of three uniform numbers.
class dense_rows {
public:
    explicit dense_rows(std::size_t dim) : dim_(dim), values_(num_rows * dim) {
        for (std::size_t i = 0; i < values_.size(); ++i) {
            values_.data()[i] =
                random_unit(81, 0, i) + random_unit(81, 1, i) + random_unit(81, 2, i) - 1.5F;
        }
    }
    [[nodiscard]] std::size_t dim() const noexcept { return dim_; }
    [[nodiscard]] std::span<const float> all() const noexcept { return values_.span(); }
    [[nodiscard]] std::span<const float> group(std::size_t first,
                                               std::size_t count) const noexcept {
        return values_.span().subspan(first * dim_, count * dim_);
    }

private:
    std::size_t dim_;
    huge_buffer<float> values_;
};

/// A codec at work, and what it made of the rows.
template <typename C>
class encoder {
public:
    encoder(const C& codec, const dense_rows& rows)
        : codec_(codec),
          rows_(rows),
          group_bytes_(codec.group_bytes(rows.dim())),
          bytes_(num_rows / codec.group_size() * group_bytes_) {}

    void operator()() noexcept {
        const std::size_t size = codec_.group_size();
        for (std::size_t g = 0; g < num_rows / size; ++g) {
            // Finite by construction.
            static_cast<void>(codec_.encode(rows_.group(g * size, size),
                                            rows_.dim(),
                                            bytes_.span().subspan(g * group_bytes_, group_bytes_)));
        }
    }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_.span(); }
    [[nodiscard]] std::span<const std::byte> group(std::size_t g) const noexcept {
        return bytes().subspan(g * group_bytes_, group_bytes_);
    }

private:
    C codec_;
    const dense_rows& rows_;
    std::size_t group_bytes_;
    huge_buffer<std::byte> bytes_;
};

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

/// Whether both decode to about the same: kernels that round ties in other ways differ by a code now and then.
template <typename C>
bool like_bytes(const C& codec,
                std::span<const std::byte> a,
                std::span<const std::byte> b,
                std::size_t dim,
                float tolerance) {
    const std::size_t size = codec.group_bytes(dim);
    std::vector<float> x(dim);
    std::vector<float> y(dim);
    for (std::size_t at = 0; at < a.size(); at += size) {
        codec.decode(a.subspan(at, size), dim, x);
        codec.decode(b.subspan(at, size), dim, y);
        for (std::size_t c = 0; c < dim; ++c) {
            if (!(std::fabs(x[c] - y[c]) <= tolerance)) {
                return false;
            }
        }
    }
    return true;
}

/// Whether rows are stored as well as eight bits a channel can.
bool stored_well(const encoder<int8_row_codec>& int8, const dense_rows& rows) {
    std::vector<float> decoded(rows.dim());
    for (std::size_t r = 0; r < num_rows; ++r) {
        int8_row_codec{}.decode(int8.group(r), rows.dim(), decoded);
        const auto row = rows.group(r, 1);
        for (std::size_t c = 0; c < rows.dim(); ++c) {
            if (!(std::fabs(decoded[c] - row[c]) <= 0.501F * 1.5F / 127.0F)) {
                return false;
            }
        }
    }
    return true;
}

void measure_dim(session& run, std::size_t dim) {
    const std::string where = fmt::format("dim:{}/rows:{}", dim, num_rows);
    run.progress("encode " + where);
    const dense_rows rows(dim);
    const auto values = rows.all();
    encoder int8(int8_row_codec{}, rows);
    encoder q8_0(q8_0_codec{}, rows);
    encoder q4_0(q4_0_codec{}, rows);
    encoder hadamard(hadamard_codec<q4_0_codec>{}, rows);
    encoder turbo4(turbo_quant_codec{.bits = 4}, rows);
    encoder turbo3(turbo_quant_codec{.bits = 3}, rows);
    encoder kivi_keys(kivi_key_codec{}, rows);
    encoder kivi_values(kivi_value_codec{}, rows);
    huge_buffer<std::byte> plain_q8(q8_0.bytes().size());
    huge_buffer<std::byte> plain_q4(q4_0.bytes().size());
    huge_buffer<std::byte> ggml_q8(q8_0.bytes().size());
    huge_buffer<std::byte> ggml_q4(q4_0.bytes().size());

    round_robin turns(run.limits);
    turns.add("int8", [&](std::size_t) { int8(); });
    turns.add("q8_0", [&](std::size_t) { q8_0(); });
    turns.add("q4_0", [&](std::size_t) { q4_0(); });
    turns.add("hadamard(q4_0)", [&](std::size_t) { hadamard(); });
    turns.add("turbo_quant/4", [&](std::size_t) { turbo4(); });
    turns.add("turbo_quant/3", [&](std::size_t) { turbo3(); });
    turns.add("kivi_key", [&](std::size_t) { kivi_keys(); });
    turns.add("kivi_value", [&](std::size_t) { kivi_values(); });
    turns.add("plain q8_0", [&](std::size_t) {
        quantise_q8_0_plainly(values.data(), values.size(), plain_q8.data());
    });
    turns.add("plain q4_0", [&](std::size_t) {
        quantise_q4_0_plainly(values.data(), values.size(), plain_q4.data());
    });
    if (has_ggml()) {
        turns.add("ggml q8_0", [&](std::size_t) {
            ggml_quantise(ggml_rows::q8_0, values.data(), values.size(), ggml_q8.data());
        });
        turns.add("ggml q4_0", [&](std::size_t) {
            ggml_quantise(ggml_rows::q4_0, values.data(), values.size(), ggml_q4.data());
        });
    }
    const timings times = turns.run();

    const auto compare = [&](const std::string& variant,
                             const std::string& rival,
                             double bar,
                             bool right,
                             const std::string& suffix) {
        row one{.name = fmt::format("encode/{}/{}{}", variant, where, suffix)};
        one.has_bar = bar > 0.0;
        one.bar = bar;
        one.variant = variant;
        const bool is_ggml = rival.starts_with("ggml");
        const std::string format = rival.substr(rival.find(' ') + 1);
        one.baseline = is_ggml ? fmt::format("the {} quantiser of {}'s CPU backend",
                                             format,
                                             has_ggml() ? name_of_ggml() : "ggml")
                               : fmt::format("ggml's reference algorithm of {}, -O3", format);
        if (!times.has(rival)) {
            run.rows.add_void(std::move(one), "ggml was not built");
            return;
        }
        set_times(one, times, num_rows);
        one.value = times.ratio(rival, variant);
        one.spread = times.spread(rival, variant);
        if (right) {
            run.rows.add(std::move(one));
        } else {
            run.rows.add_void(std::move(one), "what they store differs");
        }
    };

    // Steps of the formats on these rows, whose magnitudes stay below 1.5.
    const bool int8_right = stored_well(int8, rows);
    const bool plain_q8_right = same_bytes(q8_0.bytes(), plain_q8.span());
    const bool plain_q4_right = same_bytes(q4_0.bytes(), plain_q4.span());
    compare("int8", "plain q8_0", 2.0, int8_right && plain_q8_right, "");
    compare("q4_0", "plain q4_0", 5.0, plain_q4_right, "");
    const bool ggml_q8_right = like_bytes(q8_0_codec{}, q8_0.bytes(), ggml_q8.span(), dim, 0.0119F);
    const bool ggml_q4_right = like_bytes(q4_0_codec{}, q4_0.bytes(), ggml_q4.span(), dim, 1e-6F);
    compare("int8", "ggml q8_0", 2.0, int8_right && ggml_q8_right, "/ggml");
    compare("q4_0", "ggml q4_0", 5.0, ggml_q4_right, "/ggml");
    compare("q8_0", "plain q8_0", 0.0, plain_q8_right, "");
    for (const char* variant :
         {"hadamard(q4_0)", "turbo_quant/4", "turbo_quant/3", "kivi_key", "kivi_value"}) {
        compare(variant, "plain q4_0", 0.0, plain_q4_right, "");
    }
}

} // namespace

void measure_encode(session& run) {
    measure_dim(run, 128);
    measure_dim(run, 64);
}

} // namespace kvcrush::bench
