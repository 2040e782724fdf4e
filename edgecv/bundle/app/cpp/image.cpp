#include "image.hpp"

#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr long long max_pixels = 89'478'485;  // training refuses more: a small file can claim to be huge

Image blank(int width, int height) {
    if (width <= 0 || height <= 0 || static_cast<long long>(width) * height > max_pixels)
        throw std::runtime_error("more pixels than an image may have");
    return {width, height, Bytes(std::size_t{3} * width * height)};
}

// Reads numbers of a TIFF block, which says itself in which order their bytes are.
struct Tiff {
    const std::uint8_t* begin;
    std::size_t size;

    unsigned number(std::size_t at, int count) const {
        if (at > size || size - at < static_cast<std::size_t>(count)) throw std::out_of_range("EXIF ends early");
        unsigned value = 0;
        for (int i = 0; i < count; ++i) value = value << 8 | begin[begin[0] == 'I' ? at + count - 1 - i : at + i];
        return value;
    }

    // The EXIF orientation: 1 to 8, and 1 where the block does not tell.
    unsigned orientation() const try {
        const std::size_t directory = number(4, 4);
        const unsigned entries = number(directory, 2);
        for (unsigned i = 0; i < entries; ++i) {
            const std::size_t entry = directory + 2 + 12 * std::size_t{i};
            if (number(entry, 2) == 0x0112) return number(entry + 8, 2);
        }
        return 1;
    } catch (const std::out_of_range&) {
        return 1;
    }
};

// The EXIF orientation of a JPEG: in its first APP1 segment that starts with "Exif".
unsigned orientation(const Bytes& jpeg) {
    for (std::size_t at = 2; at + 10 < jpeg.size() && jpeg[at] == 0xFF && jpeg[at + 1] != 0xDA;) {
        const std::size_t length = jpeg[at + 2] << 8 | jpeg[at + 3];
        const bool exif = jpeg[at + 1] == 0xE1 && std::string(&jpeg[at + 4], &jpeg[at + 8]) == "Exif";
        if (exif) return Tiff{&jpeg[at + 10], std::min(length - 8, jpeg.size() - at - 10)}.orientation();
        at += 2 + length;
    }
    return 1;
}

Image turned(const Image& image, unsigned orientation) {
    if (orientation < 2 || orientation > 8) return image;
    const bool transposed = orientation >= 5;
    const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    Image result = blank(transposed ? image.height : image.width, transposed ? image.width : image.height);
    auto to = result.pixels.begin();
    for (int y = 0; y < result.height; ++y)
        for (int x = 0; x < result.width; ++x) {
            int from_x = transposed ? y : x, from_y = transposed ? x : y;
            if (flip_x) from_x = image.width - 1 - from_x;
            if (flip_y) from_y = image.height - 1 - from_y;
            to = std::copy_n(&image.pixels[3 * (std::size_t(from_y) * image.width + from_x)], 3, to);
        }
    return result;
}

Image decode_jpeg(const Bytes& bytes) {
    const std::unique_ptr<void, decltype(&tjDestroy)> decoder(tjInitDecompress(), tjDestroy);
    int width, height, sampling, colours;
    if (tjDecompressHeader3(decoder.get(), bytes.data(), bytes.size(), &width, &height, &sampling, &colours))
        throw std::runtime_error(tjGetErrorStr2(decoder.get()));
    Image image = blank(width, height);
    if (tjDecompress2(decoder.get(), bytes.data(), bytes.size(), image.pixels.data(), width, 0, height, TJPF_RGB, 0)) {
        if (tjGetErrorCode(decoder.get()) == TJERR_FATAL) throw std::runtime_error(tjGetErrorStr2(decoder.get()));
        std::cerr << "classify: warning: " << tjGetErrorStr2(decoder.get()) << '\n';
    }
    return turned(image, orientation(bytes));
}

// A PNG without its gAMA chunk, by which libpng would correct the colours and training does not; and its orientation.
std::pair<Bytes, unsigned> plain(const Bytes& png) {
    Bytes kept(png.begin(), png.begin() + 8);
    unsigned turn = 1;
    std::size_t at = 8;
    while (png.size() - at >= 12) {  // a chunk: length, kind, content, checksum
        const std::size_t length = std::size_t{png[at]} << 24 | png[at + 1] << 16 | png[at + 2] << 8 | png[at + 3];
        if (length > png.size() - at - 12) break;
        const std::string kind(&png[at + 4], &png[at + 8]);
        if (kind == "eXIf") turn = Tiff{&png[at + 8], length}.orientation();
        if (kind != "gAMA") kept.insert(kept.end(), &png[at], &png[at] + 12 + length);
        at += 12 + length;
    }
    kept.insert(kept.end(), png.begin() + at, png.end());  // what is cut short, libpng refuses
    return {kept, turn};
}

Image decode_png(const Bytes& file) {
    const auto [bytes, turn] = plain(file);
    png_image png{};
    png.version = PNG_IMAGE_VERSION;
    const std::unique_ptr<png_image, decltype(&png_image_free)> freed(&png, png_image_free);
    if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) throw std::runtime_error(png.message);
    png.format = PNG_FORMAT_RGBA;
    png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
    Image image = blank(static_cast<int>(png.width), static_cast<int>(png.height));
    Bytes rgba(PNG_IMAGE_SIZE(png));
    if (!png_image_finish_read(&png, nullptr, rgba.data(), 0, nullptr)) throw std::runtime_error(png.message);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
        const int alpha = rgba[i / 3 * 4 + 3];
        const int colour = rgba[i / 3 * 4 + i % 3];
        image.pixels[i] = static_cast<std::uint8_t>((colour * alpha + 255 * (255 - alpha) + 127) / 255);
    }
    return turned(image, turn);
}

}  // namespace

Bytes read_bytes(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    Bytes bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw std::runtime_error("can't read " + path.string());
    return bytes;
}

Image read_image(const std::filesystem::path& path) try {
    const Bytes bytes = read_bytes(path);
    if (bytes.size() > 8 && bytes[0] == 0xFF && bytes[1] == 0xD8) return decode_jpeg(bytes);
    if (bytes.size() > 8 && !png_sig_cmp(bytes.data(), 0, 8)) return decode_png(bytes);
    throw std::runtime_error("neither a JPEG nor a PNG");
} catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
}
