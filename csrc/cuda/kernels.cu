// All CUDA kernels, as one translation unit: nvcc compiles it, fastcam/kernels/cuda.py hands it to NVRTC with the includes
// put in their places, and host.cpp runs it on a processor.

#include "boxes.cu"
#include "components.cu"
#include "maps.cu"
#include "overlay.cu"
