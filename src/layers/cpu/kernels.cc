// The operators of cells.py: convolutions by the oneDNN that MindSpore brings, the rest in loops that the compiler
// vectorises. Images are channels-last, (N, H, W, C), float32 or bfloat16; everything else is float32.
//
// What MindSpore calls has the signature of its custom operators: inputs and then outputs, with their shapes and types.
// A status other than 0 is an error. library.py builds this file and starts it, once per process.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "batch_norm.h"
#include "bfloat16.h"
#include "convolution.h"
#include "onednn.h"
#include "threads.h"

namespace {

std::mutex one_at_a_time;  // of the operators: they share the threads and the memory for weights

constexpr int64_t WORTH_SHARING = 16384;  // numbers that are read once: below it threads cost more than they save

struct Call {
  int count;  // of inputs and outputs
  int *ndims;
  void **data;
  int64_t **shapes;
  const char **types;
  template <typename T>
  T *as(int i) const {
    return static_cast<T *>(data[i]);
  }
  float *floats(int i) const { return as<float>(i); }
  int64_t rows(int i) const { return shapes[i][0] * shapes[i][1] * shapes[i][2]; }
};

int run(void (*body)(const Call &), const Call &call) {
  try {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    if (!pool) throw std::runtime_error("start was not called");
    // It holds for the calling thread alone, and MindSpore's threads take turns.
    dnnl_threadpool_interop_set_max_concurrency(pool->get_num_threads());
    body(call);
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "CPU layers: %s\n", error.what());
    return 1;
  }
}

#define OPERATOR(name)                                                                                              \
  static void name##_of(const Call &call);                                                                         \
  extern "C" int name(int count, void **data, int *ndims, int64_t **shapes, const char **types, void *, void *) {  \
    return run(name##_of, Call{count, ndims, data, shapes, types});                                                \
  }                                                                                                                \
  static void name##_of(const Call &call)

// Call body with a null pointer of the type of the images in place `image`.
template <typename Body>
void with_type(const Call &call, int image, const Body &body) {
  if (!std::strcmp(call.types[image], "float32"))
    body(static_cast<float *>(nullptr));
  else if (!std::strcmp(call.types[image], "bfloat16"))
    body(static_cast<bfloat16 *>(nullptr));
  else
    throw std::runtime_error(std::string("images of type ") + call.types[image]);
}

// The sum of the squares of `count` numbers from `first` on.
double square_sum(const float *first, int64_t count) {
  constexpr int LANES = 32, BLOCK = 8192;  // what the compiler adds up side by side; then in double precision
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += BLOCK) {
    const int64_t end = std::min<int64_t>(begin + BLOCK, count);
    float lanes[LANES] = {};
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES)
#pragma omp simd
      for (int lane = 0; lane < LANES; ++lane) lanes[lane] += first[i + lane] * first[i + lane];
    for (; i < end; ++i) sum += static_cast<double>(first[i]) * first[i];
    for (float lane : lanes) sum += lane;
  }
  return sum;
}

#define TYPE std::remove_pointer_t<decltype(type)>

// What batch norm multiplies by and adds, per channel: of gamma, beta and statistics, mean and variance (2, C).
struct Affine {
  std::vector<float> scale, shift;
  std::vector<double> inverse;  // of the deviation
  Affine(const float *gamma, const float *beta, const float *statistics, int64_t channels)
      : scale(channels), shift(channels), inverse(channels) {
    for (int64_t c = 0; c < channels; ++c) {
      inverse[c] = 1 / std::sqrt(static_cast<double>(statistics[channels + c]) + EPSILON);
      scale[c] = static_cast<float>(gamma[c] * inverse[c]);
      shift[c] = static_cast<float>(beta[c] - statistics[c] * (gamma[c] * inverse[c]));
    }
  }
};

template <End end>
void normalise_of(const Call &call) {  // x, gamma, beta, statistics, [shortcut] -> y
  const int64_t channels = call.shapes[0][3];
  const Affine affine(call.floats(1), call.floats(2), call.floats(3), channels);
  with_type(call, 0, [&](auto *type) {
    normalise<TYPE, end>(call.as<TYPE>(0), affine.scale.data(), affine.shift.data(),
                         end == ADD_RELU ? call.as<TYPE>(4) : nullptr, call.rows(0), channels,
                         call.as<TYPE>(end == ADD_RELU ? 5 : 4));
  });
}

