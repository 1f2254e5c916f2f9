# llama-cpp-python turns llama.cpp's "common" library on after the command line has been read, and uses nothing of it.
# CMake includes this file right after project("llama.cpp") (CMAKE_PROJECT_llama.cpp_INCLUDE, scripts/llama-wheel).
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)

# Without AMX, on the CPUs that have it: gcc 12 drops the tiles' configuration as a dead store (llama.cpp's pull request 26954), and the
# first matrix ends the process with a general protection fault. And its weights are laid out by several threads, whose process
# could not be forked then.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag("-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" BRAINJAR_CAN_LEAVE_AMX)
if(BRAINJAR_CAN_LEAVE_AMX)
    add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-mno-amx-tile> $<$<COMPILE_LANGUAGE:C,CXX>:-mno-amx-int8> $<$<COMPILE_LANGUAGE:C,CXX>:-mno-amx-bf16>)
endif()
