// SPDX-License-Identifier: Apache-2.0
// tiles/*: attention over tiles of codes, against f16 rows and against the same codes row by row, on every rung.
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/simd/isa.hpp>

#include "attend_layer.hpp"
#include "bars.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <string>

namespace kvcrush::bench {
namespace {

struct promise {
    std::size_t bits;
    double over_f16;
    double over_rows;
};

void measure_rung(session& run, const layer_shape& shape, simd::isa rung) {
    constexpr std::size_t tokens = 8192;
    const std::string where =
        fmt::format("{}/{}/tokens:{}", simd::name_of(rung), shape.name(), tokens);
    run.progress("tiles " + where);
    const bool wide = rung == simd::isa::avx512;
    const promise promises[] = {{2, 3.0, 0.0},
                                {3, 3.0, 0.0},
                                {4, wide ? 3.3 : 4.0, wide ? 1.7 : 4.5},
                                {5, 3.0, 0.0},
                                {8, 2.4, 0.0}};
    constexpr dense_codec<f16> f16_rows{};
    const stored_layer f16_layer(f16_rows, shape, tokens, kernels_of(f16_rows, rung));
    step decode(shape);
    for (const promise& one : promises) {
        const any_codec codec = one.bits == 8 ? any_codec(int8_row_codec{})
                                              : any_codec(codebook_row_codec{.bits = one.bits});
        const stored_layer rows(codec, shape, tokens, codec.kernels(arithmetic::integer, rung));
        const stored_layer tiles(rows, codec, shape, tokens, rung);
        round_robin turns(run.limits);
        turns.add("f16", [&](std::size_t) { decode(f16_layer, 1, serial_executor{}, rung); });
        turns.add("rows", [&](std::size_t) { decode(rows, 1, serial_executor{}, rung); });
        turns.add("tiles", [&](std::size_t) { decode(tiles, 1, serial_executor{}, rung); });
        const timings times = turns.run();
        for (const bool over_f16 : {true, false}) {
            row line{.name =
                         fmt::format("tiles{}/{}/{}", one.bits, over_f16 ? "f16" : "rows", where)};
            const double bar = over_f16 ? one.over_f16 : one.over_rows;
            line.has_bar = bar > 0.0;
            line.bar = bar;
            set_times(line, times, tokens);
            line.variant = "tiles";
            line.bits = one.bits;
            const char* const rival = over_f16 ? "f16" : "rows";
            line.value = times.ratio(rival, "tiles");
            line.spread = times.spread(rival, "tiles");
            line.baseline = over_f16 ? "own f16 rows" : "the same codes row by row";
            run.rows.add(std::move(line));
        }
    }
}

} // namespace

void measure_tiles(session& run) {
    for (const simd::isa rung :
         {simd::isa::avx512, simd::isa::avx2, simd::isa::neon_dotprod, simd::isa::neon}) {
        if (simd::usable(rung) == rung) {
            measure_rung(run, llama, rung);
            if (run.full) {
                measure_rung(run, small_llama, rung);
            }
        }
    }
}

} // namespace kvcrush::bench
