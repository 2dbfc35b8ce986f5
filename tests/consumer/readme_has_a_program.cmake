# SPDX-License-Identifier: Apache-2.0
if(NOT NUM_PROGRAMS GREATER 0)
    message(FATAL_ERROR "README.md has no ```cpp block with a main function")
endif()
