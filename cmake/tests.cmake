# One executable per room from its *_test.cc files, and one from the suites under tests/ that cross rooms.
find_package(GTest REQUIRED)
include(GoogleTest)

function(saif_test_executable name)
  cmake_parse_arguments(T "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LIBRARIES} saif_flags GTest::gtest_main)
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_compile_definitions(${name} PRIVATE "SAIF_SHARED_DIR=\"${SAIF_SHARED}\"" "SAIF_SOURCE_DIR=\"${CMAKE_SOURCE_DIR}\""
                             "SAIF_BINARY_DIR=\"${CMAKE_BINARY_DIR}\"")
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 120 PROPERTIES TIMEOUT 900)
endfunction()

foreach(room IN LISTS SAIF_ROOMS)
  file(GLOB_RECURSE _tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${room}/*_test.cc")
  if(_tests)
    saif_test_executable(saif_${room}_test SOURCES ${_tests} LIBRARIES saif_${room})
  endif()
endforeach()

file(GLOB _suites CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tests/*_test.cc")
if(_suites)
  saif_test_executable(saif_suites_test SOURCES ${_suites} LIBRARIES saif_lib)
  add_dependencies(saif_suites_test saif)
endif()
