# One executable per room from its *_test.cc files, one from the suites under tests/ that cross rooms, and the checks
# of the source (label lint). A build with sanitizers has the rooms' unit tests only, each named asan.Suite.Name or
# tsan.Suite.Name.
find_package(GTest REQUIRED)
include(GoogleTest)
add_custom_target(unit_tests)
set(_prefix "")
if(SAIF_SANITIZE MATCHES "thread")
  set(_prefix "tsan.")
elseif(SAIF_SANITIZE)
  set(_prefix "asan.")
endif()

function(saif_test_executable name)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LIBRARIES} saif_flags GTest::gtest_main)
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_compile_definitions(${name} PRIVATE "SAIF_SHARED_DIR=\"${SAIF_SHARED}\"" "SAIF_SOURCE_DIR=\"${CMAKE_SOURCE_DIR}\""
                             "SAIF_BINARY_DIR=\"${CMAKE_BINARY_DIR}\"")
  gtest_discover_tests(${name} TEST_PREFIX "${_prefix}" NO_PRETTY_VALUES DISCOVERY_TIMEOUT 120 PROPERTIES TIMEOUT ${T_TIMEOUT})
endfunction()

foreach(room IN LISTS SAIF_ROOMS)
  file(GLOB_RECURSE _tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${room}/*_test.cc")
  if(_tests)
    saif_test_executable(saif_${room}_test SOURCES ${_tests} LIBRARIES saif_${room} TIMEOUT 900)
    add_dependencies(unit_tests saif_${room}_test)
  endif()
endforeach()

if(SAIF_SANITIZE)
  return()
endif()

file(GLOB _suites CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/*_test.cc" "${CMAKE_SOURCE_DIR}/tests/support/*.cc")
if(_suites)
  # Suites run the real model: seconds on an idle machine, many minutes beside other work.
  saif_test_executable(saif_suites_test SOURCES ${_suites} LIBRARIES saif_lib TIMEOUT 2400)
  add_dependencies(saif_suites_test saif)
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
function(saif_source_check name)
  add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES LABELS lint TIMEOUT 2400)
endfunction()
saif_source_check(architecture "${Python3_EXECUTABLE}" tools/check_architecture.py)
saif_source_check(tools_test "${Python3_EXECUTABLE}" -m unittest discover -s tests/tools -p "*_test.py")
saif_source_check(format tools/check_format.sh)
saif_source_check(tidy "${Python3_EXECUTABLE}" tools/check_tidy.py "${CMAKE_BINARY_DIR}")
set_tests_properties(tidy PROPERTIES PROCESSORS 2)
