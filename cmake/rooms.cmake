# saif_room(NAME): src/NAME/**/*.cc without *_test.cc becomes the static library saif_NAME, which links every room
# declared before it. Its unit tests (*_test.cc beside the code) are collected by tests.cmake.
add_library(saif_flags INTERFACE)
target_include_directories(saif_flags INTERFACE "${CMAKE_SOURCE_DIR}/include" "${CMAKE_SOURCE_DIR}/src")
target_compile_options(saif_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion
                       -Wnon-virtual-dtor $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> -Werror)
if(SAIF_SANITIZE)
  target_compile_options(saif_flags INTERFACE "-fsanitize=${SAIF_SANITIZE}" -fno-omit-frame-pointer
                         -fno-sanitize-recover=all -Wno-maybe-uninitialized)  # GCC's false alarms under sanitizers
  target_link_options(saif_flags INTERFACE "-fsanitize=${SAIF_SANITIZE}")
  if(SAIF_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Checks written out in its long unrolled loops take GCC minutes: here they are calls.
    set_source_files_properties("${CMAKE_SOURCE_DIR}/src/kernels/cpu/blocks_avx512.cc" PROPERTIES
                                COMPILE_OPTIONS "--param=asan-instrumentation-with-call-threshold=0")
  endif()
endif()
if(SAIF_FUZZ)
  # One thread, and every line instrumented. fuzz/single_thread/omp.h stands in for OpenMP, which clang may lack.
  target_include_directories(saif_flags INTERFACE "${CMAKE_SOURCE_DIR}/fuzz/single_thread")
  target_compile_options(saif_flags INTERFACE -Wno-unknown-pragmas -fsanitize=fuzzer-no-link,address,undefined
                         -fno-sanitize-recover=all)
  target_link_options(saif_flags INTERFACE -fsanitize=address,undefined)
else()
  find_package(OpenMP REQUIRED)
  target_link_libraries(saif_flags INTERFACE OpenMP::OpenMP_CXX)
endif()

set(SAIF_ROOMS "")
set(SAIF_ROOM_TARGETS_REVERSED "")
macro(saif_room name)
  file(GLOB_RECURSE _sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${name}/*.cc")
  list(FILTER _sources EXCLUDE REGEX "_test\\.cc$")
  if(SAIF_FUZZ AND "${name}" STREQUAL "kernels")
    # Loaders are what is fuzzed: the plain kernels do, and need no thread pool.
    list(FILTER _sources EXCLUDE REGEX "/kernels/cpu/")
    list(APPEND _sources "${CMAKE_SOURCE_DIR}/fuzz/single_thread/cpu_backend.cc")
  endif()
  add_library(saif_${name} STATIC ${_sources} "${CMAKE_SOURCE_DIR}/cmake/empty.cc")
  target_link_libraries(saif_${name} PUBLIC ${SAIF_ROOM_TARGETS_REVERSED} saif_flags)
  list(APPEND SAIF_ROOMS ${name})
  list(PREPEND SAIF_ROOM_TARGETS_REVERSED saif_${name})
endmacro()
