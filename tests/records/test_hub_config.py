import pytest

from mpq.errors import FormatError
from mpq.records.hub_config import VERSION, check_config_version


@pytest.mark.parametrize("version", [99, "x", None])
def test_a_folder_of_a_newer_version_is_refused(version: object) -> None:
    with pytest.raises(FormatError, match=r"config\.json"):
        check_config_version(version)


def test_this_version_of_a_folder_is_accepted() -> None:
    check_config_version(VERSION)
    assert VERSION == 1