template <End end>
void sums_of(const Call &call) {  // x, gradient, gamma, beta, statistics, [y] -> d_gamma, d_beta, both (2, C), [passed]
  const int64_t channels = call.shapes[0][3];
  const int out = end == ADD_RELU ? 6 : 5;
  const Affine affine(call.floats(2), call.floats(3), call.floats(4), channels);
  float *d_gamma = call.floats(out), *d_beta = call.floats(out + 1), *both = call.floats(out + 2);
  std::vector<double> sums;
  with_type(call, 0, [&](auto *type) {
    sums = gradient_sums<TYPE, end>(call.as<TYPE>(0), end == ADD_RELU ? call.as<TYPE>(5) : nullptr, call.as<TYPE>(1),
                                    affine.scale.data(), affine.shift.data(), call.floats(4), call.rows(0), channels,
                                    end == ADD_RELU ? call.as<TYPE>(out + 3) : nullptr);
  });
  for (int64_t c = 0; c < channels; ++c) {
    d_beta[c] = both[c] = static_cast<float>(sums[c]);
    d_gamma[c] = both[channels + c] =
        static_cast<float>(sums[channels + c] * affine.inverse[c]);
  }
}

template <End end>
void gradient_of(const Call &call) {  // x, gradient, gamma, beta, statistics, both: means over the ranks -> dx
  const int64_t rows = call.rows(0), channels = call.shapes[0][3];
  const Affine affine(call.floats(2), call.floats(3), call.floats(4), channels);
  const float *both = call.floats(5);
  std::vector<float> slope(channels), constant(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double scale = affine.scale[c] / static_cast<double>(rows);
    slope[c] = static_cast<float>(-scale * affine.inverse[c] * both[channels + c]);
    constant[c] = static_cast<float>(-scale * both[c] - slope[c] * static_cast<double>(call.floats(4)[c]));
  }
  with_type(call, 0, [&](auto *type) {
    gradient<TYPE, end>(call.as<TYPE>(0), call.as<TYPE>(1), affine.scale.data(), affine.shift.data(), slope.data(),
                        constant.data(), rows, channels, call.as<TYPE>(6));
  });
}

void convolution_of(Direction direction, const Call &call, int x, int w, int y) {
  with_type(call, direction == TO_INPUT ? y : x, [&](auto *type) {
    convolve(direction, call.as<TYPE>(x), call.data[w], call.as<TYPE>(y), call.shapes[x],
             call.shapes[w], call.shapes[y]);
  });
}

}  // namespace

// Make the threads. They may run on the cores of the thread that calls this. Returns 0, or 1 where oneDNN is not of
// version 3, or 2 where it does not work.
extern "C" int start(int threads) {
  if (dnnl_version()->major != 3) return 1;
  std::lock_guard<std::mutex> lock(one_at_a_time);
  if (pool) return 0;
  auto *made = new Pool(threads);  // never destroyed: its threads last as long as the process
  dnnl_threadpool_interop_set_max_concurrency(threads);
  if (dnnl_engine_create(&engine, CPU, 0) || dnnl_threadpool_interop_stream_create(&stream, engine, made)) return 2;
  pool = made;
  return 0;
}

OPERATOR(convolution) { convolution_of(FORWARD, call, 0, 1, 2); }  // x, w -> y

OPERATOR(convolution_to_input) { convolution_of(TO_INPUT, call, 3, 1, 0); }  // dy, w, x (its shape) -> dx

OPERATOR(convolution_to_weights) { convolution_of(TO_WEIGHTS, call, 0, 3, 1); }  // x, dy, w (its shape) -> dw

// tensors ... -> their length as one vector (1,)
OPERATOR(gradient_norm) {
  double sum = 0;
  for (int input = 0; input + 1 < call.count; ++input) {
    int64_t numbers = 1;
    for (int axis = 0; axis < call.ndims[input]; ++axis) numbers *= call.shapes[input][axis];
    if (numbers < WORTH_SHARING) {
      sum += square_sum(call.floats(input), numbers);
      continue;
    }
    std::vector<double> parts(pool->get_num_threads());
    in_parts(numbers, [&](int64_t first, int64_t last, int thread) {
      parts[thread] = square_sum(call.floats(input) + first, last - first);
    });
    for (double part : parts) sum += part;
  }
  call.floats(call.count - 1)[0] = static_cast<float>(std::sqrt(sum));
}

