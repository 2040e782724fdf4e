/* Classify frames on a computer, with the same model, labels and preprocessing as on the board, by LiteRT. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fit.h"
#include "litert.h"
#include "model.h"
#include "self_test.h"

static LiteRtCompiledModel compiled;
static LiteRtTensorBuffer input_buffer, output_buffer;

static void need(int status, const char *what) {
    if (status == 0) return;
    fprintf(stderr, "classify: %s (%d)\n", what, status);
    exit(1);
}

static void need_type(const LiteRtRankedTensorType *type, int element, const int32_t *shape, uint32_t rank) {
    const int same = type->element_type == element && (type->rank & 0x7F) == rank &&
                     memcmp(type->dimensions, shape, rank * sizeof *shape) == 0;
    need(!same, "the model's input or output is not what model.h says");
}

static void load(void) {
    LiteRtEnvironment environment;
    LiteRtModel parsed;
    LiteRtOptions options;
    LiteRtSignature signature;
    LiteRtTensor input, output;
    LiteRtRankedTensorType takes, gives;
    LiteRtRequirements to_write, to_read;
    need(LiteRtCreateEnvironment(0, NULL, &environment), "starting");
    need(LiteRtCreateModelFromBuffer(environment, model, MODEL_BYTES, &parsed), "reading the model");
    need(LiteRtCreateOptions(&options), "options");
    need(LiteRtSetOptionsHardwareAccelerators(options, LITERT_CPU), "options");
    need(LiteRtCreateCompiledModel(environment, parsed, options, &compiled), "preparing the model");
    need(LiteRtGetModelSignature(parsed, 0, &signature), "the model's signature");
    need(LiteRtGetSignatureInputTensorByIndex(signature, 0, &input), "the model's input");
    need(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &output), "the model's output");
    need(LiteRtGetRankedTensorType(input, &takes), "the model's input");
    need(LiteRtGetRankedTensorType(output, &gives), "the model's output");
    need_type(&takes, LITERT_UINT8, (const int32_t[]){1, MODEL_SIZE, MODEL_SIZE, 3}, 4);
    need_type(&gives, LITERT_FLOAT32, (const int32_t[]){1, MODEL_CLASSES}, 2);
    need(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &to_write), "the input's memory");
    need(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &to_read), "the output's memory");
    need(LiteRtCreateManagedTensorBufferFromRequirements(environment, &takes, to_write, &input_buffer), "memory");
    need(LiteRtCreateManagedTensorBufferFromRequirements(environment, &gives, to_read, &output_buffer), "memory");
}

static const float *infer(const uint8_t *input) {
    static float outputs[MODEL_CLASSES];
    void *memory;
    need(LiteRtLockTensorBuffer(input_buffer, &memory, LITERT_WRITE), "writing the input");
    memcpy(memory, input, MODEL_INPUT_BYTES);
    need(LiteRtUnlockTensorBuffer(input_buffer), "writing the input");
    need(LiteRtRunCompiledModel(compiled, 0, 1, &input_buffer, 1, &output_buffer), "running the model");
    need(LiteRtLockTensorBuffer(output_buffer, &memory, LITERT_READ), "reading the output");
    memcpy(outputs, memory, sizeof outputs);
    need(LiteRtUnlockTensorBuffer(output_buffer), "reading the output");
    return outputs;
}

/* Read a number of the head, after spaces and comments, which go from # to the line's end; 0 where there is none. */
static int number(FILE *file) {
    int value;
    char hash[2];
    while (fscanf(file, " %1[#]", hash) == 1 && fscanf(file, "%*[^\n]") != EOF) {}
    return fscanf(file, "%d", &value) == 1 ? value : 0;
}

static bool is_side(int pixels) { return pixels >= 1 && pixels <= 16384; }

/* Read a binary PPM (colour) or PGM (grey), 8 bits: what a camera's frame looks like in a file. */
static struct frame read_frame(const char *path) {
    FILE *file = fopen(path, "rb");
    char kind;
    int width, height;
    if (file && fscanf(file, "P%c", &kind) == 1 && (kind == '5' || kind == '6') && is_side(width = number(file)) &&
        is_side(height = number(file)) && number(file) == 255) {
        fgetc(file); /* the one space that ends the head */
        const int channels = kind == '6' ? 3 : 1;
        const size_t size = (size_t)width * height * channels;
        uint8_t *pixels = malloc(size);
        if (pixels && fread(pixels, 1, size, file) == size) {
            fclose(file);
            return (struct frame){pixels, width, height, channels};
        }
    }
    const bool unread = !file || ferror(file);
    fprintf(stderr, "classify: %s: %s\n", path,
            unread ? strerror(errno) : "not a binary PPM or PGM of 8 bits, or not all of one");
    exit(1);
}

static void classify(const char *path) {
    static uint8_t input[MODEL_INPUT_BYTES];
    const struct frame frame = read_frame(path);
    const size_t words = FIT_WORDS(frame.width, frame.height, MODEL_SIZE);
    int32_t *work = calloc(words, sizeof *work);
    need(!work || !fit(&frame, &model_preprocess, input, work, words), "the frame can't be resized");
    free(work);
    free((void *)frame.pixels);
    infer(input); /* the first run is slower */
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const float *outputs = infer(input);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double ms = 1e3 * (double)(end.tv_sec - begin.tv_sec) + 1e-6 * (double)(end.tv_nsec - begin.tv_nsec);
    printf("%s: %.3f ms\n", path, ms);
    print_best(outputs);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fputs("usage: classify FRAME.ppm...\n       classify --self-test\n", stderr);
        return 2;
    }
    load();
    if (strcmp(argv[1], "--self-test") == 0) return self_test(infer) ? 0 : 1;
    for (int i = 1; i < argc; ++i) classify(argv[i]);
    return 0;
}
