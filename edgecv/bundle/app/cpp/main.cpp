// Classify images with the model of a bundle, by OpenVINO; or check the bundle and this program on its golden images.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <openssl/evp.h>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>
#include <stdexcept>
#include <string>

#include "image.hpp"
#include "resize.hpp"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Bytes = std::vector<std::uint8_t>;

json read_json(const fs::path& path) {
    const Bytes text = read_bytes(path);
    return json::parse(text);
}

std::vector<std::string> read_lines(const fs::path& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("can't read " + path.string());
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
}

// A bundle's model, ready to run, with what an app must know of it.
class Classifier {
public:
    explicit Classifier(const fs::path& bundle)
        : labels(read_lines(bundle / "labels.txt")), preprocess(read_json(bundle / "preprocess.json")) {
        ov::Core core;
        const fs::path xml = bundle / "model.xml", model = fs::exists(xml) ? xml : bundle / "model.tflite";
        request_ = core.compile_model(model.string(), "CPU",
                                      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                                      ov::hint::inference_precision(ov::element::f32))  // bf16 is default where it can
                       .create_infer_request();
        const std::vector<std::size_t> shape = preprocess.at("input").at("shape");
        if (request_.get_input_tensor().get_shape() != shape)
            throw std::runtime_error("preprocess.json's input.shape is not the model's");
        if (request_.get_output_tensor().get_element_type() != ov::element::f32)
            throw std::runtime_error("the model's output is not float32");
    }

    // The bytes that the model's input takes: pixels of 0 to 255, since mean and scale are inside the model.
    Bytes input(const Image& image) const {
        const Filter filter = preprocess.at("filter") == "bicubic" ? bicubic : bilinear;
        const Image fitted = resize(image, preprocess.at("size"), preprocess.at("resize") == "crop",
                                    preprocess.at("crop_fraction"), filter);
        if (!takes_floats()) return fitted.pixels;
        const std::vector<float> values(fitted.pixels.begin(), fitted.pixels.end());
        Bytes bytes(values.size() * sizeof(float));
        std::memcpy(bytes.data(), values.data(), bytes.size());
        return bytes;
    }

    // Pixels of an input's bytes.
    std::vector<float> pixels(const Bytes& input) const {
        if (!takes_floats()) return {input.begin(), input.end()};
        std::vector<float> values(input.size() / sizeof(float));
        std::memcpy(values.data(), input.data(), values.size() * sizeof(float));
        return values;
    }

    std::vector<float> run(const Bytes& input) {
        ov::Tensor tensor = request_.get_input_tensor();
        if (input.size() != tensor.get_byte_size()) throw std::runtime_error("the input is not of the model's size");
        std::memcpy(tensor.data(), input.data(), input.size());
        request_.infer();
        const ov::Tensor output = request_.get_output_tensor();
        return {output.data<float>(), output.data<float>() + output.get_size()};
    }

    // The likeliest label.
    std::string best(const std::vector<float>& outputs) const {
        const std::size_t top = std::max_element(outputs.begin(), outputs.end()) - outputs.begin();
        return top < labels.size() ? labels[top] : "(no label)";
    }

    const std::vector<std::string> labels;
    const json preprocess;

private:
    bool takes_floats() const { return preprocess.at("input").at("dtype") == "float32"; }

    ov::InferRequest request_;
};

void classify(Classifier& classifier, const fs::path& path) {
    const Bytes input = classifier.input(read_image(path));
    classifier.run(input);  // the first run is slower
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<float> outputs = classifier.run(input);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;

    std::vector<std::size_t> order(std::min(outputs.size(), classifier.labels.size()));
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + std::min<std::size_t>(5, order.size());
    std::partial_sort(order.begin(), end, order.end(), [&](auto a, auto b) { return outputs[a] > outputs[b]; });
    std::printf("%s: %.3f ms\n", path.string().c_str(), took.count());
    for (auto i = order.begin(); i != end; ++i) std::printf("  %.4f  %s\n", outputs[*i], classifier.labels[*i].c_str());
}

