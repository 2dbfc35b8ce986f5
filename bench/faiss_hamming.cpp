// SPDX-License-Identifier: Apache-2.0
#include "baseline_hamming.hpp"

#if KVCRUSH_BENCH_FAISS
#    include <faiss/utils/hamming.h>
#    include <omp.h>
#endif

namespace kvcrush::bench {

#if KVCRUSH_BENCH_FAISS
bool faiss_hamming(const void* query,
                   const void* codes,
                   std::size_t count,
                   std::size_t code_bytes,
                   std::int32_t* out) {
    omp_set_num_threads(1);
    faiss::hammings(static_cast<const std::uint8_t*>(query),
                    static_cast<const std::uint8_t*>(codes),
                    1,
                    count,
                    code_bytes,
                    out);
    return true;
}
std::string faiss_version() { return "FAISS " KVCRUSH_BENCH_FAISS_VERSION; }
#else
bool faiss_hamming(const void*, const void*, std::size_t, std::size_t, std::int32_t*) {
    return false;
}
std::string faiss_version() { return {}; }
#endif

} // namespace kvcrush::bench
