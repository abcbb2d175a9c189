// Internal: FASTCAM_CLONES in front of a function has it compiled once more for AVX2 and AVX-512 machines, the loader
// picking the version (GCC and Clang on x86-64 with glibc; CMakeLists.txt tries it out). All versions give the same bits:
// the sources fix the order of every sum, and -ffp-contract=off keeps multiplications and additions apart.

#pragma once

#ifdef FASTCAM_MULTIVERSION
#define FASTCAM_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define FASTCAM_CLONES
#endif
