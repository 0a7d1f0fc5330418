#include "bindings/overlap.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <tuple>

namespace fastgru::bindings {
namespace {

using Index = py::ssize_t;

// `count` items, each `stride` bytes behind the one before. If count is 1, the stride is any number above 0.
struct Steps {
  Index count = 1, stride = 1;
  Index reach() const { return (count - 1) * stride; }
};

// The axes of an array by ascending stride, without axes of size 1. Signs are dropped, because a reversed array has the
// same bytes.
struct Axes {
  std::array<Steps, 3> items;
  int size = 0;
  bool more = false;  // more than three axes, which no array of a kernel has

  explicit Axes(const py::array& array) {
    for (Index axis = 0; axis < array.ndim(); ++axis) {
      if (array.shape(axis) <= 1) continue;
      if (size == static_cast<int>(items.size())) {
        more = true;
        return;
      }
      const Steps added{array.shape(axis), std::abs(array.strides(axis))};
      std::size_t at = static_cast<std::size_t>(size++);
      for (; at > 0 && items[at - 1].stride > added.stride; --at) items[at] = items[at - 1];
      items[at] = added;
    }
  }
};

// The bytes of an array as a set: rows of evenly spaced runs of `width` bytes.
struct Runs {
  Steps rows, runs;
  Index width;
  const char* begin;

  explicit Runs(const Argument& argument) : width(argument.array->itemsize()), begin(argument.begin) {
    const Axes axes(*argument.array);
    Steps rest[2];
    int count = 0;
    if (axes.more) {
      width = argument.end - argument.begin;
      return;
    }
    for (int i = 0; i < axes.size; ++i) {
      const Steps axis = axes.items[static_cast<std::size_t>(i)];
      if (count == 0 && axis.stride <= width) {
        width += axis.reach();  // adjacent, overlapping or identical runs
      } else if (count > 0 && axis.stride % rest[count - 1].stride == 0 &&
                 axis.stride <= rest[count - 1].count * rest[count - 1].stride) {
        rest[count - 1].count += axis.reach() / rest[count - 1].stride;  // continues with the same spacing
      } else if (count < 2) {
        rest[count++] = axis;
      } else {
        width = argument.end - argument.begin;  // three strides, which no array of a kernel has
        rest[0] = rest[1] = {};
        break;
      }
    }
    // Rows are visited one by one, so the axis with fewer items becomes the rows.
    std::tie(rows, runs) = rest[0].count < rest[1].count ? std::tie(rest[0], rest[1]) : std::tie(rest[1], rest[0]);
  }

