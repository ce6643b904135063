import pytest

from moe.wording import counted, first_few, printable, reason


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (counted(1, "image"), "1 image"),
        (counted(2000, "image"), "2,000 images"),
        (counted(0, "image"), "0 images"),
        (counted(1, "run", "was"), "1 run was"),
        (counted(3, "run", "was"), "3 runs were"),
        (counted(3, "run", "is"), "3 runs are"),
        (first_few(list("abcde")), "a, b, c, d, e"),
        (first_few(list("abcdefg")), "a, b, c, d, e and 2 more"),
        (printable("a\udce4"), "a\\xe4"),
        (reason(OSError(28, "No space left on device", "file")), "No space left on device"),
        (reason(ValueError("\n first:\n second")), "first"),
        (reason(ValueError()), "ValueError"),
    ],
)
def test_words(said: str, words: str) -> None:
    assert said == words
