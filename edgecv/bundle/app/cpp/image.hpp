#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

// RGB, 8 bits a channel, row by row from the top.
struct Image {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;
};

// Read a file's bytes. Throws std::runtime_error where it can't.
std::vector<std::uint8_t> read_bytes(const std::filesystem::path& path);

// Read a JPEG or PNG as training did: upright by its EXIF, transparent pixels white, colour profile and gamma ignored.
Image read_image(const std::filesystem::path& path);
