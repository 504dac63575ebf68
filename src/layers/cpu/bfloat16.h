// The upper half of a float32, in which images can be kept; what is computed is float32.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

// An enumeration, and not a struct with conversions: loops over those are not vectorised by GCC.
enum class bfloat16 : uint16_t {};

inline float wide(float value) { return value; }
inline float wide(bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

template <typename T>
T narrow(float value);
template <>
inline float narrow<float>(float value) { return value; }
template <>
inline bfloat16 narrow<bfloat16>(float value) {  // to the nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, quiet = (bits >> 16) | 0x40;
  return static_cast<bfloat16>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);  // a select: no branch in a loop
}

}  // namespace
