# Read by CMake where llama.txt has llama-cpp-python built, at each `project()`: the package asks for more than its Python code
# loads, and files compiled together take a third of the time. Those of ggml cannot be.
# Who changes this changes a line of llama.txt, too: an environment is made once for each content of that.
set(LLAMA_BUILD_COMMON OFF)
if(PROJECT_NAME STREQUAL "ggml")
    set(CMAKE_UNITY_BUILD OFF)
endif()
