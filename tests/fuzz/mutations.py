"""Damage as disks, downloads and editors do it: bytes cut off, flipped, doubled, overwritten; or other bytes."""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


def _mutated(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, new in changes:
        at = place % (len(data) + 1)
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            at %= len(data)
            data = data[:at] + bytes([data[at] ^ (place >> 8 & 255 or 1)]) + data[at + 1 :]
        elif kind == "put":
            data = data[:at] + new + data[at:]
        elif kind == "over":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "drop":
            data = data[:at] + data[at + len(new) :]
        elif kind == "again":
            data = data[:at] + data[at // 2 : at] + data[at:]
    return data


def damaged(*originals: bytes) -> SearchStrategy[bytes]:
    """Bytes of one of the originals with up to six changes, or other bytes."""
    kinds = st.sampled_from(["cut", "flip", "put", "over", "drop", "again"])
    numbers = st.sampled_from(
        [b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0", b"\n", b'"', b"nan"]
    )
    change = st.tuples(kinds, st.integers(0, 2**20), numbers | st.binary(max_size=12))
    return st.builds(_mutated, st.sampled_from(originals), st.lists(change, max_size=6)) | st.binary(max_size=300)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
