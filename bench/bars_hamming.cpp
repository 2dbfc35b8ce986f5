// SPDX-License-Identifier: Apache-2.0
// hamming/probe, native, runtime_width, anchors4, avx2 at each width, codes and distances in L2, L3 or DRAM;
// hamming/naive, faiss, native at each width and number of codes. Distances are u16 unless a row says otherwise.
#include <kvcrush/config.hpp>
#include <kvcrush/simd/hamming.hpp>
#include <kvcrush/simd/hamming_anchors.hpp>
#include <kvcrush/simd/isa.hpp>

#include "bandwidth_probe.hpp"
#include "bars.hpp"
#include "baseline_hamming.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <unistd.h>
#include <vector>

namespace kvcrush::bench {
namespace {

#ifdef __clang__
constexpr const char* compiler = "clang " __clang_version__;
#else
constexpr const char* compiler = "g++ " __VERSION__;
#endif

/// Number of anchors that hamming/anchors4 compares with one.
constexpr std::size_t num_anchors = 4;

/// The functions for codes of one width, over untyped memory.
struct width {
    std::size_t bits;
    void (*naive)(const void* query, const void* codes, std::size_t count, std::uint16_t* out);
    void (*ours)(std::size_t words,
                 simd::isa rung,
                 const void* query,
                 const void* codes,
                 std::size_t count,
                 std::uint16_t* out);
    void (*ours_fixed)(const void* query, const void* codes, std::size_t count, std::uint16_t* out);
    /// `anchors` codes at once; distances are bytes up to 255 bits.
    void (*ours_anchors)(std::size_t words,
                         std::size_t anchors,
                         const void* queries,
                         const void* codes,
                         std::size_t count,
                         void* out);

    [[nodiscard]] std::size_t code_bytes() const noexcept { return bits / 8; }
    /// Elements of a code, as the library counts them.
    [[nodiscard]] std::size_t words() const noexcept { return bits < 64 ? 1 : bits / 64; }
};

template <typename Code, std::size_t Words>
struct functions {
    static void naive(const void* query, const void* codes, std::size_t count, std::uint16_t* out) {
        const auto* const q = static_cast<const Code*>(query);
        const auto* const c = static_cast<const Code*>(codes);
        if constexpr (sizeof(Code) == 1) {
            naive_hamming_8(q, c, count, out);
        } else if constexpr (sizeof(Code) == 2) {
            naive_hamming_16(q, c, count, out);
        } else if constexpr (sizeof(Code) == 4) {
            naive_hamming_32(q, c, count, out);
        } else {
            naive_hamming_64(q, Words, c, count, out);
        }
    }

    static void ours(std::size_t words,
                     simd::isa rung,
                     const void* query,
                     const void* codes,
                     std::size_t count,
                     std::uint16_t* out) {
        simd::hamming_many(std::span(static_cast<const Code*>(query), words),
                           std::span(static_cast<const Code*>(codes), words * count),
                           std::span(out, count),
                           rung);
    }

    /// The whole kernel in one function whose number of words is a constant.
#if KVCRUSH_X86_DISPATCH
    [[gnu::flatten, gnu::noinline]] KVCRUSH_TARGET_AVX512
#endif
        static void
        ours_fixed(const void* query, const void* codes, std::size_t count, std::uint16_t* out) {
        const simd::detail::hamming_args<Code, std::uint16_t> args{
            static_cast<const Code*>(query), static_cast<const Code*>(codes), Words, count, out};
#if KVCRUSH_X86_DISPATCH
        simd::detail::hamming_many_avx512(args);
#else
        simd::detail::hamming_many_scalar(args);
#endif
    }

    static void ours_anchors(std::size_t words,
                             std::size_t anchors,
                             const void* queries,
                             const void* codes,
                             std::size_t count,
                             void* out) {
        using out_type =
            std::conditional_t<8 * sizeof(Code) * Words <= 255, std::uint8_t, std::uint16_t>;
        const auto all = std::span(static_cast<const Code*>(codes), words * count);
        const auto distances = std::span(static_cast<out_type*>(out), anchors * count);
        const auto query = std::span(static_cast<const Code*>(queries), words * anchors);
        if (anchors == 1) {
            simd::hamming_many(query, all, distances);
        } else {
            simd::hamming_many_anchors(query, anchors, all, distances);
        }
    }

