# Third-party code, each behind one file of one room (docs/architecture.md names the file).
find_package(nlohmann_json REQUIRED)
target_link_libraries(saif_base PRIVATE nlohmann_json::nlohmann_json)
