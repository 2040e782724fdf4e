// Classify on a board, by TensorFlow Lite Micro: the self-test first, then what the camera gives.
#include <cstdio>

#include "fit.h"
#include "golden.h"
#include "model.h"
#include "operators.h"
#include "self_test.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/micro_time.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

using namespace tflite;

alignas(16) uint8_t arena[MODEL_ARENA_BYTES];
MicroInterpreter* interpreter;

const float* infer(const uint8_t* input) {
    TfLiteTensor* tensor = interpreter->input(0);
    if (tensor->type != kTfLiteUInt8 || tensor->bytes != MODEL_INPUT_BYTES) return nullptr;
    for (int i = 0; i < MODEL_INPUT_BYTES; ++i) tensor->data.uint8[i] = input[i];
    if (interpreter->Invoke() != kTfLiteOk) return nullptr;
    const TfLiteTensor* output = interpreter->output(0);
    return output->type == kTfLiteFloat32 && output->bytes == MODEL_CLASSES * sizeof(float) ? output->data.f : nullptr;
}

// Put the board's camera here; until then the golden photograph is in front of it.
frame next_frame() {
    return {golden_frame, GOLDEN_WIDTH, GOLDEN_HEIGHT, 3};
}

bool classify() {
    static uint8_t input[MODEL_INPUT_BYTES];
    static int32_t work[FIT_WORDS(GOLDEN_WIDTH, GOLDEN_HEIGHT, MODEL_SIZE)];  // of the largest frame
    const frame frame = next_frame();
    if (!fit(&frame, &model_preprocess, input, work, sizeof work / sizeof *work)) return false;
    const uint32_t begin = GetCurrentTimeTicks();
    const float* outputs = infer(input);
    const uint32_t ticks = GetCurrentTimeTicks() - begin;
    if (!outputs) return false;
    if (ticks_per_second() > 0) std::printf("%.3f ms\n", 1e3 * ticks / ticks_per_second());
    print_best(outputs);
    return true;
}

}  // namespace

int main() {
    static MicroMutableOpResolver<MODEL_OPERATORS> resolver;
    add_operators(resolver);
    static MicroInterpreter made(GetModel(model), resolver, arena, sizeof arena);
    interpreter = &made;
    if (made.AllocateTensors() != kTfLiteOk) {
        std::printf("the arena of %d bytes is too small, or an operator is missing. MODEL_ARENA_BYTES is by TFLM's "
                    "reference kernels; CMSIS-NN takes scratch on top\n", MODEL_ARENA_BYTES);
        return 1;
    }
    std::printf("arena: %u of %d bytes used\n", static_cast<unsigned>(made.arena_used_bytes()), MODEL_ARENA_BYTES);
    return self_test(infer) && classify() ? 0 : 1;
}
