/* A C99 host: boxes from raw activations. Two channels of 4 x 4; the target's weights make of them one map whose
 * positive part is the lower right corner. */
#include <fastcam/cam.h>
#include <stdio.h>

int main(void) {
    float activations[2 * 16] = {0};
    const float weights[2] = {1.0f, -1.0f};
    float maps[16];
    uint8_t status = 255;
    int32_t count = 0, largest[5];
    int64_t rows = 0;
    fastcam_workspace* workspace = fastcam_workspace_new();
    if (workspace == NULL) return 1;
    activations[15] = 2.0f; /* channel 0: the corner */
    activations[16] = 1.0f; /* channel 1: the opposite one, which counts against the class */

    fastcam_task task = {.struct_size = sizeof task,
                         .activations = {.data = activations, .dtype = FASTCAM_FLOAT32},
                         .weights = weights,
                         .images = 1,
                         .targets = 1,
                         .channels = 2,
                         .height = 4,
                         .width = 4,
                         .out_height = 8,
                         .out_width = 8,
                         .fraction = 0.5f,
                         .connectivity = 8,
                         .maps = maps,
                         .status = &status,
                         .counts = &count,
                         .largest = largest};
    if (fastcam_explain(workspace, &task) != FASTCAM_SUCCESS) return 1;
    const int32_t* box = fastcam_components(workspace, &rows);
    printf("%s status %d maps %g %g components %d %d box %d %d %d %d pixels %d %d\n", fastcam_version(), status, maps[0],
           maps[15], count, (int)rows, box[0], box[1], box[2], box[3], box[4], largest[4]);
    task.connectivity = 6;
    printf("refused %d\n", fastcam_explain(workspace, &task));
    task.connectivity = 8;

    /* a program built with a newer header, whose task has one field more */
    struct {
        fastcam_task known;
        int64_t later;
    } newer = {task, 0};
    newer.known.struct_size = sizeof newer;
    printf("newer %d ", fastcam_explain(workspace, &newer.known));
    newer.later = 1;
    printf("with its field %d ", fastcam_explain(workspace, &newer.known));
    task.struct_size = 0;
    printf("without a size %d\n", fastcam_explain(workspace, &task));
    fastcam_workspace_free(workspace);
    return 0;
}
