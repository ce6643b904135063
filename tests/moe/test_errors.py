from moe.errors import UserError, suggest


def test_a_message_is_one_line_that_a_terminal_can_show():
    assert str(UserError("file \ud800 of\nJosé\x1b[2J; rename it")) == "file \\ud800 of José\\x1b[2J; rename it"
    assert len(str(UserError("x" * 5_000))) == 1_500
    str(UserError("\udcff.csv")).encode()


def test_a_long_name_is_compared_soon():
    assert suggest("model.expert" + "s" * 10**6, ["model.experts", "seed"]).startswith("known are")
