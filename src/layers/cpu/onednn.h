// Of oneDNN's C interface what is used here, as version 3 has it (github.com/uxlfoundation/oneDNN, include/oneapi/dnnl).
// MindSpore brings the library without headers, and those of the wheel onednn-devel are for another way of threading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

extern "C" {
struct dnnl_exec_arg_t {
  int arg;
  void *memory;
};
struct dnnl_version_t {
  int major, minor, patch;
};
using Dims = int64_t[12];
const dnnl_version_t *dnnl_version();
int dnnl_engine_create(void **engine, int kind, size_t index);
int dnnl_threadpool_interop_stream_create(void **stream, void *engine, void *threadpool);
int dnnl_threadpool_interop_set_max_concurrency(int threads);
int dnnl_memory_desc_create_with_tag(void **desc, int ndims, const int64_t *dims, int type, int tag);
int dnnl_memory_desc_create_with_strides(void **desc, int ndims, const int64_t *dims, int type, const int64_t *strides);
int dnnl_memory_desc_equal(const void *left, const void *right);
size_t dnnl_memory_desc_get_size(const void *desc);
int dnnl_memory_create(void **memory, const void *desc, void *engine, void *data);
int dnnl_memory_destroy(void *memory);
int dnnl_convolution_forward_primitive_desc_create(void **desc, void *engine, int prop, int algorithm, const void *src,
                                                   const void *weights, const void *bias, const void *dst,
                                                   const int64_t *strides, const int64_t *dilates, const int64_t *before,
                                                   const int64_t *after, const void *attr);
int dnnl_convolution_backward_data_primitive_desc_create(void **desc, void *engine, int algorithm, const void *diff_src,
                                                         const void *weights, const void *diff_dst,
                                                         const int64_t *strides, const int64_t *dilates,
                                                         const int64_t *before, const int64_t *after,
                                                         const void *forward, const void *attr);
int dnnl_convolution_backward_weights_primitive_desc_create(void **desc, void *engine, int algorithm, const void *src,
                                                            const void *diff_weights, const void *diff_bias,
                                                            const void *diff_dst, const int64_t *strides,
                                                            const int64_t *dilates, const int64_t *before,
                                                            const int64_t *after, const void *forward,
                                                            const void *attr);
int dnnl_matmul_primitive_desc_create(void **desc, void *engine, const void *src, const void *weights, const void *bias,
                                      const void *dst, const void *attr);
int dnnl_primitive_attr_create(void **attr);
int dnnl_primitive_attr_set_post_ops(void *attr, const void *post_ops);
int dnnl_post_ops_create(void **post_ops);
int dnnl_post_ops_append_sum(void *post_ops, float scale, int32_t zero_point, int type);
int dnnl_reorder_primitive_desc_create(void **desc, const void *from, void *from_engine, const void *to,
                                       void *to_engine, const void *attr);
const void *dnnl_primitive_desc_query_md(const void *desc, int what, int index);
int dnnl_primitive_create(void **primitive, const void *desc);
int dnnl_primitive_execute(const void *primitive, void *stream, int count, const dnnl_exec_arg_t *args);
}

namespace dnnl {
namespace threadpool_interop {
// The order of the functions is part of oneDNN's interface.
struct threadpool_iface {
  virtual int get_num_threads() const = 0;
  virtual bool get_in_parallel() const = 0;
  virtual void parallel_for(int n, const std::function<void(int, int)> &body) = 0;
  virtual uint64_t get_flags() const = 0;
  virtual void wait() = 0;
  virtual ~threadpool_iface() = default;
};
}  // namespace threadpool_interop
}  // namespace dnnl

namespace {

enum { CPU = 1, BF16 = 2, F32 = 3, ANY = 1, NCHW = 5, NHWC = 22, FORWARD_TRAINING = 64, DIRECT = 1 };
enum { SRC = 1, DST = 17, WEIGHTS = 33, DIFF_SRC = 129, DIFF_DST = 145, DIFF_WEIGHTS = 161 };
enum { QUERY_WEIGHTS = 131, QUERY_DIFF_WEIGHTS };

inline void check(int status, const char *what) {
  if (status) throw std::runtime_error(std::string("oneDNN: ") + what + " failed with status " + std::to_string(status));
}

void *engine, *stream;  // made by `start`

void *primitive_of(void *desc) {
  void *primitive;
  check(dnnl_primitive_create(&primitive, desc), "primitive_create");
  return primitive;
}

class Memory {
 public:
  Memory(const void *desc, void *data) { check(dnnl_memory_create(&memory_, desc, engine, data), "memory_create"); }
  Memory(const Memory &) = delete;
  ~Memory() { dnnl_memory_destroy(memory_); }
  void *get() const { return memory_; }

 private:
  void *memory_;
};

// Memory that grows to what the largest call needs.
class Buffer {
 public:
  void *of(size_t size) {
    if (size > size_) {
      data_.reset(std::aligned_alloc(64, (size + 63) / 64 * 64));
      size_ = data_ ? size : 0;
      if (!data_) throw std::bad_alloc();
    }
    return data_.get();
  }

 private:
  std::unique_ptr<void, decltype(&std::free)> data_{nullptr, std::free};
  size_t size_ = 0;
};

}  // namespace
