"""Opens our images of users with the datasketches package, and writes some of its own.

Usage: check.py FOLDER SIZE...

For each SIZE, FOLDER/ours-SIZE holds the users 0 to SIZE - 1. Written are theirs-SIZE and updatable-SIZE, of the same users, and
union-SIZE, of these and 500 others that the package added by itself. Any disagreement is an exception.
"""

import sys
from pathlib import Path

from datasketches import hll_sketch, hll_union, tgt_hll_type

LG_K = 12
OTHERS = range(1 << 40, (1 << 40) + 500)


def sketch_of(users):
    sketch = hll_sketch(LG_K, tgt_hll_type.HLL_8)
    for user in users:
        sketch.update(user)
    return sketch


def check(folder, size):
    ours = hll_sketch.deserialize((folder / f"ours-{size}").read_bytes())
    theirs = sketch_of(range(size))
    assert ours.lg_config_k == LG_K and ours.tgt_type == tgt_hll_type.HLL_8, ours
    assert ours.is_empty() == (size == 0), ours
    # 7 % are four standard errors.
    assert abs(ours.get_estimate() - size) <= 0.07 * size, (size, ours.get_estimate())
    assert ours.get_lower_bound(3) <= size * 1.0001 and size <= ours.get_upper_bound(3), (size, ours)

    union = hll_union(LG_K)
    union.update(ours)
    union.update(sketch_of(OTHERS))
    (folder / f"theirs-{size}").write_bytes(theirs.serialize_compact())
    (folder / f"updatable-{size}").write_bytes(theirs.serialize_updatable())
    (folder / f"union-{size}").write_bytes(union.get_result(tgt_hll_type.HLL_8).serialize_compact())


if __name__ == "__main__":
    for size in sys.argv[2:]:
        check(Path(sys.argv[1]), int(size))
    print("agreed")