    static constexpr width table() {
        return {8 * sizeof(Code) * Words, naive, ours, ours_fixed, ours_anchors};
    }
};

template <std::size_t Words>
constexpr width words_of_64 = functions<std::uint64_t, Words>::table();

const std::vector<width>& widths() {
    static const std::vector<width> all{functions<std::uint8_t, 1>::table(),
                                        functions<std::uint16_t, 1>::table(),
                                        functions<std::uint32_t, 1>::table(),
                                        words_of_64<1>,
                                        words_of_64<2>,
                                        words_of_64<3>,
                                        words_of_64<4>,
                                        words_of_64<5>,
                                        words_of_64<8>,
                                        words_of_64<9>,
                                        words_of_64<16>,
                                        words_of_64<32>,
                                        words_of_64<64>};
    return all;
}

/// Where the codes and their distances lie.
struct level {
    const char* name;
    std::size_t bytes; ///< of both together

    /// As many codes as fit, whole lines of both.
    [[nodiscard]] std::size_t num_codes(const width& of) const noexcept {
        constexpr std::size_t step = 128;
        return (std::max)(bytes / (of.code_bytes() + sizeof(std::uint16_t)) / step,
                          std::size_t{1}) *
               step;
    }
};

/// Half of the L2 cache, if the machine says how large it is; a quarter of the usual 32 MB of an L3 cache; more than
/// any cache.
std::vector<level> levels(bool full) {
    std::size_t l2_bytes = std::size_t{512} << 10;
#ifdef _SC_LEVEL2_CACHE_SIZE
    if (const long found = sysconf(_SC_LEVEL2_CACHE_SIZE); found > 0) {
        l2_bytes = (std::min)(l2_bytes, static_cast<std::size_t>(found) / 2);
    }
#endif
    std::vector<level> all{{"L2", l2_bytes}, {"L3", std::size_t{8} << 20}};
    if (full) {
        all.push_back({"DRAM", std::size_t{256} << 20});
    }
    return all;
}

/// Memory for every width: what differs between widths is not where their pages are.
struct memory {
    memory(std::size_t code_bytes, std::size_t num_codes)
        : queries(num_anchors * 512),
          codes(code_bytes),
          out(num_anchors * num_codes),
          expected(num_codes) {
        queries.fill_random(2);
        codes.fill_random(1);
    }

    huge_buffer<std::byte> queries;
    huge_buffer<std::byte> codes;
    huge_buffer<std::uint16_t> out;
    huge_buffer<std::uint16_t> expected;
};

/// One width, one number of codes.
class hamming_group {
public:
    hamming_group(session& run, memory& data, const width& of, std::size_t count, std::string where)
        : run_(run), data_(data), of_(of), count_(count), where_(std::move(where)) {
        run_.progress(fmt::format("hamming bits:{} {}", of.bits, where_));
        of_.naive(data_.queries.data(), data_.codes.data(), count_, data_.expected.data());
    }

