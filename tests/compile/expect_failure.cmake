# SPDX-License-Identifier: Apache-2.0
# cmake -DSOURCE=FILE -P expect_failure.cmake -- COMPILER ARGUMENTS...
# Passes when the compiler refuses FILE and one line of its errors holds the text that FILE announces in a comment:
#     // expect: TEXT
cmake_minimum_required(VERSION 3.21)

file(STRINGS "${SOURCE}" expected REGEX "^// expect: " LIMIT_COUNT 1)
string(REGEX REPLACE "^// expect: +" "" expected "${expected}")
if(expected STREQUAL "")
    message(FATAL_ERROR "${SOURCE} has no line '// expect: TEXT'")
endif()

set(command "")
set(seen_separator FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
    if(seen_separator)
        list(APPEND command "${CMAKE_ARGV${i}}")
    elseif(CMAKE_ARGV${i} STREQUAL "--")
        set(seen_separator TRUE)
    endif()
endforeach()

execute_process(COMMAND ${command} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
    message(FATAL_ERROR "${SOURCE} compiles, although it must not")
endif()

# Line by line, without lists: compilers print brackets and semicolons.
set(rest "${output}\n")
while(NOT rest STREQUAL "")
    string(FIND "${rest}" "\n" end)
    string(SUBSTRING "${rest}" 0 ${end} line)
    math(EXPR end "${end} + 1")
    string(SUBSTRING "${rest}" ${end} -1 rest)
    string(FIND "${line}" "error: " error_at)
    string(FIND "${line}" "${expected}" text_at)
    if(error_at GREATER_EQUAL 0 AND text_at GREATER error_at)
        message("${line}")
        return()
    endif()
endwhile()
message("${output}")
message(FATAL_ERROR "no error line holds the expected text: ${expected}")
