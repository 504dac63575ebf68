// The gradient of a convolution's weights as a product of matrices, in bfloat16: the gradient of the output, transposed,
// (O, P) times the pixels that each output pixel sees (P, K K I). On small maps it is up to ten times as fast as
// oneDNN's own kernel, which works along the lines of an image and finds them too short.
#pragma once

#include <algorithm>
#include <array>
#include <map>

#include "bfloat16.h"
#include "onednn.h"
#include "threads.h"

namespace {

constexpr int64_t PIECE = 4096;  // output pixels whose columns are built at a time

// By measurement. It depends on the shapes alone, so that two runs choose the same and are equal to the bit.
bool suits_product(const int64_t *x, const int64_t *w, const int64_t *y) {
  return w[2] == 1 ? x[3] >= 64 : x[3] >= 16 * y[2];
}

// 1 or 2. The larger quotient: an edge of one pixel would hide a stride of 2.
int64_t stride_of(const int64_t *x, const int64_t *y) {
  return std::max((x[1] + y[1] - 1) / y[1], (x[2] + y[2] - 1) / y[2]);
}

void *matrix(int64_t rows, int64_t columns, int type, bool is_transposed = false) {
  const int64_t dims[] = {rows, columns}, strides[] = {is_transposed ? 1 : columns, is_transposed ? rows : 1};
  void *desc;
  check(dnnl_memory_desc_create_with_strides(&desc, 2, dims, type, strides), "memory_desc_create");
  return desc;
}

// The product (O, P) x (P, C) -> (O, C), float32, which is added to what is there if it `adds`.
struct Product {
  void *left, *right, *sums, *primitive;
};

const Product &product_for(int64_t outputs, int64_t pixels, int64_t columns, bool adds) {
  static std::map<std::array<int64_t, 4>, Product> known;
  const std::array<int64_t, 4> key{outputs, pixels, columns, adds};
  auto found = known.find(key);
  if (found != known.end()) return found->second;
  Product made{matrix(outputs, pixels, BF16, true), matrix(pixels, columns, BF16), matrix(outputs, columns, F32), nullptr};
  void *attributes, *after, *desc;
  check(dnnl_primitive_attr_create(&attributes), "attr_create");
  if (adds) {
    check(dnnl_post_ops_create(&after), "post_ops_create");
    check(dnnl_post_ops_append_sum(after, 1, 0, 0), "append_sum");
    check(dnnl_primitive_attr_set_post_ops(attributes, after), "set_post_ops");
  }
  check(dnnl_matmul_primitive_desc_create(&desc, engine, made.left, made.right, nullptr, made.sums, attributes), "matmul");
  made.primitive = primitive_of(desc);
  return known.emplace(key, made).first->second;  // as long as the process lives, like those of convolutions
}

// Lay the pixels that the output pixels of a line see side by side: (W', K K I).
void columns_of(const bfloat16 *image, int64_t top, int64_t stride, const int64_t *x_shape, const int64_t *w_shape,
                int64_t count, bfloat16 *to) {
  const int64_t height = x_shape[1], width = x_shape[2], channels = x_shape[3], kernel = w_shape[2];
  for (int64_t column = 0; column < count; ++column)
    for (int64_t h = top; h < top + kernel; ++h)
      for (int64_t w = column * stride - kernel / 2; w < column * stride - kernel / 2 + kernel; ++w, to += channels) {
        if (h < 0 || h >= height || w < 0 || w >= width)
          std::fill_n(to, channels, narrow<bfloat16>(0));
        else
          std::copy_n(image + (h * width + w) * channels, channels, to);
      }
}

// x (N, H, W, I), y (N, H', W', O), the gradient of the output -> w (O, I, K, K)
void weights_by_product(bfloat16 *x, float *w, bfloat16 *y, const int64_t *x_shape, const int64_t *w_shape,
                        const int64_t *y_shape) {
  static Buffer column_buffer, sum_buffer;
  const int64_t channels = x_shape[3], outputs = w_shape[0], taps = w_shape[2] * w_shape[3], columns = taps * channels;
  const int64_t lines = y_shape[0] * y_shape[1], width = y_shape[2], stride = stride_of(x_shape, y_shape);
  const bool is_x = taps == 1 && stride == 1;  // the columns are x itself
  const int64_t piece = is_x ? lines : std::max<int64_t>(1, PIECE / width);
  auto *seen = is_x ? x : static_cast<bfloat16 *>(column_buffer.of(piece * width * columns * sizeof(bfloat16)));
  float *sums = taps == 1 ? w : static_cast<float *>(sum_buffer.of(outputs * columns * sizeof(float)));
  for (int64_t begin = 0; begin < lines; begin += piece) {
    const int64_t count = std::min(piece, lines - begin);
    if (!is_x)
      in_parts(count, [=](int64_t first, int64_t last, int) {
        for (int64_t line = begin + first; line < begin + last; ++line)
          columns_of(x + line / y_shape[1] * x_shape[1] * x_shape[2] * channels,
                     line % y_shape[1] * stride - w_shape[2] / 2, stride, x_shape, w_shape, width,
                     seen + (line - begin) * width * columns);
      });
    const Product &product = product_for(outputs, count * width, columns, begin > 0);
    Memory left(product.left, y + begin * width * outputs), right(product.right, seen), target(product.sums, sums);
    const dnnl_exec_arg_t args[] = {{SRC, left.get()}, {WEIGHTS, right.get()}, {DST, target.get()}};
    check(dnnl_primitive_execute(product.primitive, stream, 3, args), "matmul");
  }
  if (taps == 1) return;  // the sums lie as the weights do
  in_parts(outputs, [=](int64_t first, int64_t last, int) {
    for (int64_t o = first; o < last; ++o)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int64_t c = 0; c < channels; ++c) w[(o * channels + c) * taps + tap] = sums[(o * taps + tap) * channels + c];
  });
}

}  // namespace
