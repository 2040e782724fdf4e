#include "self_test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"
#include "model.h"

static bool passed;

static void check(bool holds, const char *what) {
    printf("%s  %s\n", holds ? "ok  " : "FAIL", what);
    passed = passed && holds;
}

__attribute__((weak)) uint64_t instructions(void) { /* cortex_m7.c has one that counts */
    return 0;
}

static void print_count(const char *what, uint64_t count) {
    if (count > 0) printf("      %s takes %.0f instructions\n", what, (double)count);
}

/* CRC-32 as in zlib and Ethernet, carried on from `crc`, which is 0 at first. */
static uint32_t crc32(uint32_t crc, const void *bytes, size_t count) {
    crc = ~crc;
    for (const uint8_t *byte = bytes; count-- > 0; ++byte) {
        crc ^= *byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static uint32_t crc_of_labels(void) {
    uint32_t crc = 0;
    for (int i = 0; i < MODEL_CLASSES; ++i) {
        crc = crc32(crc, model_labels[i], strlen(model_labels[i]));
        crc = crc32(crc, "\n", 1);
    }
    return crc;
}

static int best(const float *outputs) {
    int top = 0;
    for (int i = 1; i < MODEL_CLASSES; ++i)
        if (outputs[i] > outputs[top]) top = i;
    return top;
}

static bool same_preprocess(const struct preprocess *a, const struct preprocess *b) {
    return a->size == b->size && a->crop == b->crop && a->crop_fraction == b->crop_fraction &&
           a->bicubic == b->bicubic && a->mean == b->mean && a->scale == b->scale;
}

static const uint8_t *check_pixels(void) {
    static uint8_t input[MODEL_INPUT_BYTES];
    static int32_t work[FIT_WORDS(GOLDEN_WIDTH, GOLDEN_HEIGHT, MODEL_SIZE)];
    const struct frame frame = {golden_frame, GOLDEN_WIDTH, GOLDEN_HEIGHT, 3};
    const uint64_t begin = instructions();
    const bool fits = fit(&frame, &model_preprocess, input, work, sizeof work / sizeof *work);
    const uint64_t end = instructions();
    check(fits, "the golden frame is resized");
    print_count("fit", end - begin);
    long sum = 0;
    int largest = 0;
    for (int i = 0; i < MODEL_INPUT_BYTES; ++i) {
        const int apart = input[i] > golden_input[i] ? input[i] - golden_input[i] : golden_input[i] - input[i];
        sum += apart;
        if (apart > largest) largest = apart;
    }
    const double mean = (double)sum / MODEL_INPUT_BYTES;
    check(mean <= GOLDEN_PIXEL_TOLERANCE, "pixels are training's");
    printf("      mean difference %g, largest %d, of 255 (allowed mean %g)\n", mean, largest, GOLDEN_PIXEL_TOLERANCE);
    return input;
}

static void check_outputs(infer_t infer) {
    const uint64_t begin = instructions();
    const float *outputs = infer(golden_input);
    print_count("an inference", instructions() - begin);
    double largest = outputs ? 0.0 : INFINITY;
    for (int i = 0; outputs && i < MODEL_CLASSES; ++i) {
        const double apart = fabs((double)outputs[i] - (double)golden_outputs[i]);
        largest = isnan(apart) ? INFINITY : fmax(largest, apart);
    }
    check(largest <= GOLDEN_TOLERANCE, "probabilities are those that were verified");
    printf("      largest difference %g (allowed %g)\n", largest, GOLDEN_TOLERANCE);
}

bool self_test(infer_t infer) {
    passed = true;
    check(crc32(0, model, MODEL_BYTES) == GOLDEN_MODEL_CRC32, "model: its bytes are those that were verified");
    check((uintptr_t)model % 16 == 0, "model: aligned to 16 bytes");
    check(crc_of_labels() == GOLDEN_LABELS_CRC32, "labels: names and order");
    check(strcmp(model_labels[best(golden_outputs)], GOLDEN_LABEL) == 0, "labels: the golden answer is " GOLDEN_LABEL);
    check(same_preprocess(&model_preprocess, &golden_preprocess), "preprocessing: size, crop, filter, mean and scale");
    const uint8_t *input = check_pixels();
    if (infer) {
        check_outputs(infer);
        const float *outputs = infer(input);
        check(outputs && best(outputs) == best(golden_outputs), "the way from the frame gives " GOLDEN_LABEL);
    }
    printf(passed ? "self-test passed\n" : "self-test FAILED\n");
    return passed;
}

void print_best(const float *outputs) {
    bool shown[MODEL_CLASSES] = {false};
    for (int rank = 0; rank < 5 && rank < MODEL_CLASSES; ++rank) {
        int top = -1;
        for (int i = 0; i < MODEL_CLASSES; ++i)
            if (!shown[i] && (top < 0 || outputs[i] > outputs[top])) top = i;
        shown[top] = true;
        printf("  %.4f  %s\n", (double)outputs[top], model_labels[top]);
    }
}
