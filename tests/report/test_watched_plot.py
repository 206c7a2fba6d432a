from mpq.report.watched_plot import watched_plot


def test_lines_are_placed_by_number_and_ratio() -> None:
    plot = watched_plot([0.1, None, 10.0], "wide")
    assert plot is not None
    assert [tick.label for tick in plot.x_ticks] == ["1", "2", "3"]
    left, right = (tick.at for tick in (plot.x_ticks[0], plot.x_ticks[-1]))
    assert (left, right) == (plot.frame.left, plot.frame.width - plot.frame.right)
    assert plot.path.startswith(f"M{left:g} ")
    assert f"L{right:g} " in plot.path
    middle = (plot.frame.top + plot.frame.height - plot.frame.bottom) / 2
    assert abs(plot.limit - middle) < 1


def test_one_line_is_no_plot() -> None:
    assert watched_plot([0.5], "wide") is None
    assert watched_plot([None, 0.5], "narrow") is None
