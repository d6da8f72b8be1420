# The Rust library of rust/ (tokenizers, chat templates, language identification) as the target saif_rust. All build
# directories share one cargo target directory, which cargo locks; SAIF_RUST_TARGET_DIR in the environment moves it, e.g. to
# share it between checkouts.
set(SAIF_RUST_VERSION 1.88)
set(SAIF_CARGO "" CACHE FILEPATH "The cargo to use; empty: the first of PATH, /usr/bin that is new enough")

function(saif_find_cargo result)
  find_program(_on_path cargo NO_CACHE)
  find_program(_debian cargo NO_CACHE NO_DEFAULT_PATH PATHS /usr/bin /usr/share/cargo/bin)  # package cargo-web
  set(_home "$ENV{HOME}/.cargo/bin/cargo")
  set(_seen "")
  foreach(candidate IN ITEMS "${SAIF_CARGO}" "${_on_path}" "${_home}" "${_debian}")
    if(NOT candidate OR NOT EXISTS "${candidate}")
      continue()
    endif()
    execute_process(COMMAND "${candidate}" --version OUTPUT_VARIABLE _version ERROR_QUIET)
    if(_version MATCHES "cargo ([0-9]+\\.[0-9]+)")
      if(CMAKE_MATCH_1 VERSION_GREATER_EQUAL SAIF_RUST_VERSION)
        set(${result} "${candidate}" PARENT_SCOPE)
        return()
      endif()
      string(APPEND _seen " ${candidate} is ${CMAKE_MATCH_1};")
    endif()
  endforeach()
  message(FATAL_ERROR "No cargo >= ${SAIF_RUST_VERSION} found.${_seen} install Debian's cargo-web or rustup, or set SAIF_CARGO")
endfunction()

saif_find_cargo(_cargo)
message(STATUS "cargo: ${_cargo}")
get_filename_component(_cargo_folder "${_cargo}" DIRECTORY)
set(_rust_environment "")
if(EXISTS "${_cargo_folder}/rustc")  # not an older rustc that happens to come first on PATH
  set(_rust_environment "RUSTC=${_cargo_folder}/rustc")
endif()

if(DEFINED ENV{SAIF_RUST_TARGET_DIR})
  set(_rust_target "$ENV{SAIF_RUST_TARGET_DIR}")
else()
  set(_rust_target "${CMAKE_SOURCE_DIR}/build/rust")
endif()
set(_rust_library "${CMAKE_BINARY_DIR}/rust/libsaif_text.a")
file(GLOB _rust_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/rust/src/*.rs")
add_custom_command(
  OUTPUT "${_rust_library}"
  COMMAND "${CMAKE_COMMAND}" -E env ${_rust_environment} "${_cargo}" build --release --locked --quiet
          --manifest-path "${CMAKE_SOURCE_DIR}/rust/Cargo.toml" --target-dir "${_rust_target}"
  COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/rust"
  COMMAND "${CMAKE_COMMAND}" -E copy "${_rust_target}/release/libsaif_text.a" "${_rust_library}"
  DEPENDS ${_rust_sources} "${CMAKE_SOURCE_DIR}/rust/Cargo.toml" "${CMAKE_SOURCE_DIR}/rust/Cargo.lock"
  COMMENT "Building the Rust library (the first time takes minutes)"
  VERBATIM)
add_custom_target(saif_rust_build DEPENDS "${_rust_library}")

find_package(Threads REQUIRED)
add_library(saif_rust STATIC IMPORTED GLOBAL)
set_target_properties(saif_rust PROPERTIES IMPORTED_LOCATION "${_rust_library}")
target_link_libraries(saif_rust INTERFACE Threads::Threads ${CMAKE_DL_LIBS} m)
add_dependencies(saif_rust saif_rust_build)
