/* One line per kernel: a hash of its results on fixed pseudo-random inputs. Every build on every processor must print the
 * same lines: with and without function clones, x86-64 and aarch64. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastcam/cam.h"

static uint32_t state = 1;

static uint32_t next_random(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static float* randoms(size_t count) { /* in -1..1 */
    float* values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; ++i) values[i] = (float)next_random() / 8388608.0f - 1.0f;
    return values;
}

static uint8_t* bytes(size_t count, uint32_t modulus) {
    uint8_t* values = malloc(count);
    for (size_t i = 0; i < count; ++i) values[i] = (uint8_t)(next_random() % modulus);
    return values;
}

static void report(const char* name, const void* data, size_t size) { /* FNV-1a */
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; ++i) hash = (hash ^ ((const uint8_t*)data)[i]) * 1099511628211u;
    printf("%s %08lx%08lx\n", name, (unsigned long)(hash >> 32), (unsigned long)(hash & 0xffffffffu));
}

enum { IMAGES = 3, TARGETS = 2, CHANNELS = 131, SIDE = 7, AREA = SIDE * SIDE, H = 97, W = 203 };

static void explain(int want_heatmaps, const float* activations, const float* weights) {
    const size_t maps = IMAGES * TARGETS;
    fastcam_workspace* workspace = fastcam_workspace_new();
    float* heatmaps = malloc(maps * H * W * sizeof *heatmaps);
    int32_t counts[IMAGES * TARGETS], largest[IMAGES * TARGETS * 5];
    int64_t rows = 0;
    if (workspace == NULL) exit(1);
    const fastcam_task task = {.struct_size = sizeof task,
                               .activations = {.data = activations},
                               .weights = weights,
                               .images = IMAGES,
                               .targets = TARGETS,
                               .channels = CHANNELS,
                               .height = SIDE,
                               .width = SIDE,
                               .out_height = H,
                               .out_width = W,
                               .fraction = 0.3f,
                               .connectivity = 8,
                               .heatmaps = want_heatmaps ? heatmaps : NULL,
                               .counts = counts,
                               .largest = largest};
    if (fastcam_explain(workspace, &task) != FASTCAM_SUCCESS) exit(1);
    if (want_heatmaps) report("heatmaps", heatmaps, maps * H * W * sizeof *heatmaps);
    report("counts", counts, sizeof counts);
    report("largest", largest, sizeof largest);
    const int32_t* found = fastcam_components(workspace, &rows);
    report("components", found, (size_t)rows * 5 * sizeof *found);
    free(heatmaps);
    fastcam_workspace_free(workspace);
}

int main(void) {
    float *activations = randoms((size_t)IMAGES * CHANNELS * AREA), *weights = randoms(IMAGES * TARGETS * CHANNELS);
    uint16_t* halves = malloc(65536 * sizeof *halves);
    float *maps = malloc(65536 * sizeof *maps), *large = malloc(H * W * sizeof *large);
    uint8_t *image = bytes(H * W * 3, 256), *lut = bytes(768, 256), *mask = bytes(H * W, 2), *out = malloc(H * W * 3);
    int32_t *labels = malloc(H * W * sizeof *labels), count = 0;
    void* scratch = malloc(fastcam_upsample_scratch(W) + fastcam_label_scratch(H, W));
    void* tight = malloc(fastcam_prepare_scratch(W, W));
    const float one = 1.0f, shift[3] = {0.25f, 1.7f, 0.01f};
    const int64_t across[3] = {64, 1, 31 * 64}, along[3] = {(W - 1) / 2 * 3, 3, 1};
    const fastcam_activations whole = {activations, FASTCAM_FLOAT32};
    const fastcam_activations every_half = {halves, FASTCAM_FLOAT16};

    fastcam_weigh(whole, weights, IMAGES, TARGETS, CHANNELS, AREA, maps);
    report("weigh", maps, IMAGES * TARGETS * AREA * sizeof *maps);
    for (uint32_t i = 0; i < 65536; ++i) halves[i] = (uint16_t)((i & 0x7c00u) == 0x7c00u ? 0 : i); /* finite ones */
    fastcam_weigh(every_half, &one, 1, 1, 1, 65536, maps);
    report("weigh halves", maps, 65536 * sizeof *maps);
    fastcam_weigh(whole, weights, 1, 1, CHANNELS, AREA, maps);
    fastcam_relu(maps, AREA, maps + AREA);
    fastcam_normalize(maps + AREA, 1, AREA, maps);
    fastcam_upsample(maps, 1, SIDE, SIDE, H, W, scratch, large);
    report("upsample", large, H * W * sizeof *large);
    fastcam_threshold(large, 1, H * W, 0.15f, out);
    report("threshold", out, H * W);
    fastcam_label(mask, 1, H, W, 4, scratch, labels, &count);
    report("label", labels, H * W * sizeof *labels);
    fastcam_overlay(image, large, lut, 0.3, H * W, out);
    report("overlay", out, H * W * 3);
    fastcam_label(mask, 1, H, W, 8, scratch, labels, &count);
    report("label corners", labels, H * W * sizeof *labels);
    fastcam_prepare(image, H, W, 3 * W, 31, 64, shift, shift, tight, large, across);
    report("prepare", large, 31 * 64 * 3 * sizeof *large);
    fastcam_prepare(image, H - 1, W - 1, 3 * W, (H - 1) / 2, (W - 1) / 2, shift, shift, tight, large, along);
    report("prepare halves", large, (H - 1) / 2 * ((W - 1) / 2) * 3 * sizeof *large);
    explain(1, activations, weights);
    explain(0, activations, weights);

    free(activations), free(weights), free(halves), free(maps), free(large), free(image), free(lut), free(mask), free(out);
    free(labels), free(scratch), free(tight);
    return 0;
}
