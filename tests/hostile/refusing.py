"""How a malicious model file is refused."""

from pathlib import Path

import pytest

from mpq.errors import MpqError
from mpq.models.sources.load import load_model


def refusal(path: Path, marker: Path) -> str:
    """The message with which a model file is refused; nothing of it ran."""
    with pytest.raises(MpqError) as caught:
        load_model(path)
    assert not marker.exists()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message
