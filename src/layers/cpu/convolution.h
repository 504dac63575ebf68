// Convolutions and their gradients, by oneDNN.
#pragma once

#include <algorithm>
#include <array>
#include <map>

#include "bfloat16.h"
#include "onednn.h"
#include "threads.h"
#include "weight_gradient.h"

namespace {

struct Convolution {
  void *primitive, *source, *weights, *target;  // target: the layout of the output of the forward convolution
  void *plain;                                  // the layout of the weights outside, OIHW
  void *reorder = nullptr;                      // between the two
};

enum Direction { FORWARD, TO_INPUT, TO_WEIGHTS };

void *plain_desc(const int64_t *dims, int type, int tag) {
  void *desc;
  check(dnnl_memory_desc_create_with_tag(&desc, 4, dims, type, tag), "memory_desc_create");
  return desc;
}

// x (N, H, W, I), w (O, I, K, K), y (N, H', W', O). The padding is K / 2 on all sides, and the stride is 1 or 2, which
// follows from the sizes: H' is H / stride, rounded up.
Convolution make_convolution(Direction direction, int type, const int64_t *x, const int64_t *w, const int64_t *y) {
  const int64_t x_dims[] = {x[0], x[3], x[1], x[2]}, y_dims[] = {y[0], y[3], y[1], y[2]};
  Dims strides{}, dilates{}, before{}, after{};
  for (int i = 0; i < 2; ++i) {
    strides[i] = stride_of(x, y);
    before[i] = w[2 + i] / 2;
    after[i] = (y[1 + i] - 1) * strides[i] + w[2 + i] - x[1 + i] - before[i];  // what makes the sizes fit
  }
  void *source = plain_desc(x_dims, type, NHWC), *target = plain_desc(y_dims, type, NHWC);
  void *any = plain_desc(w, type, ANY), *forward;
  // oneDNN fixes threads and layouts when a primitive is made, by the concurrency that `run` has set for this thread.
  check(dnnl_convolution_forward_primitive_desc_create(&forward, engine, FORWARD_TRAINING, DIRECT, source, any, nullptr,
                                                       target, strides, dilates, before, after, nullptr),
        "convolution");
  void *desc = forward;
  int weights = QUERY_WEIGHTS;
  if (direction == TO_INPUT) {
    check(dnnl_convolution_backward_data_primitive_desc_create(&desc, engine, DIRECT, source, any, target, strides,
                                                               dilates, before, after, forward, nullptr),
          "convolution's gradient of the input");
  } else if (direction == TO_WEIGHTS) {
    weights = QUERY_DIFF_WEIGHTS;
    check(dnnl_convolution_backward_weights_primitive_desc_create(
              &desc, engine, DIRECT, source, plain_desc(w, F32, ANY), nullptr, target, strides, dilates, before, after,
              forward, nullptr),
          "convolution's gradient of the weights");
  }
  Convolution made{primitive_of(desc), source, const_cast<void *>(dnnl_primitive_desc_query_md(desc, weights, 0)), target,
                   plain_desc(w, F32, NCHW)};
  if (!dnnl_memory_desc_equal(made.weights, made.plain)) {
    const void *from = made.plain, *to = made.weights;
    if (direction == TO_WEIGHTS) std::swap(from, to);
    void *reorder;
    check(dnnl_reorder_primitive_desc_create(&reorder, from, engine, to, engine, nullptr), "reorder");
    made.reorder = primitive_of(reorder);
  }
  return made;  // the descriptions live as long as the process, like the primitives
}

const Convolution &convolution_for(Direction direction, int type, const int64_t *x, const int64_t *w, const int64_t *y) {
  static std::map<std::array<int64_t, 14>, Convolution> known;
  const std::array<int64_t, 14> key{direction, type, x[0], x[1], x[2], x[3], w[0], w[1], w[2], w[3],
                                    y[0], y[1], y[2], y[3]};
  auto found = known.find(key);
  if (found == known.end()) found = known.emplace(key, make_convolution(direction, type, x, w, y)).first;
  return found->second;
}

// Call oneDNN for x (N, H, W, I), w (O, I, K, K) and y (N, H', W', O), of which it fills what the direction says.
void convolve_plainly(Direction direction, int type, void *x, void *w, void *y, const int64_t *x_shape,
                      const int64_t *w_shape, const int64_t *y_shape) {
  static Buffer buffer;  // for the weights in oneDNN's layout
  const Convolution &conv = convolution_for(direction, type, x_shape, w_shape, y_shape);
  Memory source(conv.source, x), target(conv.target, y), plain(conv.plain, w);
  Memory weights(conv.weights, conv.reorder ? buffer.of(dnnl_memory_desc_get_size(conv.weights)) : w);
  auto reorder = [&](const Memory &from, const Memory &to) {
    const dnnl_exec_arg_t args[] = {{SRC, from.get()}, {DST, to.get()}};
    check(dnnl_primitive_execute(conv.reorder, stream, 2, args), "reorder");
  };
  if (conv.reorder && direction != TO_WEIGHTS) reorder(plain, weights);
  const dnnl_exec_arg_t args[] = {{direction == TO_INPUT ? DIFF_SRC : SRC, source.get()},
                                  {direction == TO_WEIGHTS ? DIFF_WEIGHTS : WEIGHTS, weights.get()},
                                  {direction == FORWARD ? DST : DIFF_DST, target.get()}};
  check(dnnl_primitive_execute(conv.primitive, stream, 3, args), "convolution");
  if (conv.reorder && direction == TO_WEIGHTS) reorder(weights, plain);
}

// A kernel of one pixel with stride 2 sees every second pixel of every second line. They are picked here: oneDNN 3.10
// writes outside of its own memory when it does that (jit_1x1:avx2, gradient of the weights, fewer than 8 channels).
template <typename T>
void convolve(Direction direction, T *x, void *w, T *y, const int64_t *x_shape, const int64_t *w_shape,
              const int64_t *y_shape) {
  constexpr int type = sizeof(T) == 2 ? BF16 : F32;
  if constexpr (type == BF16)
    if (direction == TO_WEIGHTS && suits_product(x_shape, w_shape, y_shape))
      return weights_by_product(x, static_cast<float *>(w), y, x_shape, w_shape, y_shape);
  if (w_shape[2] > 1 || (x_shape[1] == y_shape[1] && x_shape[2] == y_shape[2]))
    return convolve_plainly(direction, type, x, w, y, x_shape, w_shape, y_shape);
  static Buffer buffer;
  const int64_t height = x_shape[1], width = x_shape[2], channels = x_shape[3];
  const int64_t seen_shape[] = {y_shape[0], y_shape[1], y_shape[2], channels};
  const int64_t lines = y_shape[0] * y_shape[1], columns = y_shape[2];
  T *seen = static_cast<T *>(buffer.of(lines * columns * channels * sizeof(T)));
  auto line_of = [=](int64_t line) { return x + (line / y_shape[1] * height + line % y_shape[1] * 2) * width * channels; };
  if (direction != TO_INPUT) {
    in_parts(lines, [=](int64_t first, int64_t last, int) {
      for (int64_t line = first; line < last; ++line)
        for (int64_t column = 0; column < columns; ++column)
          std::copy_n(line_of(line) + 2 * column * channels, channels, seen + (line * columns + column) * channels);
    });
  }
  convolve_plainly(direction, type, seen, w, y, seen_shape, w_shape, y_shape);
  if (direction == TO_INPUT) {
    const int64_t size = height * width * channels;
    in_parts(x_shape[0], [=](int64_t first, int64_t last, int) { std::fill(x + first * size, x + last * size, narrow<T>(0)); });
    in_parts(lines, [=](int64_t first, int64_t last, int) {
      for (int64_t line = first; line < last; ++line)
        for (int64_t column = 0; column < columns; ++column)
          std::copy_n(seen + (line * columns + column) * channels, channels, line_of(line) + 2 * column * channels);
    });
  }
}

}  // namespace
