/* The entries of ONNX Runtime's C API that the examples use, for machines that have its library and not its headers.
 *
 * The API is a table of function pointers behind OrtGetApiBase, whose beginning has been the same since version 1.3 of ONNX Runtime;
 * what is not used is space here. Where the SDK's onnxruntime_c_api.h is found, the examples take that (runtime.h).
 */
#ifndef FASTCAM_ONNXRUNTIME_SMALL_H
#define FASTCAM_ONNXRUNTIME_SMALL_H

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 2 /* of the table; libraries give older ones too */

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtModelMetadata OrtModelMetadata;
typedef struct OrtAllocator OrtAllocator;

#ifdef _WIN32
typedef wchar_t ORTCHAR_T;
#else
typedef char ORTCHAR_T;
#endif

typedef enum { ORT_LOGGING_LEVEL_WARNING = 2, ORT_LOGGING_LEVEL_ERROR = 3 } OrtLoggingLevel;
typedef enum { OrtArenaAllocator = 1 } OrtAllocatorType;
typedef enum { OrtMemTypeDefault = 0 } OrtMemType;
typedef enum {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10
} ONNXTensorElementDataType;

/* `space(a, b)`: the entries a..b are not used */
#define SPACE(a, b) void* space_##a[(b) - (a) + 1];

typedef struct OrtApi {
    SPACE(0, 1)
    const char* (*GetErrorMessage)(const OrtStatus*);                            /* 2 */
    OrtStatus* (*CreateEnv)(OrtLoggingLevel, const char* name, OrtEnv** out);    /* 3 */
    SPACE(4, 6)
    OrtStatus* (*CreateSession)(const OrtEnv*, const ORTCHAR_T* path, const OrtSessionOptions*, OrtSession** out); /* 7 */
    SPACE(8, 8)
    OrtStatus* (*Run)(OrtSession*, const OrtRunOptions*, const char* const* input_names, const OrtValue* const* inputs,
                      size_t input_count, const char* const* output_names, size_t output_count, OrtValue** outputs); /* 9 */
    OrtStatus* (*CreateSessionOptions)(OrtSessionOptions** out);                 /* 10 */
    SPACE(11, 23)
    OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions*, int threads);         /* 24 */
    SPACE(25, 29)
    OrtStatus* (*SessionGetInputCount)(const OrtSession*, size_t* out);          /* 30 */
    SPACE(31, 31)
    OrtStatus* (*SessionGetOverridableInitializerCount)(const OrtSession*, size_t* out);       /* 32 */
    SPACE(33, 35)
    OrtStatus* (*SessionGetInputName)(const OrtSession*, size_t index, OrtAllocator*, char** out); /* 36 */
    SPACE(37, 37)
    OrtStatus* (*SessionGetOverridableInitializerName)(const OrtSession*, size_t index, OrtAllocator*, char** out); /* 38 */
    SPACE(39, 48)
    OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape,
                                                 size_t rank, ONNXTensorElementDataType, OrtValue** out); /* 49 */
    SPACE(50, 50)
    OrtStatus* (*GetTensorMutableData)(OrtValue*, void** out);                   /* 51 */
    SPACE(52, 59)
    OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo*, ONNXTensorElementDataType* out); /* 60 */
    OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, size_t* out);          /* 61 */
    OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo*, int64_t* out, size_t rank); /* 62 */
    SPACE(63, 64)
    OrtStatus* (*GetTensorTypeAndShape)(const OrtValue*, OrtTensorTypeAndShapeInfo** out);    /* 65 */
    SPACE(66, 68)
    OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo** out);     /* 69 */
    SPACE(70, 75)
    OrtStatus* (*AllocatorFree)(OrtAllocator*, void* memory);                    /* 76 */
    SPACE(77, 77)
    OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator** out);            /* 78 */
    SPACE(79, 91)
    void (*ReleaseEnv)(OrtEnv*);                                                 /* 92 */
    void (*ReleaseStatus)(OrtStatus*);                                           /* 93 */
    void (*ReleaseMemoryInfo)(OrtMemoryInfo*);                                   /* 94 */
    void (*ReleaseSession)(OrtSession*);                                         /* 95 */
    void (*ReleaseValue)(OrtValue*);                                             /* 96 */
    SPACE(97, 98)
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo*);           /* 99 */
    void (*ReleaseSessionOptions)(OrtSessionOptions*);                           /* 100 */
    SPACE(101, 110)
    OrtStatus* (*SessionGetModelMetadata)(const OrtSession*, OrtModelMetadata** out); /* 111 */
    SPACE(112, 115)
    OrtStatus* (*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata*, OrtAllocator*, const char* key,
                                                       char** value);            /* 116 */
    SPACE(117, 117)
    void (*ReleaseModelMetadata)(OrtModelMetadata*);                             /* 118 */
} OrtApi;
#undef SPACE

/* The last entry is where the library has it. */
typedef char OrtApiIsWhole[offsetof(OrtApi, ReleaseModelMetadata) == 118 * sizeof(void*) ? 1 : -1];

typedef struct OrtApiBase {
    const OrtApi* (*GetApi)(uint32_t version);
    const char* (*GetVersionString)(void);
} OrtApiBase;

#endif
