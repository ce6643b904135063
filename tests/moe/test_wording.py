import pytest

from moe.wording import counted, first_few, numbered, printable, reason


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
        (
            reason(ValueError("no host 'x': [Errno -2] Name or service not known")),
            "no host 'x': Name or service not known",
        ),
        (numbered("expert", [3]), "expert 3"),
        (numbered("expert", [0, 2]), "experts 0, 2"),
    ],
)
def test_words(said: str, words: str) -> None:
    assert said == words
