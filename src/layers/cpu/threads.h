// The threads of the kernels, for oneDNN's and our own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "onednn.h"

namespace {

// The caller and `threads - 1` workers. A worker that has nothing to do looks for work for some microseconds and then
// sleeps, so nothing spins between steps.
class Pool : public dnnl::threadpool_interop::threadpool_iface {
 public:
  explicit Pool(int threads) : threads_(threads) {
    for (int i = 1; i < threads; ++i) std::thread([this] { work(); }).detach();
  }

  int get_num_threads() const override { return threads_; }
  bool get_in_parallel() const override { return inside_; }
  uint64_t get_flags() const override { return 0; }
  void wait() override {}

  void parallel_for(int count, const std::function<void(int, int)> &body) override {
    if (inside_ || count == 1 || threads_ == 1) {
      for (int i = 0; i < count; ++i) body(i, count);
      return;
    }
    body_ = &body;
    count_ = count;
    next_ = 0;
    busy_ = threads_ - 1;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++turn_;
    }
    wake_.notify_all();
    take();
    for (int looks = 0; busy_; ++looks) {
      if (looks < LOOKS) __builtin_ia32_pause();
      else std::this_thread::yield();  // a worker waits for a core that has other work
    }
  }

 private:
  void take() {
    inside_ = true;
    for (int i; (i = next_++) < count_;) (*body_)(i, count_);
    inside_ = false;
  }

  void work() {
    for (uint64_t seen = 0;;) {
      for (int looks = 0; turn_ == seen && looks < LOOKS; ++looks) __builtin_ia32_pause();
      if (turn_ == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return turn_ != seen; });
      }
      seen = turn_;
      take();
      --busy_;
    }
  }

  static constexpr int LOOKS = 2000;
  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> turn_{0};
  const std::function<void(int, int)> *body_ = nullptr;
  int count_ = 0;
  std::atomic<int> next_{0}, busy_{0};
  static thread_local bool inside_;
};
thread_local bool Pool::inside_ = false;

Pool *pool;  // made by `start`

// Call body(first, last, thread) for the parts of 0..count.
template <typename Body>
void in_parts(int64_t count, const Body &body) {
  pool->parallel_for(pool->get_num_threads(),
                     [&](int i, int n) { body(count * i / n, count * (i + 1) / n, i); });
}

}  // namespace