    /// Share of the bandwidth, and everything that is compared with our own kernels.
    void measure_level(bool in_cache) {
        round_robin turns(run_.limits);
        const bool native = add_native(turns);
        const bool popcnt = add_fixed_loop(turns, "popcnt", popcnt_hamming);
        const bool avx2 = simd::best() >= simd::isa::avx2;
        if (run_.avx512) {
            add_ours(turns, "avx512", simd::isa::avx512);
            add(turns, "fixed", [this](std::uint16_t* out) {
                of_.ours_fixed(data_.queries.data(), data_.codes.data(), count_, out);
            });
            turns.add("probe", [this](std::size_t) {
                probed_ ^= probe_read_write(data_.codes.data(),
                                            count_ * of_.code_bytes(),
                                            reinterpret_cast<std::byte*>(data_.out.data()),
                                            count_ * sizeof(std::uint16_t));
            });
            add_anchors(turns, "anchor1", 1);
            add_anchors(turns, "anchors4", num_anchors);
        }
        if (avx2) {
            add_ours(turns, "avx2", simd::isa::avx2);
        }
        const timings times = turns.run();

        if (run_.avx512) {
            row probe = make_row("probe", "avx512", better::higher);
            probe.bar = of_.bits == 1024 && where_ == "L2" ? 0.8 : 0.9;
            probe.baseline = "reading the codes and writing the distances";
            report_ratio(times, std::move(probe), "probe", "avx512");

            report_native(times, native);

            row runtime = make_row("runtime_width", "avx512", better::lower);
            runtime.bar = 1.1;
            runtime.baseline = "the same kernel, number of words known to the compiler";
            report_ratio(times, std::move(runtime), "avx512", "fixed");

            row four = make_row("anchors4", "anchors4", better::lower);
            four.bar = 2.2;
            const std::size_t distance_bytes = of_.bits <= 255 ? 1 : 2;
            four.baseline = fmt::format("one anchor, u{} distances", 8 * distance_bytes);
            const double bytes =
                static_cast<double>(of_.code_bytes() + num_anchors * distance_bytes) /
                static_cast<double>(of_.code_bytes() + distance_bytes);
            if (bytes > four.bar) {
                four.note = fmt::format("four anchors move {:.1f} times the bytes", bytes);
            }
            report_ratio(times, std::move(four), "anchors4", "anchor1");
        }
        if (avx2) {
            row rung = make_row("avx2", "avx2", better::higher);
            // What the AVX2 kernel gains is arithmetic: DRAM hides it.
            rung.bar = !in_cache        ? 1.0
                       : of_.bits <= 16 ? 8.0
                       : of_.bits == 32 ? 2.5
                       : of_.bits == 64 ? 1.6
                                        : 1.0;
            rung.baseline = fmt::format("{} -O3 -mpopcnt, fixed width", compiler);
            if (popcnt) {
                report_ratio(times, std::move(rung), "popcnt", "avx2");
            } else {
                run_.rows.add_void(std::move(rung), wrong_);
            }
        }
    }

    /// What users of other code gain, at the number of codes they have.
    void measure_rivals() {
        if (!run_.avx512) {
            return;
        }
        const bool naive_bar = of_.bits <= 256 && count_ == 32768;
        const bool faiss_bar =
            (of_.bits == 64 || of_.bits == 128 || of_.bits == 256) && count_ <= 131072;
        round_robin turns(run_.limits);
        const bool native = add_native(turns);
        add_ours(turns, "avx512", simd::isa::avx512);
        add_ours(turns, "avx2", simd::isa::avx2);
        add_ours(turns, "scalar", simd::isa::scalar);
        add_fixed_loop(turns, "popcnt", popcnt_hamming);
        add(turns, "naive", [this](std::uint16_t* out) {
            of_.naive(data_.queries.data(), data_.codes.data(), count_, out);
        });
        huge_buffer<std::int32_t> faiss_out(faiss_bar ? count_ : 1);
        std::string faiss_problem;
        if (faiss_bar) {
            faiss_problem = try_faiss(faiss_out.data());
            if (faiss_problem.empty()) {
                turns.add("faiss", [&](std::size_t) { call_faiss(faiss_out.data()); });
            }
        }
        const timings times = turns.run();

        report_native(times, native);
        if (naive_bar) {
            row one = make_row("naive", "avx512", better::higher);
            one.bar = 25.0;
            one.baseline = fmt::format("{} -O3, a popcount per word", compiler);
            report_ratio(times, std::move(one), "naive", "avx512");
        }
        if (faiss_bar) {
            row one = make_row("faiss", "avx512", better::higher);
            one.bar = 20.0;
            one.baseline = faiss_version() + " hammings, i32 distances";
            if (faiss_problem.empty()) {
                report_ratio(times, std::move(one), "faiss", "avx512");
            } else {
                run_.rows.add_void(std::move(one), faiss_problem);
            }
        }
    }

private:
    [[nodiscard]] row make_row(const char* bar, const char* variant, better side) const {
        row one{.name = fmt::format("hamming/{}/bits:{}/{}", bar, of_.bits, where_)};
        one.side = side;
        one.tokens = count_;
        one.bits = of_.bits;
        one.variant = variant;
        return one;
    }

    void report_ratio(const timings& times, row one, const char* over, const char* under) {
        one.value = times.ratio(over, under);
        one.spread = times.spread(over, under);
        set_times(one, times, count_);
        run_.rows.add(std::move(one));
    }

