#include "fit.h"

#include <math.h>

#define FRACTION_BITS 22 /* 8 of 32 bits are the pixel's, 2 are left for sums that overshoot */
#define HALF (1 << (FRACTION_BITS - 1))

/* One axis: which part of `length` source pixels is resized to `size`, and how. */
struct axis {
    int length, size;
    float from, to;
    bool bicubic;
};

/* The weight of a pixel at a distance: a triangle, or Keys' cubic with a = -0.5. */
static double weight_at(double x, bool bicubic) {
    x = fabs(x);
    if (!bicubic) return x < 1.0 ? 1.0 - x : 0.0;
    return x < 1.0 ? (1.5 * x - 2.5) * x * x + 1.0 : x < 2.0 ? ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 : 0.0;
}

/* Which source pixels result `i` is summed from: `weights`, in units of 2^-22, from pixel `first` on. Returns how many.
 * Where the axis shrinks, the filter widens with the factor, so that no pixel is passed over (antialiasing). */
static int taps(const struct axis *axis, int i, int32_t *first, int32_t *weights) {
    const double scale = (double)(axis->to - axis->from) / axis->size, stretch = scale > 1.0 ? scale : 1.0;
    const double centre = axis->from + (i + 0.5) * scale, reach = (axis->bicubic ? 2.0 : 1.0) * stretch;
    int begin = (int)(centre - reach + 0.5), end = (int)(centre + reach + 0.5);
    double sum = 0.0;
    if (begin < 0) begin = 0;
    if (end > axis->length) end = axis->length;
    for (int x = begin; x < end; ++x) sum += weight_at((x + 0.5 - centre) / stretch, axis->bicubic);
    for (int x = begin; x < end; ++x) {
        const double weight = weight_at((x + 0.5 - centre) / stretch, axis->bicubic);
        weights[x - begin] = (int32_t)lround(weight / sum * (1 << FRACTION_BITS));
    }
    *first = begin;
    return end - begin;
}

static uint8_t rounded(int32_t sum) {
    sum >>= FRACTION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Resize one row of the frame. `plan`: for each result the first pixel, how many, and their weights. */
static void resize_row(const uint8_t *row, int channels, int size, const int32_t *plan, uint8_t *result) {
    for (int i = 0; i < size; ++i) {
        const uint8_t *pixel = row + (size_t)plan[0] * channels;
        const int count = plan[1];
        const int32_t *weights = plan + 2;
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int k = 0; k < count; ++k, pixel += channels) {
            red += weights[k] * pixel[0];
            green += weights[k] * pixel[channels == 3 ? 1 : 0];
            blue += weights[k] * pixel[channels == 3 ? 2 : 0];
        }
        *result++ = rounded(red);
        *result++ = rounded(green);
        *result++ = rounded(blue);
        plan = weights + count;
    }
}

static void axes(const struct frame *frame, const struct preprocess *how, struct axis *across, struct axis *down) {
    const int shorter = frame->width < frame->height ? frame->width : frame->height;
    const double side = shorter * how->crop_fraction;
    const double left = how->crop ? (frame->width - side) / 2 : 0.0, top = how->crop ? (frame->height - side) / 2 : 0.0;
    const double right = how->crop ? left + side : frame->width, bottom = how->crop ? top + side : frame->height;
    *across = (struct axis){frame->width, how->size, (float)left, (float)right, how->bicubic};
    *down = (struct axis){frame->height, how->size, (float)top, (float)bottom, how->bicubic};
}

/* Sum rows of the frame to one of the result: first each row across, then all of them down. */
static void rows_first(const struct frame *frame, int size, const int32_t *plan, int first, int count,
                       const int32_t *weights, int32_t *sums, uint8_t *result) {
    for (int i = 0; i < 3 * size; ++i) sums[i] = HALF;
    for (int k = 0; k < count; ++k) {
        const uint8_t *row = frame->pixels + (size_t)(first + k) * frame->width * frame->channels;
        resize_row(row, frame->channels, size, plan, result); /* not yet the result: a row of it */
        for (int i = 0; i < 3 * size; ++i) sums[i] += weights[k] * result[i];
    }
    for (int i = 0; i < 3 * size; ++i) result[i] = rounded(sums[i]);
}

/* The same the other way: first all rows down, then the one that is left across. */
static void columns_first(const struct frame *frame, int size, const int32_t *plan, int first, int count,
                          const int32_t *weights, uint8_t *row, uint8_t *result) {
    const int values = frame->width * frame->channels;
    const uint8_t *from = frame->pixels + (size_t)first * values;
    for (int i = 0; i < values; ++i) {
        int32_t sum = HALF;
        for (int k = 0; k < count; ++k) sum += weights[k] * from[(size_t)k * values + i];
        row[i] = rounded(sum);
    }
    resize_row(row, frame->channels, size, plan, result);
}

bool fit(const struct frame *frame, const struct preprocess *how, uint8_t *input, int32_t *work, size_t words) {
    const int size = how->size, width = frame->width, height = frame->height;
    if (width < 1 || height < 1 || (frame->channels != 1 && frame->channels != 3)) return false;
    if (words < (size_t)FIT_WORDS(width, height, size)) return false;
    struct axis across, down;
    axes(frame, how, &across, &down);

    int32_t *plan = work, *end = work;
    for (int x = 0; x < size; ++x, end += 2 + end[1]) end[1] = taps(&across, x, &end[0], end + 2);
    int32_t *sums = end, *weights = sums + FIT_MAX(3 * size, width);
    const bool tall = height > size && height - size > 2 * (width - size); /* then Pillow takes columns first */
    for (int y = 0; y < size; ++y, input += 3 * size) {
        int32_t first;
        const int count = taps(&down, y, &first, weights);
        if (tall) columns_first(frame, size, plan, first, count, weights, (uint8_t *)sums, input);
        else rows_first(frame, size, plan, first, count, weights, sums, input);
    }
    return true;
}
