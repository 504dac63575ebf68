// Batch norm over rows (R, C): the pixels of all images. What comes after it is done in the same pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "bfloat16.h"
#include "threads.h"

namespace {

constexpr int64_t ROWS = 256;  // are added up in float32; beyond, in float64
constexpr float EPSILON = 1e-5f, KEPT = 0.9f;

// Return the sums (2, C) over all rows of what add(row, number of rows, first, second) adds to `first` and `second`.
template <typename Add>
std::vector<double> sum_rows(int64_t rows, int64_t channels, const Add &add) {
  const int threads = pool->get_num_threads();
  std::vector<double> totals(threads * 2 * channels);
  in_parts(rows, [&](int64_t first, int64_t last, int thread) {
    std::vector<float> sums(2 * channels);
    double *total = &totals[thread * 2 * channels];
    for (int64_t row = first; row < last; row += ROWS) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      float *one = sums.data(), *two = one + channels;
      int64_t end = std::min(row + ROWS, last), r = row;
      for (; r + 4 <= end; r += 4) add(r, std::integral_constant<int, 4>(), one, two);
      for (; r < end; ++r) add(r, std::integral_constant<int, 1>(), one, two);
      for (int64_t c = 0; c < 2 * channels; ++c) total[c] += sums[c];
    }
  });
  for (int thread = 1; thread < threads; ++thread)
    for (int64_t c = 0; c < 2 * channels; ++c) totals[c] += totals[thread * 2 * channels + c];
  return totals;
}

// How batch norm ends: as it is; in a ReLU; in the sum with a shortcut and a ReLU.
enum End { PLAIN, RELU, ADD_RELU };

// Mean and biased variance (2, C), by sums of the differences to the first row: without that the squares of a large
// mean would cover a small variance.
template <typename T>
void statistics(const T *x, int64_t rows, int64_t channels, float *out) {
  std::vector<float> origin(channels);
  std::transform(x, x + channels, origin.begin(), [](T value) { return wide(value); });
  const float *first = origin.data();
  const auto sums = sum_rows(rows, channels, [=](int64_t row, auto count, float *one, float *two) {
    const T *from = x + row * channels;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      float sum = 0, squares = 0;
      for (int i = 0; i < count(); ++i) {
        float value = wide(from[i * channels + c]) - first[c];
        sum += value;
        squares += value * value;
      }
      one[c] += sum;
      two[c] += squares;
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = sums[c] / static_cast<double>(rows);
    const double variance = sums[channels + c] / static_cast<double>(rows) - mean * mean;
    out[c] = static_cast<float>(first[c] + mean);
    out[channels + c] = static_cast<float>(variance < 0 ? 0 : variance);  // NaN stays
  }
}

template <typename T, End end>
void normalise(const T *x, const float *scale, const float *shift, const T *shortcut, int64_t rows, int64_t channels,
               T *y) {
  in_parts(rows, [=](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; ++row) {
      const T *from = x + row * channels, *other = shortcut + (end == ADD_RELU ? row * channels : 0);
      T *to = y + row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        float value = std::fma(wide(from[c]), scale[c], shift[c]);
        if (end == ADD_RELU) value += wide(other[c]);
        to[c] = narrow<T>(end == PLAIN || !(value < 0) ? value : 0.0f);  // NaN passes
      }
    }
  });
}

// The gradient that comes through the ReLU, which is open where its output is above 0: that of x, or y.
template <End end>
inline float through(float gradient, float x, float y, float scale, float shift) {
  if (end == PLAIN) return gradient;
  return (end == RELU ? std::fma(x, scale, shift) : y) > 0 ? gradient : 0.0f;
}

// Return the sums of the gradient and of the gradient times x less its mean; `passed` gets the gradient that comes
// through.
template <typename T, End end>
std::vector<double> gradient_sums(const T *x, const T *y, const T *gradient, const float *scale, const float *shift,
                                  const float *mean, int64_t rows, int64_t channels, T *passed) {
  return sum_rows(rows, channels, [=](int64_t row, auto count, float *one, float *two) {
    const int64_t at = row * channels, of_sum = end == ADD_RELU ? at : 0;
    const T *from = x + at, *output = y + of_sum, *incoming = gradient + at;
    T *to = passed + of_sum;
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) {
      float sum = 0, product = 0;
      for (int i = 0; i < count(); ++i) {
        const int64_t j = i * channels + c;
        const float value_of_x = wide(from[j]), value_of_y = end == ADD_RELU ? wide(output[j]) : 0.0f;
        const float value = through<end>(wide(incoming[j]), value_of_x, value_of_y, scale[c], shift[c]);
        if (end == ADD_RELU) to[j] = narrow<T>(value);
        sum += value;
        product += value * (value_of_x - mean[c]);
      }
      one[c] += sum;
      two[c] += product;
    }
  });
}

// dx = scale (g - mean(g) - (x - mean) / deviation * mean(g (x - mean) / deviation)), which is linear in g and x.
template <typename T, End end>
void gradient(const T *x, const T *gradient, const float *scale, const float *shift, const float *slope,
              const float *constant, int64_t rows, int64_t channels, T *out) {
  in_parts(rows, [=](int64_t first, int64_t last, int) {
    for (int64_t row = first; row < last; ++row) {
      const T *from = x + row * channels, *incoming = gradient + row * channels;
      T *to = out + row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float value_of_x = wide(from[c]), value = through<end>(wide(incoming[c]), value_of_x, 0, scale[c], shift[c]);
        to[c] = narrow<T>(std::fma(scale[c], value, std::fma(slope[c], value_of_x, constant[c])));
      }
    }
  });
}

}  // namespace