std::string sha256(const Bytes& bytes) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (!EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr))
        throw std::runtime_error("SHA-256 can't be computed");
    std::string hex;
    for (unsigned i = 0; i < size; ++i) {
        char two[3];
        std::snprintf(two, sizeof two, "%02x", digest[i]);
        hex += two;
    }
    return hex;
}

struct Difference {
    double mean = 0.0, largest = 0.0;
};

Difference difference(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return {INFINITY, INFINITY};
    Difference found;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double apart = std::abs(static_cast<double>(a[i]) - b[i]);
        found.mean += apart / static_cast<double>(a.size());
        found.largest = std::isnan(apart) ? INFINITY : std::max(found.largest, apart);
    }
    return found;
}

// Compares a bundle with what edgecv wrote down of it: the model's bytes before they are loaded, then labels,
// preprocessing, answers and this program's own pixels.
class SelfTest {
public:
    explicit SelfTest(const fs::path& bundle)
        : bundle_(bundle), folder_(bundle / "golden"), golden_(read_json(folder_ / "golden.json")) {}

    bool run() {
        check(!golden_.at("files").empty(), "golden.json has files");
        for (const auto& [name, digest] : golden_.at("files").items())
            check(digest == sha256(read_bytes(bundle_ / name)), name + ": its bytes are those that were verified");
        if (passed_) compare();
        std::printf(passed_ ? "self-test passed\n" : "self-test FAILED\n");
        return passed_;
    }

private:
    void compare() {
        Classifier classifier(bundle_);
        check(golden_.at("labels") == classifier.labels, "labels.txt: names and order");
        for (const auto& [key, value] : golden_.at("preprocess").items())
            check(classifier.preprocess.value(key, json()) == value,
                  "preprocess.json: " + key + " is " + value.dump());
        check(!golden_.at("images").empty(), "golden.json has images");
        for (const json& image : golden_.at("images")) compare(classifier, image);
    }

    void compare(Classifier& classifier, const json& image) {
        const std::string name = image.at("image"), label = image.at("label");
        const std::vector<float> golden = image.at("outputs");
        check(classifier.best(golden) == label, name + ": labels.txt names the golden answer " + label);

        const Bytes input = read_bytes(folder_ / image.at("input").get<std::string>());
        const double outputs = difference(classifier.run(input), golden).largest;
        check_at_most(outputs, golden_.at("tolerance"), name + ": probabilities differ by at most");

        const Bytes own = classifier.input(read_image(folder_ / name));
        const Difference pixels = difference(classifier.pixels(own), classifier.pixels(input));
        check_at_most(pixels.mean, golden_.at("pixel_tolerance"), name + ": pixels differ on average by");
        std::printf("      largest difference of a pixel %g\n", pixels.largest);
        const std::string answer = classifier.best(classifier.run(own));
        check(answer == label, name + ": the way from the image gives " + answer);
    }

    void check_at_most(double got, double allowed, const std::string& what) {
        char figures[64];
        std::snprintf(figures, sizeof figures, " %.3g (allowed %g)", got, allowed);
        check(got <= allowed, what + figures);
    }

    void check(bool holds, const std::string& what) {
        std::printf("%s  %s\n", holds ? "ok  " : "FAIL", what.c_str());
        passed_ = passed_ && holds;
    }

    const fs::path bundle_, folder_;
    const json golden_;
    bool passed_ = true;
};

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 3) {
        std::cerr << "usage: classify BUNDLE IMAGE...\n       classify BUNDLE --self-test\n";
        return 2;
    }
    const fs::path bundle = argv[1];
    if (std::strcmp(argv[2], "--self-test") == 0) return SelfTest(bundle).run() ? 0 : 1;
    Classifier classifier(bundle);
    int failed = 0;
    for (int i = 2; i < argc; ++i) {
        try {
            classify(classifier, argv[i]);
        } catch (const std::exception& error) {  // the other images have their answers
            std::cerr << "classify: " << error.what() << '\n';
            failed = 1;
        }
    }
    return failed;
} catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << '\n';
    return 1;
}
