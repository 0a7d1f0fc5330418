// A matrix B packed for multiply_add (gemm.hpp): panels of neighbouring registers of columns, each panel contiguous.
//
//     B (depth, columns)                        memory
//     [ panel 0 | panel 1 | .. ]                panel 0: [k][register][lane], panel 1: [k][register][lane], ..
//
// The last register is padded with zeros. `Packed` is a view of a Workspace's memory: that of one call, or one that the
// owner of the view keeps. T is the type of the arithmetic, Element the storage type, for which Vec<T> must have `load`
// and `store` (packet.hpp).
#pragma once

#include <algorithm>

#include "runtime/workspace.hpp"
#include "simd/packet.hpp"

namespace fastgru {

inline constexpr int kPanelRegisters = 3;  // maximum: the registers of a tile

template <class Element>
struct Panel {
  const Element* data;
  Index first_column;
  int registers;
};

template <class T, class Element = T>
class Packed {
 public:
  static constexpr Index L = Vec<T>::lanes;

  static Index size(Index depth, Index columns) { return checked_multiply(depth, round_up_to_lanes<T>(columns)); }

  Packed() = default;
  // Splits the columns into the fewest panels, of nearly equal size, or into the given number.
  Packed(Element* memory, Index depth, Index columns) : Packed(memory, depth, columns, fewest_panels(columns)) {}
  Packed(Element* memory, Index depth, Index columns, Index panels)
      : data_(memory),
        depth_(depth),
        columns_(columns),
        panels_(panels),
        registers_(panels == 0 ? 0 : round_up_to_lanes<T>(columns) / L / panels),
        wider_(panels == 0 ? 0 : round_up_to_lanes<T>(columns) / L % panels) {}
  Packed(Workspace& memory, Index depth, Index columns) : Packed(memory, depth, columns, fewest_panels(columns)) {}
  Packed(Workspace& memory, Index depth, Index columns, Index panels)
      : Packed(memory.take<Element>(size(depth, columns)), depth, columns, panels) {}

  Index panels() const { return panels_; }
  Index depth() const { return depth_; }
  Index columns() const { return columns_; }
  Panel<Element> panel(Index p) const { return {data_ + begin(p) * L * depth_, begin(p) * L, registers(p)}; }

  // Fills the depths [k0, k0 + count) of panel p with B(k0 + k, c) = from[k * k_stride + c * c_stride].
  void pack(Index p, Index k0, Index count, const T* from, Index k_stride, Index c_stride) {
    for (Index v = 0; v < registers(p); ++v) {
      const Index column = (begin(p) + v) * L;
      pack_register(p, v, k0, count, from + column * c_stride, k_stride, c_stride, std::min(L, columns_ - column));
    }
  }
  void pack(Index p, const T* from, Index k_stride, Index c_stride) { pack(p, 0, depth_, from, k_stride, c_stride); }

  // The same for one register of the panel; lanes from `lanes` on are zero.
  void pack_register(Index p, Index v, Index k0, Index count, const T* from, Index k_stride, Index lane_stride,
                     Index lanes) {
    const Index width = registers(p) * L;
    Element* const to = row(p, k0) + v * L;
    if (lane_stride == 1) {
      for (Index k = 0; k < count; ++k) Vec<T>::load_first(from + k * k_stride, lanes).store(to + k * width);
      return;
    }
    for (Index first = 0; first < count; first += L) {  // in squares, so that each cache line of `from` is read once
      const Index end = std::min(first + L, count);
      for (Index lane = 0; lane < L; ++lane) {
        for (Index k = first; k < end; ++k) {
          to[k * width + lane] = static_cast<Element>(lane < lanes ? from[k * k_stride + lane * lane_stride] : T(0));
        }
      }
    }
  }
  void zero(Index p, Index k0, Index count) { std::fill_n(row(p, k0), count * registers(p) * L, Element(0)); }

 private:
  static Index fewest_panels(Index columns) {
    return (round_up_to_lanes<T>(columns) / L + kPanelRegisters - 1) / kPanelRegisters;
  }
  // If the registers cannot be divided evenly, the first panels have one register more.
  int registers(Index p) const { return static_cast<int>(registers_ + (p < wider_ ? 1 : 0)); }
  Index begin(Index p) const { return p * registers_ + std::min(p, wider_); }
  Element* row(Index p, Index k) { return data_ + begin(p) * L * depth_ + k * registers(p) * L; }

  Element* data_ = nullptr;
  Index depth_ = 0, columns_ = 0, panels_ = 0, registers_ = 0, wider_ = 0;
};

}  // namespace fastgru