OPERATOR(batch_statistics) {  // x -> mean and biased variance (2, C)
  const int64_t channels = call.shapes[0][3];
  with_type(call, 0, [&](auto *type) { statistics(call.as<TYPE>(0), call.rows(0), channels, call.floats(1)); });
}

// statistics of all ranks (2, C), running mean and variance, x (its shape), number of ranks -> new running mean and
// variance (C,), the variance unbiased
OPERATOR(running_statistics) {
  const int64_t channels = call.shapes[1][0];
  const double count = static_cast<double>(call.rows(3)) * call.floats(4)[0];
  const float unbiased = static_cast<float>(count / std::max(count - 1, 1.0));
  for (int64_t c = 0; c < channels; ++c) {
    call.floats(5)[c] = KEPT * call.floats(1)[c] + (1 - KEPT) * call.floats(0)[c];
    call.floats(6)[c] = KEPT * call.floats(2)[c] + (1 - KEPT) * unbiased * call.floats(0)[channels + c];
  }
}

OPERATOR(normalise_plain) { normalise_of<PLAIN>(call); }
OPERATOR(normalise_relu) { normalise_of<RELU>(call); }
OPERATOR(normalise_add_relu) { normalise_of<ADD_RELU>(call); }
OPERATOR(gradient_sums_plain) { sums_of<PLAIN>(call); }
OPERATOR(gradient_sums_relu) { sums_of<RELU>(call); }
OPERATOR(gradient_sums_add_relu) { sums_of<ADD_RELU>(call); }
OPERATOR(gradient_plain) { gradient_of<PLAIN>(call); }
OPERATOR(gradient_relu) { gradient_of<RELU>(call); }

OPERATOR(add) {  // two tensors -> their sum
  with_type(call, 0, [&](auto *type) {
    const TYPE *one = call.as<TYPE>(0), *two = call.as<TYPE>(1);
    TYPE *out = call.as<TYPE>(2);
    in_parts(call.rows(0) * call.shapes[0][3], [=](int64_t first, int64_t last, int) {
#pragma omp simd
      for (int64_t i = first; i < last; ++i) out[i] = narrow<TYPE>(wide(one[i]) + wide(two[i]));
    });
  });
}

// Kernel 3, stride 2, padding 1. x -> y and which of the nine pixels it is
OPERATOR(max_pool) {
  const int64_t height = call.shapes[0][1], width = call.shapes[0][2], channels = call.shapes[0][3];
  const int64_t out_height = call.shapes[1][1], out_width = call.shapes[1][2];
  with_type(call, 0, [&](auto *type) {
    in_parts(call.shapes[0][0] * out_height, [&](int64_t first, int64_t last, int) {
      for (int64_t line = first; line < last; ++line) {
        const int64_t image = line / out_height, top = line % out_height * 2 - 1;
        for (int64_t column = 0; column < out_width; ++column) {
          TYPE *y = call.as<TYPE>(1) + (line * out_width + column) * channels;
          uint8_t *which = call.as<uint8_t>(2) + (line * out_width + column) * channels;
          bool begun = false;
          for (int tap = 0; tap < 9; ++tap) {
            const int64_t h = top + tap / 3, w = column * 2 - 1 + tap % 3;
            if (h < 0 || h >= height || w < 0 || w >= width) continue;
            const TYPE *x = call.as<TYPE>(0) + ((image * height + h) * width + w) * channels;
#pragma omp simd
            for (int64_t c = 0; c < channels; ++c) {
              const float value = wide(x[c]), most = wide(y[c]);
              const bool more = !begun | ((most == most) & !(value <= most));  // NaN passes; & and | do not branch
              y[c] = narrow<TYPE>(more ? value : most);
              which[c] = more ? static_cast<uint8_t>(tap) : which[c];
            }
            begun = true;
          }
        }
      }
    });
  });
}