    void report_native(const timings& times, bool measured) {
        row one = make_row("native", "avx512", better::lower);
        one.bar = of_.bits == 256 ? 0.87 : of_.bits == 1024 ? 0.62 : 1.15;
        one.baseline = fmt::format("{} -O3 -march=native, fixed width", compiler);
        if (measured) {
            report_ratio(times, std::move(one), "avx512", "native");
        } else {
            run_.rows.add_void(std::move(one), wrong_);
        }
    }

    template <typename Kernel>
    void add(round_robin& turns, const char* name, Kernel kernel) {
        turns.add(name, [this, kernel](std::size_t) { kernel(data_.out.data()); });
    }

    void add_ours(round_robin& turns, const char* name, simd::isa rung) {
        if (rung > simd::best()) {
            return;
        }
        add(turns, name, [this, rung](std::uint16_t* out) {
            of_.ours(of_.words(), rung, data_.queries.data(), data_.codes.data(), count_, out);
        });
    }

    void add_anchors(round_robin& turns, const char* name, std::size_t anchors) {
        add(turns, name, [this, anchors](std::uint16_t* out) {
            of_.ours_anchors(
                of_.words(), anchors, data_.queries.data(), data_.codes.data(), count_, out);
        });
    }

    bool add_native(round_robin& turns) {
#if KVCRUSH_BENCH_NATIVE
        return add_fixed_loop(turns, "native", native_hamming);
#else
        static_cast<void>(turns);
        wrong_ = "this compiler knows no -march=native";
        return false;
#endif
    }

    bool add_fixed_loop(round_robin& turns, const char* name, fixed_width_hamming loop) {
        std::memset(data_.out.data(), 0xFF, count_ * sizeof(std::uint16_t));
        if (!loop(of_.bits, data_.queries.data(), data_.codes.data(), count_, data_.out.data()) ||
            std::memcmp(data_.out.data(), data_.expected.data(), count_ * sizeof(std::uint16_t)) !=
                0) {
            wrong_ = fmt::format("the {} loop gives wrong distances", name);
            return false;
        }
        add(turns, name, [this, loop](std::uint16_t* out) {
            loop(of_.bits, data_.queries.data(), data_.codes.data(), count_, out);
        });
        return true;
    }

    bool call_faiss(std::int32_t* out) const {
        return faiss_hamming(
            data_.queries.data(), data_.codes.data(), count_, of_.code_bytes(), out);
    }

    /// Why it cannot be compared with FAISS, or nothing.
    std::string try_faiss(std::int32_t* out) const {
        if (!call_faiss(out)) {
            return "FAISS was not found when this was built (Debian: libfaiss-dev)";
        }
        for (std::size_t i = 0; i < count_; ++i) {
            if (out[i] != static_cast<std::int32_t>(data_.expected.data()[i])) {
                return faiss_version() + " gives wrong distances";
            }
        }
        return {};
    }

    session& run_;
    memory& data_;
    const width& of_;
    std::size_t count_;
    std::string where_;
    std::string wrong_;
    std::uint64_t probed_ = 0;
};

} // namespace

void measure_hamming(session& run) {
    const std::vector<level> where = levels(run.full);
    const std::vector<std::size_t> counts =
        run.full ? std::vector<std::size_t>{4096, 32768, 131072, std::size_t{1} << 20}
                 : std::vector<std::size_t>{4096, 32768};
    const std::size_t largest = where.back().bytes;
    memory data((std::max)(largest, counts.back() * 512) + 4096,
                (std::max)(largest / 3, counts.back()) + 4096);

    if (!run.avx512) {
        run.rows.skip("hamming/{probe,native,naive,faiss,runtime_width,anchors4}",
                      "they need AVX-512 with VPOPCNTDQ and BITALG");
    }
    for (const width& of : widths()) {
        for (const level& one : where) {
            hamming_group(run, data, of, one.num_codes(of), one.name)
                .measure_level(std::string_view(one.name) != "DRAM");
        }
        for (const std::size_t count : counts) {
            hamming_group(run, data, of, count, fmt::format("tokens:{}", count)).measure_rivals();
        }
    }
}

} // namespace kvcrush::bench
