import json
from pathlib import Path

import pytest

from mpq.errors import TrustError
from mpq.records.fingerprint import Fingerprint
from mpq.verify.programs.transformers import Transformers

pytest.importorskip("transformers")


def test_code_of_the_folder_is_not_run_without_trust(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Own"], "auto_map": {"AutoModel": "own.Own"}}))
    (tmp_path / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(TrustError, match=r"contains its own code \(auto_map\), which would run when loaded: use --trust"):
        Transformers().load(tmp_path, Fingerprint(1, "compressed-tensors", 1e-3, [], [], {}), trust=False)
