# Third-party code, each behind one file of one room (docs/architecture.md names the file).
find_package(nlohmann_json REQUIRED)
target_link_libraries(saif_base PRIVATE nlohmann_json::nlohmann_json)

# Where the data lies when the program runs from its build folder.
target_compile_definitions(saif_data PRIVATE "SAIF_SOURCE_DATA_DIR=\"${CMAKE_SOURCE_DIR}/data\"")
# Tokenizers and chat templates behind src/text/hf.cc, language identification behind src/text/language.cc.
include(cmake/rust.cmake)
target_link_libraries(saif_text PRIVATE saif_rust)
# SentencePiece: src/text/sentencepiece.cc.
find_library(SAIF_SENTENCEPIECE sentencepiece REQUIRED)
target_link_libraries(saif_text PRIVATE ${SAIF_SENTENCEPIECE})
# Highway: src/kernels/cpu. A contracted a * b + c would differ between two inlinings of one expression; the kernels
# promise equal bits and name their fused operations themselves.
find_package(hwy REQUIRED)
target_link_libraries(saif_kernels PRIVATE hwy::hwy)
target_compile_options(saif_kernels PRIVATE -ffp-contract=off)
# oneDNN, the yardstick of bench/kernels.cc, behind src/kernels/cpu/onednn.cc.
find_package(dnnl REQUIRED)
target_link_libraries(saif_kernels PRIVATE DNNL::dnnl)

find_package(SQLite3 REQUIRED)
target_link_libraries(saif_sweep PRIVATE SQLite::SQLite3)

# zlib: src/formats/zip.cc.
find_package(ZLIB REQUIRED)
target_link_libraries(saif_formats PRIVATE ZLIB::ZLIB)