  // Bytes from the first to the last of a row.
  Index row_extent() const { return runs.reach() + width; }
};

Index floor_divide(Index a, Index b) { return a / b - (a % b < 0); }
Index ceil_divide(Index a, Index b) { return a / b + (a % b > 0); }

// The sum of floor((a i + b) / m) over i in [0, n), modulo 2^64, by Euclid's algorithm in O(log m). The products do not
// overflow, because a n and m are sizes of memory.
std::uint64_t sum_of_quotients(std::uint64_t n, std::uint64_t m, std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  while (n > 0) {
    sum += (n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n) * (a / m) + n * (b / m);
    a %= m;
    b %= m;
    const std::uint64_t last = a * n + b;  // the points below the line, counted by its other axis
    n = last / m;
    b = last % m;
    std::swap(a, m);
  }
  return sum;
}

// Whether a run of `a_width` bytes at i a.stride and one of `b_width` bytes at distance + k b.stride share a byte, for
// any i and k: whether i a.stride - k b.stride lies in [low, high].
bool rows_meet(Steps a, Index a_width, Steps b, Index b_width, Index distance) {
  const Index low = distance - a_width + 1, high = distance + b_width - 1;
  // For these i, one of the closest k is in range.
  const Index first = std::max<Index>(0, ceil_divide(low, a.stride));
  const Index last = std::min(a.count - 1, floor_divide(b.reach() + high, a.stride));
  if (first > last) return false;
  if (high - low >= b.stride - 1) return true;
  // Of those, how many have (i a.stride - low) mod b.stride <= high - low?
  const auto count = static_cast<std::uint64_t>(last - first + 1);
  const auto a_stride = static_cast<std::uint64_t>(a.stride), b_stride = static_cast<std::uint64_t>(b.stride);
  const auto start = static_cast<std::uint64_t>(first * a.stride - low);
  const auto beyond = static_cast<std::uint64_t>(b.stride - (high - low) - 1);
  return sum_of_quotients(count, b_stride, a_stride, start) + count !=
         sum_of_quotients(count, b_stride, a_stride, start + beyond);
}

bool share_a_byte(const Runs& a, const Runs& b) {
  for (Index i = 0; i < a.rows.count; ++i) {
    const Index distance = b.begin - a.begin - i * a.rows.stride;  // to the first row of b
    // The rows of b that can overlap this row.
    const Index first = std::max<Index>(0, ceil_divide(1 - distance - b.row_extent(), b.rows.stride));
    const Index last = std::min(b.rows.count - 1, floor_divide(a.row_extent() - 1 - distance, b.rows.stride));
    for (Index k = first; k <= last; ++k) {
      if (rows_meet(a.runs, a.width, b.runs, b.width, distance + k * b.rows.stride)) return true;
    }
  }
  return false;
}

bool elements_overlap(const py::array& array) {
  if (array.size() <= 1 || (array.flags() & py::array::c_style) != 0) return false;
  const Axes axes(array);
  if (axes.more) return true;
  Index width = array.itemsize();
  Steps rest[2];
  int count = 0;
  for (int i = 0; i < axes.size; ++i) {
    const Steps axis = axes.items[static_cast<std::size_t>(i)];
    if (axis.stride < width) return true;
    if (count == 0 && axis.stride == width) {
      width *= axis.count;
    } else if (count < 2) {
      rest[count++] = axis;
    } else {
      return true;  // three strides, which no array of a kernel has
    }
  }
  const Steps runs = rest[0], rows = rest[1];
  for (Index row = 1; row < rows.count && row * rows.stride < runs.reach() + width; ++row) {
    if (rows_meet(runs, width, runs, width, row * rows.stride)) return true;
  }
  return false;
}

void require_apart(const Argument& output, const Argument& other) {
  if (other.array == nullptr || output.begin >= other.end || other.begin >= output.end) return;
  if (!share_a_byte(Runs(output), Runs(other))) return;
  throw py::value_error(std::string(output.name) + ": expected an array that shares no memory, got one that overlaps " +
                        other.name + "; pass a copy of one of them");
}

}  // namespace

Argument::Argument(const char* name, const py::array* array) : name(name), array(array) {
  if (array == nullptr) return;
  begin = end = static_cast<const char*>(array->data());
  if (array->size() == 0) return;
  for (py::ssize_t axis = 0; axis < array->ndim(); ++axis) {
    const py::ssize_t reach = (array->shape(axis) - 1) * array->strides(axis);
    (reach < 0 ? begin : end) += reach;
  }
  end += array->itemsize();
}

void require_apart(std::initializer_list<Argument> outputs, std::initializer_list<Argument> inputs) {
  for (const Argument* output = outputs.begin(); output != outputs.end(); ++output) {
    if (output->array == nullptr) continue;
    if (elements_overlap(*output->array)) {
      throw py::value_error(std::string(output->name) +
                            ": expected an array with separate memory for each element, got one that overlaps "
                            "itself, with strides " +
                            std::string(py::str(output->array->attr("strides"))) + "; pass a new array");
    }
    for (const Argument* other = output + 1; other != outputs.end(); ++other) require_apart(*output, *other);
    for (const Argument& input : inputs) require_apart(*output, input);
  }
}

}  // namespace fastgru::bindings
