from pathlib import Path

import pytest

from mpq.errors import UsageError
from mpq.search.storage import open_storage, without_password

URLS = [
    "postgresql://me:{}@host.invalid/db",
    "foo://a:{}@h",
    "mysql://u:{}@",
    "redis://:{}@h:99999999/",
    "nonsense://u:{}@h?password={}",
    "foo://h/db?user=a&password={}",
    "://u:{}@x",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("secret", ["hunter22", "p%40ss%2Fw0rd", "p@ss/w0rd", "x:y?z#9876"])
def test_a_message_about_a_storage_hides_its_password(tmp_path: Path, url: str, secret: str) -> None:
    with pytest.raises(UsageError) as error:
        open_storage(url.replace("{}", secret), beside=tmp_path / "t.sensitivity.jsonl")
    told = str(error.value)
    assert "***" in told
    for hidden in (secret, "p@ss/w0rd" if "%" in secret else secret, "w0rd", "9876", "hunter"):
        assert hidden not in told


def test_what_holds_no_password_is_shown_as_it_is() -> None:
    for url in ("sqlite:///study.db", "postgresql://host/db", "postgresql://me@host/db", ""):
        assert without_password(url, url) == url
