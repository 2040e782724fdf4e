/* From a camera's frame to the model's input, as training does it: without malloc, in memory that the caller gives. */
#ifndef FIT_H
#define FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Pixels row by row from the top, without padding: RGB888 with 3 channels, grey with 1. */
struct frame {
    const uint8_t *pixels;
    int width, height, channels;
};

/* How training made the model's input. The model subtracts mean and divides by scale itself: feed it 0 to 255. */
struct preprocess {
    int size;             /* of each side of the input */
    bool crop;            /* the centre square; else the whole frame, stretched */
    double crop_fraction; /* of the shorter side */
    bool bicubic;         /* else bilinear */
    double mean, scale;
};

/* How many int32_t `fit` needs for frames up to `width` x `height`: 3,916 for 640 x 480 and an input of 224. */
#define FIT_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FIT_WORDS(width, height, size)                                            \
    (4 * FIT_MAX(width, size) + 3 * (size) + FIT_MAX(3 * (size), width) + \
     4 * FIT_MAX(height, size) / (size) + 4)

/* Resize a frame to `size` x `size` RGB888, antialiased. Returns false, and writes nothing, where the frame is empty
 * or `words` are fewer than FIT_WORDS. */
bool fit(const struct frame *frame, const struct preprocess *preprocess, uint8_t *input, int32_t *work, size_t words);

#ifdef __cplusplus
}
#endif
#endif
