// The schedule of a call: splits the rows, units and steps of a batch among threads, for forward and backward.
//
//     weights   tape or lengths   rows          split
//     small     yes               -             up to 16 parts, by the shape; one thread runs each part
//     small     no                -             parts by the number of threads; one thread runs each part
//     large     yes               64 a thread   one part; the threads share the rows of each step
//     large     no                64 a thread   one part per thread
//     large     -                 fewer         one part; the threads share the units of each step if each thread gets
//                                               two blocks of units, otherwise the rows
//
// A part is split into groups of rows, which run through all steps together. Weight gradients are summed by part and
// group, so with a tape both follow from the shape alone. docs/design.md has the glossary.
//
// Rows are sorted by descending length; the index of a row in that order is its position. The rows that are still
// active in a step are therefore the first of their group. Only the active rows of a step are computed and stored,
// padding is not. If all sequences have the same length, positions are the batch's rows.
#pragma once

#include "kernels/cost.hpp"
#include "kernels/gru.hpp"
#include "runtime/parallel.hpp"
#include "runtime/workspace.hpp"

namespace fastgru {

// Maps a position to a sequence of the batch. By default all sequences have T steps and are in batch order; the strides
// of x express reading from the end. With lengths, each sequence has its own end.
struct SequenceMap {
  const Index* order = nullptr;    // (N) row of the batch at each position, or null: the identity
  const Index* lengths = nullptr;  // (N) by position, descending; null if `order` is
  Index steps = 0;                 // T
  bool backwards = false;          // read from the end; only with lengths
  bool outputs_like_x = false;     // an output has the step index of the input that it belongs to

  bool different_lengths() const { return order != nullptr; }
  Index row(Index position) const { return order == nullptr ? position : order[position]; }
  Index length(Index position) const { return order == nullptr ? steps : lengths[position]; }
  Index input_step(Index position, Index step) const { return backwards ? lengths[position] - 1 - step : step; }
  Index output_step(Index position, Index step) const { return outputs_like_x ? input_step(position, step) : step; }
  // With both options padding comes before the sequence, so there is no output to repeat.
  bool has_repeated_outputs(Index position) const { return length(position) > 0 && !(backwards && outputs_like_x); }
};

// A group of rows that run through all steps together.
struct RowGroup {
  Index first, rows;     // positions
  Index steps;           // of the longest sequence
  Index pairs_before;    // (row, step) pairs in the groups before this one
  const Index* offsets;  // (steps + 1) pairs before each step; null if all rows are active in all steps

  Index offset(Index step) const { return offsets == nullptr ? step * rows : offsets[step]; }
  Index active_rows(Index step) const { return offsets == nullptr ? rows : offsets[step + 1] - offsets[step]; }
  Index pairs() const { return offset(steps); }
  // Row offset of the states before a step. Stored are all initial states, then after each step those of active rows.
  Index state_offset(Index step) const { return step == 0 ? 0 : rows + offset(step - 1); }
};

// The share of one member of a team in a group: some of the active rows of each step, or some of the units.
struct GroupShare {
  RowGroup group;
  Team& team;
  bool by_units;
  bool needs_barriers;  // barriers after each stage, because a row's values pass between threads
  Range blocks;         // of units

  Range rows(Index count) const { return by_units ? Range{0, count} : team.share(count); }
  Range rows_at(Index step) const { return rows(group.active_rows(step)); }
  Range panels(Index count) const { return by_units ? team.share(count) : Range{0, count}; }
  void synchronize() const {
    if (needs_barriers) team.barrier();
  }
};

class Schedule {
 public:
  template <class T>
  Schedule(const GruShape& s, const SequenceMap& map, const UnitBlocks<T>& blocks, bool taped, Workspace& workspace)
      : map_(map), batch_(s.batch), blocks_(blocks.count) {
    const Index limit = num_threads();
    const Index rows_worth = (batch_ + cost::kRowsWorthAThread - 1) / cost::kRowsWorthAThread;
    const bool by_shape = taped || map.different_lengths();
    if (3 * cost::product(1, s.features + s.units, s.units) * sizeof(T) <= cost::kSmallWeights) {
      const Index parts = parts_by_shape(batch_);
      threads_ = cost::threads_for_parts(by_shape ? parts : rows_worth);
      cut(by_shape ? parts : parts_for(batch_, threads_), cost::kRowsTogether);
    } else if (limit > 1 && batch_ < limit * cost::kRowsWorthAllWeights && blocks_ >= 2 * limit) {
      by_units_ = true;
      threads_ = cost::threads_for_parts(blocks_);
      cut(1, cost::kRowsTogetherLargeWeights);
    } else {
      threads_ = cost::threads_for_parts(rows_worth);
      by_shape ? cut(1, cost::kRowsTogetherLargeWeights) : cut(threads_, cost::kRowsTogether);
      by_rows_ = by_shape;
    }
    if (map.different_lengths()) find_groups(workspace);
  }

