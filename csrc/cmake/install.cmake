# The static and the shared library, and what finds them once they are installed.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(fastcam_static STATIC)
add_library(fastcam_shared SHARED)
foreach(kind static shared)
  set(library fastcam_${kind})
  target_link_libraries(${library} PRIVATE $<BUILD_INTERFACE:fastcam_objects>)
  target_include_directories(${library} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${library} PROPERTIES EXPORT_NAME ${kind} LINKER_LANGUAGE CXX)
endforeach()
# One rule for soname and find_package: see "Versions" in fastcam/cam.h.
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(interface ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  set(compatibility SameMinorVersion)
else()
  set(interface ${PROJECT_VERSION_MAJOR})
  set(compatibility SameMajorVersion)
endif()
set_target_properties(fastcam_shared PROPERTIES
  OUTPUT_NAME fastcam VERSION ${PROJECT_VERSION} SOVERSION ${interface})
target_compile_definitions(fastcam_shared INTERFACE FASTCAM_SHARED)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")  # function clones have a global dispatcher whatever their visibility
  set(exports ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cmake/exports.map)
  target_link_options(fastcam_shared PRIVATE LINKER:--version-script=${exports})
  set_target_properties(fastcam_shared PROPERTIES LINK_DEPENDS ${exports})
endif()
if(WIN32)
  set(static_name fastcam_static)  # fastcam.lib is the import library of the shared one
else()
  set(static_name fastcam)
endif()
set_target_properties(fastcam_static PROPERTIES OUTPUT_NAME ${static_name})
# a C program that links the static library needs the C++ runtime that CMake adds for C++ programs only
if(NOT MSVC)
  set(cxx_runtime ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
  list(REMOVE_ITEM cxx_runtime ${CMAKE_C_IMPLICIT_LINK_LIBRARIES})
  target_link_libraries(fastcam_static INTERFACE ${cxx_runtime})
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fastcam)
install(TARGETS fastcam_static fastcam_shared EXPORT fastcam-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES csrc/include/fastcam/cam.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/fastcam)
install(EXPORT fastcam-targets NAMESPACE fastcam:: DESTINATION ${package})
configure_package_config_file(csrc/cmake/fastcam-config.cmake.in fastcam-config.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(fastcam-config-version.cmake COMPATIBILITY ${compatibility})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastcam-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/fastcam-config-version.cmake DESTINATION ${package})

file(RELATIVE_PATH to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
set(runtime_flags "")
foreach(name ${cxx_runtime})
  string(APPEND runtime_flags " -l${name}")
endforeach()
configure_file(csrc/cmake/fastcam.pc.in fastcam.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastcam.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
