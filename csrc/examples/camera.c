/* camera MODEL.cam.onnx HEIGHT WIDTH: raw RGB frames come in at the standard input, a line for each goes out: the number of
 * the class, the status (0: ok), and the box x0 y0 x1 y1 in pixels of the frame. The file prepares the frames itself:
 *     fastcam export MODEL.onnx --frames 480x640 --preprocess imagenet --targets required
 *     ffmpeg -f v4l2 -i /dev/video0 -f rawvideo -pix_fmt rgb24 -s 640x480 - | camera MODEL.cam.onnx 480 640
 */
#include <fastcam/cam.h>

#include "runtime.h"

static const OrtApi* api;

/* Ends the program where ONNX Runtime refuses something. */
static void check(OrtStatus* status) {
    if (status == NULL) return;
    fprintf(stderr, "%s\n", api->GetErrorMessage(status));
    exit(2);
}

static OrtValue* tensor(void* data, size_t bytes, const int64_t* shape, size_t rank, ONNXTensorElementDataType type) {
    OrtMemoryInfo* memory = NULL;
    OrtValue* value = NULL;
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    check(api->CreateTensorWithDataAsOrtValue(memory, data, bytes, shape, rank, type, &value));
    api->ReleaseMemoryInfo(memory);
    return value;
}

/* The numbers of an output, and its four sides (1 where it has fewer). */
static void* numbers(OrtValue* value, int64_t sides[4]) {
    OrtTensorTypeAndShapeInfo* info = NULL;
    size_t rank = 0;
    void* data = NULL;
    check(api->GetTensorTypeAndShape(value, &info));
    check(api->GetDimensionsCount(info, &rank));
    if (rank > 4) exit(2);
    for (size_t i = rank; i < 4; ++i) sides[i] = 1;
    check(api->GetDimensions(info, sides, rank));
    api->ReleaseTensorTypeAndShapeInfo(info);
    check(api->GetTensorMutableData(value, &data));
    return data;
}

int main(int count, char** given) {
    if (count < 4) {
        fprintf(stderr, "usage: camera MODEL.cam.onnx HEIGHT WIDTH [ONNXRUNTIME_LIBRARY]\n");
        return 2;
    }
    const int64_t height = atoll(given[2]), width = atoll(given[3]), frame_shape[4] = {1, height, width, 3};
    const size_t bytes = (size_t)(height * width * 3);
    int64_t target = -1, target_shape[2] = {1, 1};
    api = open_runtime(count > 4 ? given[4] : NULL);
    uint8_t* frame = malloc(bytes);
    fastcam_workspace* workspace = fastcam_workspace_new();
    if (api == NULL || frame == NULL || workspace == NULL) return 2;

    OrtEnv* environment = NULL;
    OrtSessionOptions* options = NULL;
    OrtSession* session = NULL;
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "camera", &environment));
    check(api->CreateSessionOptions(&options));
    check(api->CreateSession(environment, given[1], options, &session));
    const char* input_names[2] = {"fastcam.frames", "fastcam.targets"};
    const OrtValue* inputs[2] = {
        tensor(frame, bytes, frame_shape, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8),
        tensor(&target, sizeof target, target_shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
    };
    const char* output_names[3] = {"fastcam.classes", "fastcam.activations", "fastcam.weights"};

    while (fread(frame, 1, bytes, stdin) == bytes) {
        OrtValue* outputs[3] = {NULL, NULL, NULL};
        int64_t sides[4];
        uint8_t status = 0;
        int32_t box[5] = {0};
        check(api->Run(session, NULL, input_names, inputs, 2, output_names, 3, outputs));
        fastcam_task task;
        memset(&task, 0, sizeof task);
        task.struct_size = sizeof task;
        const int64_t found = *(const int64_t*)numbers(outputs[0], sides);
        task.weights = numbers(outputs[2], sides);
        task.activations.data = numbers(outputs[1], sides);
        task.activations.dtype = FASTCAM_FLOAT32;
        task.images = task.targets = 1;
        task.channels = sides[1];
        task.height = sides[2];
        task.width = sides[3];
        task.out_height = height; /* heat of the frame's size: boxes are in its pixels */
        task.out_width = width;
        task.fraction = 0.15f;
        task.connectivity = 8;
        task.status = &status;
        task.largest = box;
        if (fastcam_explain(workspace, &task) != FASTCAM_SUCCESS) return 2;
        printf("%lld %d %d %d %d %d\n", (long long)found, status, box[0], box[1], box[2], box[3]);
        fflush(stdout);
        for (int i = 0; i < 3; ++i) api->ReleaseValue(outputs[i]);
    }
    fastcam_workspace_free(workspace);
    api->ReleaseSession(session);
    api->ReleaseSessionOptions(options);
    api->ReleaseEnv(environment);
    free(frame);
    return 0;
}