  int threads() const { return threads_; }
  Index parts() const { return parts_; }
  Index largest_group() const { return largest_group_; }
  // Whether one thread runs a part through all steps; otherwise the threads share each step.
  bool alone() const { return !by_units_ && !by_rows_; }
  // Number of scratch buffers for a group: one per thread, or one that the threads share.
  Index sets() const { return alone() ? threads_ : 1; }
  Index groups_in_part() const { return groups_in_part_; }
  // Number of (row, step) pairs.
  Index pairs() const {
    const RowGroup last = group(parts_ - 1, groups_in_part_ - 1);
    return last.pairs_before + last.pairs();
  }

  GroupShare share(Index part, Index index, Team& team) const {
    const RowGroup rows = group(part, index);
    const bool needs_barriers = team.size() > 1 && (by_units_ || rows.offsets != nullptr);
    return {rows, team, by_units_, needs_barriers, by_units_ ? team.share(blocks_) : Range{0, blocks_}};
  }

  // Runs pack(item) for all items, then part(part, team, member) for all parts, then result(item) for all items. `team`
  // consists of the threads that share the part; `member` is the index of the thread in the call. All are noexcept.
  template <class Pack, class Part, class Result>
  void run(double operations, Cancellation* cancellation, Index packing, Pack&& pack, Part&& part, Index results,
           Result&& result) const {
    if (alone()) {
      // With sequences sorted by descending length, later parts have less work.
      Items packings(packing),
          taken(parts_, map_.different_lengths() ? Items::Shares::dealt : Items::Shares::contiguous);
      Items sums(results);
      parallel_items(threads_, operations, cancellation, [&](Team& team) noexcept {
        packings.run(team, pack);
        Team own = team.alone();
        taken.run(team, [&](Index item) noexcept { part(item, own, Index{team.index()}); });
        sums.run(team, result);
      });
      return;
    }
    parallel(threads_, operations, cancellation, [&](Team& team) noexcept {
      const auto each = [&](Index count, const auto& body) {
        const Range own = team.share(count);
        for (Index item = own.begin; item < own.end; ++item) body(item);
        team.barrier();
      };
      each(packing, pack);
      part(Index{0}, team, Index{team.index()});
      if (results == 0) return;
      team.barrier();
      each(results, result);
    });
  }

 private:
  // A power of two. It determines the order in which gradients are summed.
  static Index parts_by_shape(Index batch) {
    return batch >= 512 ? 16 : batch >= 128 ? 8 : batch >= 32 ? 4 : batch >= 8 ? 2 : 1;
  }
  // For rows that can be split anywhere: somewhat more parts than threads, but large enough to amortise loading the
  // weights for each part.
  static Index parts_for(Index rows, Index threads) {
    const Index fewest = std::min((rows + threads - 1) / threads, cost::kRowsWorthAPart);
    const Index wanted = std::min((rows + 2 * threads - 1) / (2 * threads), cost::kRowsTogether);
    const Index size = std::max(fewest, wanted);
    return (rows + size - 1) / size;
  }

  void cut(Index parts, Index most_rows) {
    const Index part = (batch_ + parts - 1) / parts;
    parts_ = parts;
    groups_in_part_ = (part + most_rows - 1) / most_rows;
    largest_group_ = (part + groups_in_part_ - 1) / groups_in_part_;
  }
  Range rows(Index part, Index index) const {
    const Range all = split(batch_, part, parts_), own = split(all.size(), index, groups_in_part_);
    return {all.begin + own.begin, all.begin + own.end};
  }
  RowGroup group(Index part, Index index) const {
    if (groups_ != nullptr) return groups_[part * groups_in_part_ + index];
    const Range own = rows(part, index);
    return {own.begin, own.size(), map_.steps, own.begin * map_.steps, nullptr};
  }

  void find_groups(Workspace& workspace) {
    groups_ = workspace.take<RowGroup>(parts_ * groups_in_part_);
    Index pairs = 0;
    for (Index item = 0; item < parts_ * groups_in_part_; ++item) {
      const Range own = rows(item / groups_in_part_, item % groups_in_part_);
      const Index steps = own.size() > 0 ? map_.lengths[own.begin] : 0;
      Index* const offsets = workspace.take<Index>(steps + 1);
      Index working = own.size();
      offsets[0] = 0;
      for (Index step = 0; step < steps; ++step) {
        while (map_.lengths[own.begin + working - 1] <= step) --working;  // stops: the first row has more steps
        offsets[step + 1] = offsets[step] + working;
      }
      groups_[item] = {own.begin, own.size(), steps, pairs, offsets};
      pairs += offsets[steps];
    }
  }

  const SequenceMap& map_;
  const Index batch_, blocks_;
  int threads_ = 1;
  bool by_units_ = false, by_rows_ = false;  // the threads share each step
  Index parts_ = 1, groups_in_part_ = 1, largest_group_ = 0;
  RowGroup* groups_ = nullptr;  // only with different lengths
};

}  // namespace fastgru
