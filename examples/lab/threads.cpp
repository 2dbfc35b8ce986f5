// SPDX-License-Identifier: Apache-2.0
#include "threads.hpp"

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <unistd.h>

namespace lab {

void wait_briefly([[maybe_unused]] char** argv) {
#ifdef _OPENMP
    for (const char* name : {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"}) {
        if (std::getenv(name) != nullptr) {
            return; // chosen by the user, or by the first start
        }
    }
    setenv("OMP_WAIT_POLICY", "passive", 1);
    setenv("GOMP_SPINCOUNT", "3000", 1); // GNU's takes this one before the policy
    std::error_code error;
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
    if (!error) {
        execv(program.c_str(), argv); // comes back only if it fails, and then threads spin
    }
#endif
}

} // namespace lab
