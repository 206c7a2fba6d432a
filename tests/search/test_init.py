import subprocess
import sys


def test_the_warning_of_an_unused_progress_bar_is_not_shown_in_notebooks_and_others_are() -> None:
    code = "import warnings, mpq; warnings.warn('IProgress not found. Please update jupyter'); warnings.warn('other')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "IProgress" not in done.stderr.replace(code, "")
    assert "UserWarning: other" in done.stderr
