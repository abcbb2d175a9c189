/* ONNX Runtime, loaded when the program starts: nothing is linked, so the same program runs with any version of it. */
#ifndef FASTCAM_EXAMPLES_RUNTIME_H
#define FASTCAM_EXAMPLES_RUNTIME_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef FASTCAM_ONNXRUNTIME_SDK
#include <onnxruntime_c_api.h>
#else
#include "onnxruntime_small.h"
#endif

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

/* The API of the library in the file `path`, or of the one that the system finds; NULL, after a line that says why. */
static const OrtApi* open_runtime(const char* path) {
    typedef const OrtApiBase* (*Entry)(void);
    Entry entry = NULL;
#ifdef _WIN32
    HMODULE library = LoadLibraryA(path != NULL ? path : "onnxruntime.dll");
    if (library != NULL) entry = (Entry)(void*)GetProcAddress(library, "OrtGetApiBase");
    const char* why = "LoadLibrary";
#else
    void* library = dlopen(path != NULL ? path : "libonnxruntime.so.1", RTLD_NOW | RTLD_LOCAL);
    const char* why = library == NULL ? dlerror() : "it has no OrtGetApiBase";
    if (library != NULL) {
        void* symbol = dlsym(library, "OrtGetApiBase");
        memcpy(&entry, &symbol, sizeof entry);
    }
#endif
    if (entry == NULL) {
        fprintf(stderr, "ONNX Runtime cannot be loaded (%s); say where it is with --onnxruntime FILE\n", why);
        return NULL;
    }
    const OrtApiBase* base = entry();
    int major = 0, minor = 0;
    const OrtApi* api = NULL;
    if (sscanf(base->GetVersionString(), "%d.%d", &major, &minor) == 2 && major == 1 && minor >= 3) {
        api = base->GetApi(ORT_API_VERSION);
    }
    if (api == NULL) {
        fprintf(stderr, "ONNX Runtime %s is not one that this program knows; it wants 1.3 or later of version 1\n",
                base->GetVersionString());
    }
    return api;
}

#endif
