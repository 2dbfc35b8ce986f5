# SPDX-License-Identifier: Apache-2.0
# Included by ctest, with `program`, `name` and, for another architecture, `emulator` set: every suite of that GoogleTest program becomes one test of ctest.
# gtest_discover_tests makes one of every case and starts the program ten times as often; a sanitizer starts slowly.
# What is skipped inside a suite, tests/run.sh looks up in the log: ctest would call the whole suite skipped.
if(NOT EXISTS "${program}")
    add_test("${name}_NOT_BUILT" "${name}_NOT_BUILT")
    return()
endif()
execute_process(COMMAND ${emulator} "${program}" --gtest_list_tests TIMEOUT 120 RESULT_VARIABLE result OUTPUT_VARIABLE output)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "${program} does not list its tests: ${result}")
endif()

# A suite is a line 'Name.', or 'Name/0.  # TypeParam = ...'; its cases are indented.
string(REGEX MATCHALL "\n[A-Za-z0-9_/]+\\." lines "\n${output}")
foreach(line IN LISTS lines)
    string(REGEX REPLACE "\n(.*)\\." "\\1" suite "${line}")
    add_test("${suite}" ${emulator} "${program}" "--gtest_filter=${suite}.*")
    if(suite MATCHES "^(.*/)?Model[^/]*(/.*)?$")
        set_tests_properties("${suite}" PROPERTIES LABELS model RUN_SERIAL TRUE) # one of them fills all cores
    endif()
endforeach()
