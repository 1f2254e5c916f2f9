# llama-cpp-python turns llama.cpp's "common" library on after the command line has been read, and uses nothing of it.
# CMake includes this file right after project("llama.cpp") (CMAKE_PROJECT_llama.cpp_INCLUDE, scripts/llama-wheel).
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "" FORCE)
