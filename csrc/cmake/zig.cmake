# Cross-builds with zig, which is a C and C++ compiler for all systems (`pip install ziglang`):
#   export ZIG_TARGET=aarch64-linux-gnu.2.17
#   cmake -G Ninja -S . -B build -DFASTCAM_PYTHON=OFF -DCMAKE_TOOLCHAIN_FILE=csrc/cmake/zig.cmake
# Targets tried: x86_64-linux-gnu.2.17, aarch64-linux-gnu.2.17, aarch64-macos.11.0, x86_64-macos.11.0, x86_64-windows-gnu.
if(CMAKE_C_COMPILER_ID OR CMAKE_CXX_COMPILER_ID)  # the second reading, behind CMake's rules for the system
  foreach(language C CXX)
    set(CMAKE_${language}_ARCHIVE_CREATE "<CMAKE_AR> ar qc <TARGET> <OBJECTS>")
    set(CMAKE_${language}_ARCHIVE_APPEND "<CMAKE_AR> ar q <TARGET> <OBJECTS>")
    set(CMAKE_${language}_ARCHIVE_FINISH "<CMAKE_AR> ranlib <TARGET>")
    if(APPLE)
      set(CMAKE_SHARED_MODULE_CREATE_${language}_FLAGS "-dynamiclib")  # zig links no bundles; Python loads both
    endif()
  endforeach()
  return()
endif()
set(CMAKE_USER_MAKE_RULES_OVERRIDE ${CMAKE_CURRENT_LIST_FILE})

string(REGEX MATCH "^([a-z0-9_]+)-(linux|macos|windows)" known "$ENV{ZIG_TARGET}")
if(NOT known)
  message(FATAL_ERROR "set ZIG_TARGET to the target, such as aarch64-linux-gnu.2.17, not '$ENV{ZIG_TARGET}'")
endif()
set(CMAKE_SYSTEM_PROCESSOR ${CMAKE_MATCH_1})
set(linux Linux)
set(macos Darwin)
set(windows Windows)
set(CMAKE_SYSTEM_NAME ${${CMAKE_MATCH_2}})
find_program(ZIG NAMES zig python-zig REQUIRED)
set(CMAKE_C_COMPILER ${ZIG} cc -target $ENV{ZIG_TARGET})
set(CMAKE_CXX_COMPILER ${ZIG} c++ -target $ENV{ZIG_TARGET})
set(CMAKE_AR ${ZIG})
