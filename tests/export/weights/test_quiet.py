import logging
import warnings

import pytest

from mpq.export.weights.quiet import quiet


def test_warnings_and_their_log_lines_are_dropped_and_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("another.package")
    with quiet():
        warnings.warn("inside", UserWarning, stacklevel=1)  # would fail this test: warnings are errors here
        logger.warning("a remark")
        logger.error("a failure")
    assert [record.message for record in caplog.records] == ["a failure"]


@pytest.mark.parametrize("level", [logging.NOTSET, logging.INFO, logging.ERROR])
def test_everything_is_as_before_afterwards_whatever_happened(level: int) -> None:
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with pytest.raises(RuntimeError, match="stop"), quiet():
            raise RuntimeError("stop")
        assert logging.root.manager.disable == level
        with pytest.warns(UserWarning, match="outside"):
            warnings.warn("outside", UserWarning, stacklevel=1)
    finally:
        logging.disable(before)
