from mpq.models.memory.peak import held_now, peak_memory, peak_text


def test_what_is_held_is_at_most_the_peak() -> None:
    assert held_now() == 0 or 10**7 < held_now() < 10**11
    assert peak_memory() == 0 or peak_memory() >= 0.9 * held_now()


def test_the_peak_is_told_beside_what_was_expected() -> None:
    assert peak_text(412_000_000, 430_000_000) == "peak memory 412 MB, with Python and torch; 430 MB expected"
    assert peak_text(412_000_000, 0) == "peak memory 412 MB, with Python and torch"
    assert peak_text(0, 5) == "peak memory: not available on this system"
