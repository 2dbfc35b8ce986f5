// SPDX-License-Identifier: Apache-2.0
/// @file
/// Test fixture that runs each test once per rung; a rung that the CPU lacks shows up as skipped.
#pragma once

#include <kvcrush/simd/isa.hpp>

#include <gtest/gtest.h>

#include <string>

namespace kvcrush::reference {

class every_rung : public testing::TestWithParam<simd::isa> {
protected:
    void SetUp() override {
        if (simd::usable(GetParam()) != GetParam()) {
            GTEST_SKIP() << "this CPU lacks " << simd::name_of(GetParam());
        }
    }
    [[nodiscard]] static simd::isa rung() { return GetParam(); }
};

[[nodiscard]] inline std::string rung_name(const testing::TestParamInfo<simd::isa>& info) {
    return simd::name_of(info.param);
}

} // namespace kvcrush::reference

/// Runs the tests of `Suite` (derived from every_rung) on every rung of the architecture.
#if KVCRUSH_NEON
#    define KVCRUSH_ON_EVERY_RUNG(Suite)                                                           \
        INSTANTIATE_TEST_SUITE_P(rungs,                                                            \
                                 Suite,                                                            \
                                 testing::Values(kvcrush::simd::isa::scalar,                       \
                                                 kvcrush::simd::isa::neon,                         \
                                                 kvcrush::simd::isa::neon_dotprod),                \
                                 kvcrush::reference::rung_name)
#else
#    define KVCRUSH_ON_EVERY_RUNG(Suite)                                                           \
        INSTANTIATE_TEST_SUITE_P(rungs,                                                            \
                                 Suite,                                                            \
                                 testing::Values(kvcrush::simd::isa::scalar,                       \
                                                 kvcrush::simd::isa::avx2,                         \
                                                 kvcrush::simd::isa::avx512),                      \
                                 kvcrush::reference::rung_name)
#endif