OPERATOR(max_pool_gradient) {  // dy, which, x (its shape) -> dx
  const int64_t height = call.shapes[2][1], width = call.shapes[2][2], channels = call.shapes[2][3];
  const int64_t out_height = call.shapes[0][1], out_width = call.shapes[0][2];
  with_type(call, 0, [&](auto *type) {
    in_parts(call.shapes[2][0] * height, [&](int64_t first, int64_t last, int) {
      std::vector<float> sums(channels);
      for (int64_t line = first; line < last; ++line) {
        const int64_t image = line / height, h = line % height;
        for (int64_t w = 0; w < width; ++w) {
          std::fill(sums.begin(), sums.end(), 0.0f);
          for (int64_t oh = h / 2; oh <= std::min((h + 1) / 2, out_height - 1); ++oh) {
            for (int64_t ow = w / 2; ow <= std::min((w + 1) / 2, out_width - 1); ++ow) {
              const uint8_t tap = static_cast<uint8_t>((h - (oh * 2 - 1)) * 3 + w - (ow * 2 - 1));
              const int64_t at = ((image * out_height + oh) * out_width + ow) * channels;
              const uint8_t *which = call.as<uint8_t>(1) + at;
              const TYPE *dy = call.as<TYPE>(0) + at;
              float *sum = sums.data();
#pragma omp simd
              for (int64_t c = 0; c < channels; ++c) {
                const float value = wide(dy[c]);
                sum[c] += which[c] == tap ? value : 0.0f;
              }
            }
          }
          std::transform(sums.begin(), sums.end(), call.as<TYPE>(3) + (line * width + w) * channels, narrow<TYPE>);
        }
      }
    });
  });
}

OPERATOR(mean_of_pixels) {  // x -> (N, C), float32
  const int64_t pixels = call.shapes[0][1] * call.shapes[0][2], channels = call.shapes[0][3];
  with_type(call, 0, [&](auto *type) {
    in_parts(call.shapes[0][0], [&](int64_t first, int64_t last, int) {
      for (int64_t image = first; image < last; ++image) {
        const TYPE *x = call.as<TYPE>(0) + image * pixels * channels;
        float *out = call.floats(1) + image * channels;
        std::fill(out, out + channels, 0.0f);
        for (int64_t pixel = 0; pixel < pixels; ++pixel)
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) out[c] += wide(x[pixel * channels + c]);
        for (int64_t c = 0; c < channels; ++c) out[c] /= static_cast<float>(pixels);
      }
    });
  });
}

OPERATOR(mean_of_pixels_gradient) {  // d mean (N, C), x (its type and shape) -> dx
  const int64_t pixels = call.shapes[1][1] * call.shapes[1][2], channels = call.shapes[1][3];
  with_type(call, 1, [&](auto *type) {
    in_parts(call.shapes[1][0], [&](int64_t first, int64_t last, int) {
      for (int64_t image = first; image < last; ++image) {
        const float *of_mean = call.floats(0) + image * channels;
        TYPE *dx = call.as<TYPE>(2) + image * pixels * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) dx[c] = narrow<TYPE>(of_mean[c] / static_cast<float>(pixels));
        for (int64_t pixel = 1; pixel < pixels; ++pixel) std::copy_n(dx, channels, dx + pixel * channels);
      }
    });
  });
}

OPERATOR(channels_last) {  // images (N, 3, H, W), float32 -> (N, H, W, 3)
  const int64_t pixels = call.shapes[0][2] * call.shapes[0][3];
  if (call.shapes[0][1] != 3) throw std::runtime_error("images have 3 channels");
  with_type(call, 1, [&](auto *type) {
    in_parts(call.shapes[0][0], [&](int64_t first, int64_t last, int) {
      for (int64_t image = first; image < last; ++image) {
        const float *red = call.floats(0) + image * 3 * pixels, *green = red + pixels, *blue = green + pixels;
        TYPE *out = call.as<TYPE>(1) + image * 3 * pixels;
#pragma omp simd
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
          out[3 * pixel] = narrow<TYPE>(red[pixel]);
          out[3 * pixel + 1] = narrow<TYPE>(green[pixel]);
          out[3 * pixel + 2] = narrow<TYPE>(blue[pixel]);
        }
      }
    });
  });
}
