#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "image.hpp"

// How far a filter reaches, and its weight at a distance: bilinear is a triangle, bicubic Keys' cubic with a = -0.5.
struct Filter {
    double support;
    double (*weight)(double);
};

inline double triangle(double x) {
    return std::max(0.0, 1.0 - std::abs(x));
}

inline double cubic(double x) {
    x = std::abs(x);
    return x < 1.0 ? (1.5 * x - 2.5) * x * x + 1.0 : x < 2.0 ? ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 : 0.0;
}

constexpr Filter bilinear{1.0, triangle};
constexpr Filter bicubic{2.0, cubic};

constexpr int fraction_bits = 22;  // 8 of 32 bits are the pixel's, 2 are left for sums that overshoot

// The source pixels that one result is summed from, and their weights in units of 2^-22.
struct Taps {
    int first;
    std::vector<std::int32_t> weights;
};

// What each of `size` results reads of a row of `length` pixels, between the places `from` and `to`. Where the row
// shrinks, the filter widens with the factor, so that no pixel is passed over (antialiasing).
inline std::vector<Taps> taps(int length, float from, float to, int size, Filter filter) {
    const double scale = static_cast<double>(to - from) / size, stretch = std::max(scale, 1.0);
    std::vector<Taps> result;
    for (int i = 0; i < size; ++i) {
        const double centre = from + (i + 0.5) * scale, reach = filter.support * stretch;
        const int first = std::max(0, static_cast<int>(centre - reach + 0.5));
        const int last = std::min(length, static_cast<int>(centre + reach + 0.5));
        std::vector<double> weights;
        double sum = 0.0;
        for (int x = first; x < last; ++x) sum += weights.emplace_back(filter.weight((x + 0.5 - centre) / stretch));
        Taps& tap = result.emplace_back(Taps{first, {}});
        for (const double weight : weights)
            tap.weights.push_back(static_cast<std::int32_t>(std::lround(weight / sum * (1 << fraction_bits))));
    }
    return result;
}

// Resize each row to `size`, and swap rows with columns: twice gives an image resized both ways.
inline Image resize_rows(const Image& image, float from, float to, int size, Filter filter) {
    const std::vector<Taps> all = taps(image.width, from, to, size, filter);
    Image result{image.height, size, std::vector<std::uint8_t>(std::size_t{3} * image.height * size)};
    auto out = result.pixels.begin();
    for (const Taps& tap : all)
        for (int y = 0; y < image.height; ++y) {
            const std::uint8_t* in = &image.pixels[3 * (static_cast<std::size_t>(y) * image.width + tap.first)];
            std::int32_t sums[3] = {1 << (fraction_bits - 1), 1 << (fraction_bits - 1), 1 << (fraction_bits - 1)};
            for (const std::int32_t weight : tap.weights)
                for (std::int32_t& sum : sums) sum += *in++ * weight;
            for (const std::int32_t sum : sums)
                *out++ = static_cast<std::uint8_t>(std::clamp(sum >> fraction_bits, 0, 255));
        }
    return result;
}

// Swap rows with columns.
inline Image transposed(const Image& image) {
    Image result{image.height, image.width, std::vector<std::uint8_t>(image.pixels.size())};
    auto out = result.pixels.begin();
    for (int x = 0; x < image.width; ++x)
        for (int y = 0; y < image.height; ++y)
            out = std::copy_n(&image.pixels[3 * (static_cast<std::size_t>(y) * image.width + x)], 3, out);
    return result;
}

// Resize to `size` x `size`: the whole image, or with `crop` the centre square of `crop_fraction` of the shorter side.
// Columns after rows, as Pillow does; before them where the height shrinks by more than twice what the width does.
inline Image resize(const Image& image, int size, bool crop, double crop_fraction, Filter filter) {
    const double side = std::min(image.width, image.height) * crop_fraction;
    const double across = crop ? side : image.width, down = crop ? side : image.height;
    const double left = (image.width - across) / 2, top = (image.height - down) / 2;
    const auto from_x = static_cast<float>(left), to_x = static_cast<float>(left + across);
    const auto from_y = static_cast<float>(top), to_y = static_cast<float>(top + down);
    if (image.height > size && image.height - size > 2 * (image.width - size)) {
        const Image low = resize_rows(transposed(image), from_y, to_y, size, filter);
        return transposed(resize_rows(low, from_x, to_x, size, filter));
    }
    return resize_rows(resize_rows(image, from_x, to_x, size, filter), from_y, to_y, size, filter);
}
