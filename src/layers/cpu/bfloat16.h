// The upper half of a float32, in which images can be kept; what is computed is float32.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct bfloat16 {
  uint16_t bits;
  bfloat16() = default;
  bfloat16(float value) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t u;
    std::memcpy(&u, &value, 4);
    uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    bits = static_cast<uint16_t>((u & 0x7fffffff) > 0x7f800000 ? (u >> 16) | 0x40 : rounded);
  }
  operator float() const {
    uint32_t u = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &u, 4);
    return value;
  }
};

}  // namespace
