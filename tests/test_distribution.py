from mpq.distribution import install


def test_an_extra_is_installed_under_the_name_of_this_distribution() -> None:
    assert install("hf") == "pip install 'mpq-torch[hf]'"
